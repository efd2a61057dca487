"""What pip-audit is told reaches us, and no answer is never taken for a good one."""

import socket

import pytest

from supply.packages import Pin
from supply.vulnerabilities import Answer, Flaw, ask

PINS = [Pin("ray", "2.60.0"), Pin("idna", "3.20"), Pin("idna", "3.15")]


@pytest.fixture
def free_address():
    """An address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1/query"


def test_a_flaw_is_found_in_each_version_that_is_asked_for(knowing):
    knowing.add("idna", "3.15", "GHSA-1", "CVE-2027-1", fixed="3.16")
    assert ask(PINS, knowing.address) == Answer([Flaw(PINS[2], ("CVE-2027-1", "GHSA-1"), ("3.16",))], None)
    assert set(knowing.asked) == set(PINS)


def test_a_service_that_fails_is_asked_once_and_said_to_be_silent(knowing):
    knowing.status = 503
    answer = ask(PINS, knowing.address)
    assert answer.flaws == []
    assert "503" in answer.silence
    assert knowing.asked == PINS[:1]


def test_a_service_that_is_not_there_is_said_to_be_silent(free_address):
    assert "refused" in ask(PINS, free_address).silence


def test_a_package_that_the_service_does_not_know_is_silence_too(tmp_path, monkeypatch):
    """PyPI's answer 404 makes pip-audit skip a package, and end as if all were well."""
    skipping = tmp_path / "pip_audit.py"
    skipping.write_text(
        "import json; print(json.dumps({'dependencies': [{'name': 'ray', 'skip_reason': 'not found'}], 'fixes': []}))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask(PINS) == Answer([], "1 of 1: not found")
