"""Servers that a cluster works with, as processes: an object store that speaks S3, and the registry."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.fs as pafs

from app.cluster import free_ports

BUCKET = "evertrue-test"
KEY, SECRET = "evertrue-tester", secrets.token_hex(20)


class Server:
    """A server's process: started until it answers at `url`, stopped, killed, started again with what it kept."""

    def __init__(self, command: Sequence[str], url: str, folder: Path, **environment: str) -> None:
        self._command, self._url, self._folder = list(command), url, folder
        self.origin = "/".join(url.split("/")[:3])
        self._environment = os.environ | environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder, env=self._environment
            )
        end = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, f"{self._command[0]} does not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self._url, timeout=1).close()
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


class S3(Server):
    """SeaweedFS; `port` is that of its S3 interface."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.address = address
        identity = {
            "name": KEY,
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        names = ("master", "volume", "filer", "s3")
        ports = [str(port) for port in free_ports(2 * len(names))]
        self.port = ports[6]
        options = [f"-{name}.port={ports[2 * i]}" for i, name in enumerate(names)]
        options += [f"-{name}.port.grpc={ports[2 * i + 1]}" for i, name in enumerate(names)]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-s3.config=s3.json"]
        options += [f"-ip={address}", f"-ip.bind={address}", "-master.telemetry=false", f"-dir={folder}"]
        command = [
            str(Path(sys.executable).with_name("weed")),
            "server",
            "-s3",
            "-volume.max=100",
            "-master.volumeSizeLimitMB=64",
            *options,
        ]
        super().__init__(command, f"http://{address}:{self.port}/", folder)

    def uri(self, path: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{path}?endpoint_override={self.address}:{self.port}&scheme=http"

    def make_bucket(self) -> None:
        """Make the bucket."""
        pafs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            region="us-east-1",
            scheme="http",
            endpoint_override=f"{self.address}:{self.port}",
            allow_bucket_creation=True,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=10),
        ).create_dir(BUCKET)


def mlflow(folder: Path, address: str = "127.0.0.1") -> Server:
    """Return a registry's server, with a database of its own."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", address, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/files"]
    command += ["--allowed-hosts", "*"]
    return Server(command, f"http://{address}:{port}/health", folder)
