"""What can the cluster hold? So that a training which could never start is refused, not waited for."""

import os

from app.spec import Train, Workers
from app.types import UserError


def cpu_count() -> int:
    """Return the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_range(settings: Train) -> tuple[int, int]:
    """Return the fewest and the most workers."""
    workers = settings.num_workers
    return (workers.min, workers.max) if isinstance(workers, Workers) else (workers, workers)


def worker_need(settings: Train, use_gpu: bool) -> dict[str, float]:
    """Return what one worker reserves."""
    return {"CPU": settings.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})


def workers_use_gpu(settings: Train) -> bool:
    """Say whether the workers train on GPUs: `auto` where the cluster holds enough of them.

    Raises UserError when the cluster can never hold the fewest workers.
    """
    fewest, _ = worker_range(settings)
    allowed = {"auto": (True, False), True: (True,), False: (False,)}[settings.use_gpu]
    for use_gpu in allowed:
        if room(worker_need(settings, use_gpu)) >= fewest:
            return use_gpu
    need = worker_need(settings, allowed[-1])
    each = " and ".join(f"{amount:g} {name}" for name, amount in need.items())
    raise UserError(
        f"train.num_workers asks for {fewest} workers with {each} each, but the cluster can hold {room(need)}; "
        "allowed: so many workers, smaller train.cpus_per_worker, train.use_gpu auto or false, "
        "or train.num_workers 0 to train in the driver"
    )


def free_cpus() -> float:
    """Return the CPUs that nothing has reserved, with those the cluster may still grow by."""
    import ray
    from ray._private.state import state

    free: float = ray.available_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
    limits = state.get_max_resources_from_cluster_config()
    total: float = ray.cluster_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
    return free + max(0.0, limits.get("CPU", 0.0) - total) if limits else free


def object_store_bytes() -> float:
    """Return the smallest object store of a node, which has to hold the rows wherever a worker runs."""
    return min(node.get("object_store_memory", 0.0) for node in _nodes())


def room(need: dict[str, float]) -> int:
    """Return how many workers there would be room for if nothing else ran, grown as far as it may grow."""
    from ray._private.state import state

    limits = state.get_max_resources_from_cluster_config()  # Ray has no public way to ask its autoscaler
    nodes = [limits] if limits else _nodes()
    return sum(int(min(node.get(name, 0.0) // amount for name, amount in need.items())) for node in nodes)


def _nodes() -> list[dict[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]
