"""One Ray cluster for the whole session of tests: its own folder, ports and token, on loopback."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from app.cluster import settings

_STATE = Path(tempfile.mkdtemp(prefix="evt-"))


def pytest_configure() -> None:
    """Set Ray's environment before anything imports Ray: it is read at import."""
    os.environ.update(settings(_STATE, local=True))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("MPLBACKEND", "Agg")
    # Machines differ in speed: no deadline; and a failure must come again: fixed seeds.
    hypothesis.settings.register_profile("evertrue", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("evertrue")


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_STATE, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In the strict run nothing may be left out: a skip is a failure."""
    report = yield
    if report.skipped and "EVERTRUE_STRICT" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start Ray with two CPUs, once; end it and only it."""
    import ray

    ray.init(
        num_cpus=4,  # logical: lets a service and a training run stand side by side on two cores
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=str(_STATE),
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()
