"""Each breach of lock, licence and safety is told by name; what is let pass is let pass for as long as it says."""

import datetime as dt
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from app.types import UserError
from supply import accepted, audit
from supply.accepted import Accepted, Build, Licence, Vulnerability
from supply.packages import Pin, declared, licences, locked, needed
from supply.vulnerabilities import Answer, Flaw

ROOT = Path(__file__).parents[2]
CLASSIFIER = "License :: OSI Approved :: "
FLAW = Flaw(Pin("idna", "3.15"), ("GHSA-1", "CVE-2027-1"), ("3.16",))
WELL = Answer([], None)
DAY = dt.date(2027, 1, 31)


@pytest.fixture
def project(tmp_path):
    """A project that needs PyYAML, and locks it as it is installed here."""
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["PyYAML>=6"]')
    (tmp_path / "requirements.lock").write_text(f"PyYAML=={needed([Requirement('PyYAML')])[0]['pyyaml'].version}\n")
    return tmp_path


def test_the_project_itself_is_locked_and_openly_licensed():
    assert list(audit.lock_complaints(ROOT, accepted.read())) == []
    assert list(audit.licence_complaints(needed(declared(ROOT))[0], accepted.read())) == []


def test_a_lock_that_says_what_is_installed_is_good(project):
    assert list(audit.lock_complaints(project, Accepted())) == []


@pytest.mark.parametrize(
    "line",
    [
        "six>=1",
        "six",
        "--index-url x",
        "six @ https://example.org/six.whl",
        "six==1; extra == 'x'",
        "six==1 --hash=x",
        "",
    ],
)
def test_a_line_that_locks_nothing_is_told(project, line):
    with (project / "requirements.lock").open("a") as lock:
        lock.write(f"{line}\n")
    assert list(audit.lock_complaints(project, Accepted())) == [
        f"requirements.lock: found {line!r}, allowed: name==version"
    ]


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        ("", "pyyaml is missing; it is needed"),
        ("PyYAML==5.0\n", "PyYAML is 5.0 there, pyproject.toml asks for >=6"),
        ("PyYAML==6.99\n", "pyyaml is 6.99 there, but"),
        ("PyYAML==6.99\npyyaml==6.99\n", "pyyaml stands there 2 times"),
    ],
)
def test_a_lock_that_says_something_else_is_told(project, lock, told):
    (project / "requirements.lock").write_text(lock)
    assert any(told in complaint for complaint in audit.lock_complaints(project, Accepted()))


def test_what_the_extras_need_far_away_has_to_be_locked_and_installed(project):
    with (project / "pyproject.toml").open("a") as table:
        table.write('\n[project.optional-dependencies]\ndev = ["pytest-cov", "never-heard-of"]')
    told = list(audit.lock_complaints(project, Accepted()))
    assert "never-heard-of is needed and not installed" in told
    assert any("coverage is missing" in complaint for complaint in told)


def test_what_comes_with_some_builds_alone_needs_no_place_in_the_lock_and_no_licence(project, saying):
    (project / "requirements.lock").write_text("")
    let_pass = Accepted(builds={"pyy*": Build(reason="because")})
    assert list(audit.lock_complaints(project, let_pass)) == []
    assert list(audit.licence_complaints({"pyyaml": saying(("License", "GPL"))}, let_pass)) == []


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([("License-Expression", "Apache-2.0 AND MIT"), ("License", "GPL")], ["Apache-2.0 AND MIT"]),
        ([("Classifier", CLASSIFIER + "MIT License"), ("License", "see LICENSE")], ["MIT"]),
        ([("Classifier", CLASSIFIER + "BSD License"), ("Classifier", CLASSIFIER + "X")], ["BSD License", "X"]),
        ([("Classifier", "License :: OSI Approved"), ("License", "Apache 2.0")], ["Apache-2.0"]),
        ([("License", "Mine\nPermission is hereby granted")], ["Mine"]),
        ([("License", "UNKNOWN")], []),
        ([], []),
    ],
)
def test_a_licence_is_read_where_it_is_said_best(saying, headers, says):
    assert licences(saying(*headers).distribution) == says


@pytest.mark.parametrize(
    ("licence", "good"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("see LICENSE", False),
    ],
)
def test_an_expression_grants_what_all_of_an_and_or_one_of_an_or_grants(licence, good):
    assert audit.allowed(licence) is good


