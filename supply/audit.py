"""Is all locked, openly licensed and without a known flaw? `python -m supply.audit`; 3 if nobody could be asked.

Whether all is locked, as declared, and under which licences, is seen from here. Known vulnerabilities are asked for;
what is let pass stands in accepted.toml.
"""

import argparse
import datetime as dt
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from license_expression import ExpressionError, Licensing
from packaging.utils import canonicalize_name

from app.types import UserError
from supply import accepted, vulnerabilities
from supply.accepted import Accepted
from supply.packages import LOCK, Needed, Pin, carried, declared, extras, licences, locked, needed
from supply.vulnerabilities import Answer

ROOT = Path(__file__).parent.parent
UNANSWERED = 3
# Permissive, or, as Mozilla's, binding to changed files alone.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD License",  # a classifier: one of two or three clauses
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",
    "PSF-2.0",
    "Zlib",
}


def lock_complaints(project: Path, let_pass: Accepted) -> Iterator[str]:
    """Say what is not locked as it is declared and installed, with all extras, near and far."""
    pins, wrong = locked(project)
    versions = dict(pins)
    yield from (f"{LOCK}: found {line!r}, allowed: name==version" for line in wrong)
    yield from (f"{LOCK}: {name} stands there {n} times" for name, n in Counter(n for n, _ in pins).items() if n > 1)
    asked = declared(project, *extras(project))
    for one in asked:
        version = versions.get(canonicalize_name(one.name))
        if version and not one.specifier.contains(version, prereleases=True):
            yield f"{LOCK}: {one.name} is {version} there, pyproject.toml asks for {one.specifier}"
    found, missing = needed(asked)
    yield from (f"{name} is needed and not installed" for name in sorted(missing))
    for name, package in sorted(found.items()):
        if name not in versions and not let_pass.of_a_build(name):
            yield f"{LOCK}: {name} is missing; it is needed, and {package.version} is installed"
        elif versions.get(name, package.version) != package.version:
            yield f"{LOCK}: {name} is {versions[name]} there, but {package.version} is installed"


def licence_complaints(packages: dict[str, Needed], let_pass: Accepted) -> Iterator[str]:
    """Say whose licence is not allowed, or not said; and what is let pass for nothing."""
    for name, package in sorted(packages.items()):
        says, entry = licences(package.distribution), let_pass.licences.get(name)
        if let_pass.of_a_build(name):
            continue
        if says and all(map(allowed, says)):
            if entry:
                yield f"accepted.toml: the licence of {name} is allowed ({', '.join(says)}) and needs no entry"
        elif entry is None:
            yield f"{name}: found the licence {', '.join(says) or 'unknown'}, allowed: {', '.join(sorted(ALLOWED))}"
        elif entry.says != says:
            yield f"{name}: says {says} of its licence, but accepted.toml knows it as {entry.says}"
    yield from (f"accepted.toml: nothing needs {name}" for name in sorted(let_pass.licences.keys() - packages.keys()))


def allowed(licence: str) -> bool:
    """Tell whether an SPDX expression, or a name, grants what is allowed: all of an AND, one of an OR."""
    syntax = Licensing()

    def granted(node: object) -> bool:
        if isinstance(node, syntax.AND):
            return all(map(granted, node.args))
        if isinstance(node, syntax.OR):
            return any(map(granted, node.args))
        return str(node) in ALLOWED

    try:
        return licence in ALLOWED or granted(syntax.parse(licence))
    except ExpressionError:
        return False


def flaw_complaints(answer: Answer, let_pass: Accepted, today: dt.date) -> Iterator[str]:
    """Say which known vulnerabilities are not let pass, or no longer."""
    for pin, names, fixed_in in answer.flaws:
        entries = [let_pass.vulnerabilities[name] for name in names if name in let_pass.vulnerabilities]
        if not any(canonicalize_name(entry.package) == pin.name and today <= entry.until for entry in entries):
            remedy = f"fixed in {', '.join(fixed_in)}" if fixed_in else "not fixed yet"
            ended = "".join(f"; was let pass until {entry.until}" for entry in entries)
            yield f"{pin.name} {pin.version}: {', '.join(names)}, {remedy}{ended}"


def to_ask(project: Path, packages: dict[str, Needed]) -> list[Pin]:
    """Return all that is locked or installed to run, and what packages carry within."""
    installed = [Pin(name, package.version) for name, package in packages.items()]
    copies = [copy for package in packages.values() for copy in carried(package.distribution)]
    return list(dict.fromkeys([*locked(project)[0], *installed, *copies]))


def main(
    arguments: Sequence[str],
    project: Path = ROOT,
    ask: Callable[[Sequence[Pin], str | None], Answer] = vulnerabilities.ask,
) -> int:
    """Print what is wrong; 1 if anything is, 3 if all else is well but nobody could be asked."""
    parser = argparse.ArgumentParser(prog="python -m supply.audit", description=__doc__)
    parser.add_argument("--service", metavar="URL", help="ask this service, by OSV's protocol, in place of PyPI")
    parser.add_argument(
        "--may-be-unanswered", action="store_true", help="say aloud, but do not fail, if nobody answers"
    )
    given = parser.parse_args(arguments)
    try:
        let_pass = accepted.read()
    except UserError as error:
        print(f"audit: {error}")
        return 1
    packages, _ = needed(declared(project))
    asked = to_ask(project, packages)
    answer = ask(asked, given.service)
    complaints = [
        *lock_complaints(project, let_pass),
        *licence_complaints(packages, let_pass),
        *flaw_complaints(answer, let_pass, dt.datetime.now(dt.UTC).date()),
    ]
    for complaint in complaints:
        print(f"audit: {complaint}")
    if answer.silence:
        print("audit: NOBODY COULD BE ASKED FOR KNOWN VULNERABILITIES; nothing is known of them.")
        print(f"audit: {answer.silence}")
    else:
        print(f"audit: asked for known vulnerabilities of {len(asked)} packages")
    if complaints:
        return 1
    print(f"audit: {len(packages)} packages are installed to run, all locked and openly licensed")
    return UNANSWERED if answer.silence and not given.may_be_unanswered else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
