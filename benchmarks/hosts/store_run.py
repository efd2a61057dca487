"""Run what `make run` runs with its workspace on an S3 store, which goes away for a minute: `python -m benchmarks.hosts.store_run`."""

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from app.workspace import Workspace, read_bytes
from benchmarks.hosts.ray_hosts import ROOT
from benchmarks.hosts.servers import KEY, S3, SECRET, Server, mlflow, running
from benchmarks.serve.machine import describe

_EXAMPLE = Path("examples/flights")
_AWAY = 60.0


def away(store: Server, running_job: "subprocess.Popen[bytes]", log: Path) -> bool:
    """Once rows arrive, and some more seconds, take the store away and give it back; say whether the job went on so long."""
    while b"rows arrive from now on" not in log.read_bytes():
        if running_job.poll() is not None:
            return False
        time.sleep(0.2)
    time.sleep(30)
    store.kill()
    time.sleep(_AWAY)
    lasted = running_job.poll() is None
    store.start()
    return lasted


def main() -> int:
    """Run, and write benchmarks/results/store.{md,json}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stays", action="store_true", help="leave the store alone")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    options = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-m", "jobs.run", str(_EXAMPLE / "flights.yaml"), "--known", "known"]
    command += ["--pace", "3", "--lead", "3d", "--arrivals", str(_EXAMPLE / "data/arrivals.parquet")]
    with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as scratch:
        folder, log = Path(scratch), Path(scratch) / "run.log"
        for name in ("s3", "mlflow"):
            (folder / name).mkdir()
        store, registry = S3(folder / "s3"), mlflow(folder / "mlflow")
        with running(store), running(registry), log.open("wb") as out:
            store.make_bucket()
            workspace, begin = store.uri("run"), time.monotonic()
            known = os.environ | {"MLFLOW_TRACKING_URI": registry.origin}
            job = subprocess.Popen([*command, "--workspace", workspace], cwd=ROOT, env=known, stdout=out, stderr=out)
            lasted = options.stays or away(store, job, log)
            code = job.wait()
            seconds = time.monotonic() - begin
            print(log.read_text()[-6000:])
            if code or not lasted:
                print(f"exit {code}; the store was away during the run: {lasted}", file=sys.stderr)
                return 1
            found = json.loads(read_bytes(Workspace.open(workspace).uri("flights", "report.json")))
    requests, labels = found["requests"], found["labels"]
    loss = {who: one["mean_of_months"]["log_loss"] for who, one in found["policy"].items()}
    machine = "\n".join(f"- {name}: {text}" for name, text in describe({}).items() if name != "load from")
    fate = "left alone" if options.stays else f"killed, and started again after {_AWAY:g} s"
    text = f"""# The whole run on an object store that goes away

`python -m benchmarks.hosts.store_run`, {dt.date.today():%Y-%m-%d}: the command of `make run` with its workspace on SeaweedFS, over S3, and
an MLflow server as registry. Half a minute after the first rows had arrived the store was {fate}.

| exit | seconds | requests | failed | rows | labels kept | joined | requests for labels sent again | log-loss, ours | never retrained |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| {code} | {seconds:.0f} | {requests["sent"]:,} | {requests["failed"]} | {requests["rows"]:,} | {labels["sent"]:,} | {labels["joined"]:,} | {requests["again"]} | {loss["ours"]:.4f} | {loss["never"]:.4f} |

While the store is away, predictions are answered on. A label that cannot be kept is refused with 503, and the client sends
it again when `Retry-After` says so: what was acknowledged is joined, to the last one.

{machine}
"""
    (options.results / "store.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
