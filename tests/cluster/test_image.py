"""The image: right by its linter, small, of an ordinary user, and without a secret in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SCRIPTS = [ROOT / "cluster/node/environment.sh", ROOT / "cluster/node/setup.sh", ROOT / "cluster/image-check.sh"]


def tool(name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of the virtual environment; what it returns tells what it found."""
    command = [str(Path(sys.executable).parent / name), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)


def instructions() -> list[tuple[str, str]]:
    """Return the instructions in order, with lines that go on joined."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def test_the_linter_has_nothing_to_say() -> None:
    done = tool("hadolint", "-", text=DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("EXPOSE", "EXPOZE", "unexpected"),
        ("--no-install-recommends ", "", "DL3015"),
        ("WORKDIR /build", "WORKDIR build", "DL3000"),
        ("exit 2", "exi 2; rm $x", "SC2086"),
    ],
)
def test_a_wrong_instruction_is_found(right: str, wrong: str, told: str) -> None:
    assert right in DOCKERFILE
    done = tool("hadolint", "-", text=DOCKERFILE.replace(right, wrong))
    assert done.returncode == 1
    assert told in done.stdout + done.stderr


def test_the_scripts_are_right_by_theirs() -> None:
    done = tool("shellcheck", "--external-sources", *map(str, SCRIPTS))
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_of_an_ordinary_user_and_says_whether_it_is_well() -> None:
    names = [name for name, _ in instructions()]
    last = len(names) - names[::-1].index("FROM")
    final = instructions()[last:]
    assert [rest for name, rest in final if name == "USER"] == ["1000:1000"]
    assert "HEALTHCHECK" in names[last:]
    assert [rest for name, rest in final if name == "COPY"] == ["--from=build /opt/evertrue /opt/evertrue"]
    assert "ray health-check" in " ".join(rest for name, rest in final if name == "HEALTHCHECK").replace('", "', " ")
    assert "--dashboard-host=127.0.0.1" in DOCKERFILE


def test_one_argument_tells_cpu_from_gpu() -> None:
    arguments = [rest for name, rest in instructions() if name == "ARG"]
    assert arguments == ["BASE=python:3.11-slim-bookworm", "DEVICE=cpu"]
    (build,) = [rest for name, rest in instructions() if name == "RUN" and "$DEVICE" in rest]
    assert "cpu)" in build
    assert "gpu)" in build
    assert build.count("--constraint requirements.lock") == 2  # in either case


def test_nothing_goes_in_but_what_is_named() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert not [name for name, _ in instructions() if name == "ADD"]


def test_no_secret_is_asked_for_or_written_down() -> None:
    named = [rest.lower() for name, rest in instructions() if name in {"ARG", "ENV", "LABEL"}]
    assert not [
        rest
        for rest in named
        if re.search(r"secret|password|credential|token(?!$)|_key\b", rest.replace("auth_mode=token", ""))
    ]


def test_image_and_nodes_are_made_of_the_same_versions() -> None:
    setup = (ROOT / "cluster/node/setup.sh").read_text()
    for of_image, of_nodes in ((r"uv==([\d.]+)", r"^uv=([\d.]+)"), (r"-gpu==([\d.]+)", r"-gpu==([\d.]+)")):
        assert re.search(of_image, DOCKERFILE)[1] == re.search(of_nodes, setup, re.MULTILINE)[1]