@pytest.mark.parametrize(
    ("headers", "entry", "told"),
    [
        ([("License", "GPLv2")], None, "found the licence GPLv2, allowed: 0BSD, Apache-2.0"),
        ([], None, "found the licence unknown, allowed:"),
        ([("License", "AGPL")], ["GPLv2"], "says ['AGPL'] of its licence, but accepted.toml knows it as ['GPLv2']"),
        ([("License", "MIT")], [], "is allowed (MIT) and needs no entry"),
        ([("License", "GPLv2")], ["GPLv2"], None),
        ([], [], None),
        ([("License", "MIT")], None, None),
    ],
)
def test_a_licence_that_is_not_allowed_is_told_unless_it_is_accepted_as_it_is(saying, headers, entry, told):
    entries = {} if entry is None else {"made-up": Licence(says=entry, licence="X", reason="because")}
    complaints = list(audit.licence_complaints({"made-up": saying(*headers)}, Accepted(licences=entries)))
    assert [told in complaint and "made-up" in complaint for complaint in complaints] == [True] * bool(told)


def test_an_entry_for_what_nothing_needs_is_told():
    entries = {"gone": Licence(says=[], licence="MIT", reason="because")}
    assert list(audit.licence_complaints({}, Accepted(licences=entries))) == ["accepted.toml: nothing needs gone"]


@pytest.mark.parametrize("name", ["GHSA-1", "CVE-2027-1"])
def test_a_flaw_is_let_pass_by_any_of_its_names_until_its_day_has_ended(name):
    entries = Accepted(vulnerabilities={name: Vulnerability(package="idna", reason="not reached", until=DAY)})
    assert list(audit.flaw_complaints(Answer([FLAW], None), entries, DAY)) == []
    assert list(audit.flaw_complaints(Answer([FLAW], None), entries, DAY + dt.timedelta(1))) == [
        "idna 3.15: GHSA-1, CVE-2027-1, fixed in 3.16; was let pass until 2027-01-31"
    ]


def test_a_flaw_let_pass_in_one_package_is_told_in_another():
    entries = Accepted(vulnerabilities={"GHSA-1": Vulnerability(package="ray", reason="not reached", until=DAY)})
    assert len(list(audit.flaw_complaints(Answer([FLAW], None), entries, DAY))) == 1


@pytest.mark.parametrize(
    ("answer", "options", "status"),
    [
        (WELL, [], 0),
        (Answer([FLAW], None), ["--may-be-unanswered"], 1),
        (Answer([], "no route"), [], 3),
        (Answer([], "no route"), ["--may-be-unanswered"], 0),
        (Answer([FLAW], "1 of 200"), ["--may-be-unanswered"], 1),
    ],
)
def test_what_is_found_fails_and_silence_fails_unless_it_may_be(capsys, answer, options, status):
    assert audit.main(options, ask=lambda pins, service: answer) == status
    said = capsys.readouterr().out
    assert ("NOBODY COULD BE ASKED" in said) == bool(answer.silence)
    assert ("idna 3.15: GHSA-1" in said) == bool(answer.flaws)


def test_a_breach_of_the_lock_fails(project, capsys):
    (project / "requirements.lock").write_text("")
    assert audit.main([], project, ask=lambda pins, service: WELL) == 1
    assert "pyyaml is missing" in capsys.readouterr().out


def test_all_that_is_locked_and_all_that_packages_carry_is_asked_for():
    packages, _ = needed(declared(ROOT))
    asked = audit.to_ask(ROOT, packages)
    assert set(locked(ROOT)[0]) < set(asked)
    assert "colorama" in {pin.name for pin in asked}  # within Ray alone


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[vulnerabilities.CVE-1]\npackage = 'x'\nreason = 'y'\n", "vulnerabilities.CVE-1.until: Field required"),
        ("[licences.x]\nsays = []\nlicence = 'MIT'\nreason = ''\n", "licences.x.reason: String should have"),
        ("[licence.x]\n", "licence: Extra inputs"),
        ("[licences", "accepted.toml: "),
    ],
)
def test_an_entry_without_reason_or_end_is_refused_by_name(tmp_path, text, told):
    path = tmp_path / "accepted.toml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        accepted.read(path)
    assert told in str(refused.value)
