"""The endpoint as `make serve` starts it, over the benchmark's bundle: `python -m benchmarks.serve.ours PORT`."""

import os
import signal
import sys
import tempfile
import threading

from app import cluster
from app.model.bundle import open_bundle
from app.workspace import ENVIRONMENT, Workspace
from benchmarks.serve.work import BUNDLE


def main(port: int) -> None:
    """Serve on loopback until told to end."""
    uri = os.environ[BUNDLE]
    bundle = open_bundle(uri)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    cluster.connect()
    from app.serving.deploy import deploy  # after the cluster's settings, which Serve reads when it is imported

    serving = bundle.spec.serve.model_copy(update={"host": "127.0.0.1", "port": port, "max_replicas": 1})
    spec = bundle.spec.model_copy(update={"name": "bench", "serve": serving})
    with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as root:
        workspace = Workspace.open(os.environ.get(ENVIRONMENT, root))
        print(deploy(spec, workspace, uri, "1"), flush=True)
        ended.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
