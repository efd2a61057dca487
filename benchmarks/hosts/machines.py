"""Hosts of their own on this machine: each has its processes, its network, its temporary files and its name.

They are namespaces of Linux, joined by a bridge. A host that is killed is gone at once, with all that ran on it; one
whose cable is cut runs on and reaches nobody. Needs root, or what `WITHOUT_ROOT` puts before a command.
"""

import os
import secrets
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

_NAMESPACES = ("--net", "--pid", "--mount", "--ipc", "--uts")
WITHOUT_ROOT = "unshare --user --map-root-user --net --mount --pid --fork --mount-proc"
"""What a command is begun with whose user is not root: it is root then in a machine of its own, without a way out."""

# The first process of a host reaps what others leave behind, as any does, tells that it is there, and ends with us.
_INIT = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print('up', flush=True); sys.stdin.read()"


def allowed() -> bool:
    """Say whether this machine lets us make hosts."""
    try:
        made = subprocess.run(["unshare", *_NAMESPACES, "--fork", "ip", "link"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return made.returncode == 0


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@dataclass
class Host:
    """One host: commands are run in it as on a machine one has logged in to. `folder` holds its home and its /tmp/ray."""

    name: str
    address: str
    folder: Path
    cable: str
    _init: "subprocess.Popen[str]"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def command(self, *command: str, folder: Path | None = None) -> list[str]:
        """Return what runs a command in this host, in its home or in a folder that is mounted."""
        return ["nsenter", f"--target={self._pid}", *_NAMESPACES, f"--wd={folder or self.home}", *command]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of one who has logged in: nothing of this machine's but the language."""
        known = {"HOME": str(self.home), "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return known | {"LANG": "C.UTF-8", "TERM": "dumb"} | more

    def run(self, *command: str, seconds: float = 120, **more: str) -> str:
        """Run a command to its end; return what it said. Raises RuntimeError with that when it failed."""
        done = subprocess.run(
            self.command(*command),
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {shlex.join(command)}: {done.returncode}\n{done.stdout[-4000:]}")
        return done.stdout

    def kill(self) -> None:
        """Pull the plug: every process of the host is gone when this returns."""
        os.kill(self._pid, 9)
        self._init.wait()
        # The kernel takes the cable away in its own time; a host that starts again needs its place at once.
        subprocess.run(["ip", "link", "delete", self.cable], capture_output=True, timeout=20)

    def cut(self) -> None:
        """Pull the cable out."""
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Put the cable in again."""
        _ip("link", "set", self.cable, "up")

    @property
    def _pid(self) -> int:
        [child] = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return int(child)


@dataclass
class Network:
    """A bridge, and the hosts at it, which all end with it."""

    folder: Path
    shared: Mapping[str, Path] = field(default_factory=dict)
    """Paths of hosts, and what of this machine they show: such as a folder that all have mounted."""

    _hosts: list[Host] = field(default_factory=list)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    _name: str = field(default_factory=lambda: f"ev{secrets.token_hex(3)}")
    _net: str = field(default_factory=lambda: f"10.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}")

    def __enter__(self) -> "Network":
        _ip("link", "set", "lo", "up")  # that of a machine of one's own is down at first
        _ip("link", "add", self._name, "type", "bridge")
        _ip("addr", "add", f"{self._net}.1/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for host in self._hosts:
            if host._init.poll() is None:
                host.kill()
        _ip("link", "delete", self._name)

    @property
    def address(self) -> str:
        """This machine's own address at the bridge."""
        return f"{self._net}.1"

    def host(self, name: str) -> Host:
        """Start a host. One that was killed may start again under its name, with its address, and its files as they are."""
        with self._one_at_a_time:
            return self._start(name)

    def _start(self, name: str) -> Host:
        known = [host for host in self._hosts if host.name == name]
        place = self._hosts.index(known[0]) if known else len(self._hosts)
        folder, cable, address = self.folder / name, f"{self._name}-{place}", f"{self._net}.{10 + place}"
        mounts = {folder / "tmp" / part: Path("/tmp") / part for part in ("ray", "evertrue")}
        mounts |= {there: Path(here) for here, there in self.shared.items()}
        for there, here in mounts.items():
            there.mkdir(parents=True, exist_ok=True)
            here.mkdir(parents=True, exist_ok=True)
        (folder / "home").mkdir(exist_ok=True)
        mounts |= self._names(name, address)
        binds = [f"mount --bind {shlex.quote(str(there))} {shlex.quote(str(here))}" for there, here in mounts.items()]
        inside = f"hostname {name} && {' && '.join(binds)} && exec {sys.executable} -c {shlex.quote(_INIT)}"
        # fmt: off
        init = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-c", inside],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        # fmt: on
        assert init.stdout is not None
        if init.stdout.readline() != "up\n":
            raise RuntimeError(f"host {name} did not start")
        host = Host(name, address, folder, cable, init)
        self._hosts = [one for one in self._hosts if one.name != name]
        self._hosts.insert(place, host)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(host._pid))
        _ip("link", "set", cable, "master", self._name, "up")
        for command in (
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {self.address}",
        ):
            host.run("ip", *command.split())
        return host

    def _names(self, name: str, address: str) -> dict[Path, Path]:
        """Return files that tell a host the others' names, and that there is nobody else to ask for names."""
        hosts, resolver = self.folder / "hosts", self.folder / "resolv.conf"
        known = [("localhost", "127.0.0.1"), (name, address)]
        known += [(host.name, host.address) for host in self._hosts if host.name != name]
        hosts.write_text("".join(f"{where} {who}\n" for who, where in known))
        resolver.touch()
        return {hosts: Path("/etc/hosts"), resolver: Path("/etc/resolv.conf")}
