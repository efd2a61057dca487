"""Which packages come with Evertrue, near and far? `python -m supply.bill FILE`: a bill of materials, as CycloneDX.

Made again from the same lock it is the same to the byte: it holds no time, no address and no path.
"""

import json
import sys
import tomllib
import uuid
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from supply import accepted
from supply.accepted import Accepted
from supply.packages import Needed, Pin, carried, declared, licences, needed

ROOT = Path(__file__).parent.parent


def bill(project: Path, let_pass: Accepted) -> str:
    """Return the bill of what is installed to run the project: names, versions, licences, and who needs whom.

    Copies that a package carries within are its parts. Raises RuntimeError when CycloneDX's schema does not hold.
    """
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    asked = declared(project)
    packages, missing = needed(asked)
    if missing:
        raise RuntimeError(f"needed and not installed: {sorted(missing)}")
    parts = {name: _component(name, package, let_pass) for name, package in packages.items()}
    whole = Component(
        name=about["name"],
        version=about["version"],
        type=ComponentType.APPLICATION,
        bom_ref=about["name"],
        licenses=[LicenseFactory().make_from_string(about["license"])],
    )
    made = Bom(
        components=parts.values(), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, _named(about["name"], packages))
    )
    made.metadata.component = whole
    names = {canonicalize_name(one.name) for one in asked}
    made.register_dependency(whole, [part for name, part in parts.items() if name in names])
    for name, part in parts.items():
        made.register_dependency(part, [parts[need] for need in packages[name].needs])
    content = json.loads(JsonV1Dot6(made).output_as_string())
    del content["metadata"]["timestamp"]
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise RuntimeError(f"no CycloneDX: {wrong}")
    return text


def _component(name: str, package: Needed, let_pass: Accepted) -> Component:
    make, entry = LicenseFactory().make_from_string, let_pass.licences.get(name)
    if entry:
        known = [make(entry.licence, license_acknowledgement=LicenseAcknowledgement.CONCLUDED)]
    else:
        says = licences(package.distribution)
        known = [make(one, license_acknowledgement=LicenseAcknowledgement.DECLARED) for one in says]
    within = [_bare(copy, f"{name}/{copy.name}") for copy in carried(package.distribution)]
    part = _bare(Pin(name, package.version), name)
    part.licenses, part.components = known, within
    return part


def _bare(pin: Pin, reference: str) -> Component:
    address = PackageURL("pypi", name=pin.name, version=pin.version)
    return Component(name=pin.name, version=pin.version, type=ComponentType.LIBRARY, bom_ref=reference, purl=address)


def _named(name: str, packages: dict[str, Needed]) -> str:
    """Return what tells this bill from others."""
    return "\n".join([name, *sorted(f"{one}=={package.version}" for one, package in packages.items())])


def main(arguments: list[str]) -> int:
    """Write the bill to a file."""
    [target] = map(Path, arguments)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(bill(ROOT, accepted.read()))
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
