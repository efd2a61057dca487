"""What is generated from the types is current, complete, and says the same as the reader."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from app.declaration import DeclarationError, read
from app.declaration.__main__ import main, schema_text
from app.declaration.marked import parse
from app.declaration.reference import example, markdown
from app.declaration.schema import Allowed, json_schema

DOCS = Path(__file__).parents[2] / "docs"


def sections() -> dict[str, Allowed]:
    """Return every mapping with fixed keys by its place."""
    found: dict[str, Allowed] = {}

    def visit(place: str, section: Allowed) -> None:
        found[place] = section
        for key in section.keys:
            child = section.below(key)
            for below in (child, child.below(0), child.below("<name>")):
                for option in below.options:
                    if "properties" in option:
                        visit(f"{place}.{key}.{option['title']}", Allowed(child.root, (option,)))

    visit("", Allowed.in_declaration())
    return found


def test_the_kept_schema_is_the_generated_one() -> None:
    assert (DOCS / "evertrue.schema.json").read_text() == schema_text(), (
        "python -m app.declaration --schema > docs/..."
    )


def test_the_kept_reference_is_the_generated_one() -> None:
    assert (DOCS / "declaration.md").read_text() == markdown(), "python -m app.declaration --reference > docs/..."


def test_the_command_prints_either(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["app.declaration", "--schema"])
    main()
    assert capsys.readouterr().out == schema_text()
    monkeypatch.setattr("sys.argv", ["app.declaration", "--reference"])
    main()
    assert capsys.readouterr().out == markdown()


def test_every_key_is_described_and_stands_in_the_reference() -> None:
    assert len(sections()) >= 16
    reference = markdown()
    for place, section in sections().items():
        for key in section.keys:
            description = section.below(key).description
            assert description.endswith("."), f"{place}.{key} has no description"
            assert f"| `{key}` |" in reference
            assert description in reference


def test_the_schema_is_a_valid_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_example_holds_every_key_and_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    text = example()
    file.write_text(text)
    assert read(file).spec.features is not None
    for place, section in sections().items():
        if not place.endswith(".Workers"):  # the other way to write train.num_workers
            for key in section.keys:
                assert re.search(rf"^[ -]*{key}:", text, re.MULTILINE), f"{place}.{key}"
    jsonschema.validate(parse(text, "").value, json_schema())


@pytest.mark.parametrize(
    "line",
    [
        "train: {epoch: 5}",
        "epochs: 5",
        "train: {epochs: five}",
        "train: {epochs: 0}",
        "train: {use_gpu: maybe}",
        "train: {num_workers: {min: 0, max: 2}}",
        "train:",
        "retrain: {window: never}",
        "gate: {max_latency: 20}",
        "gate: {slices: origin}",
        "features: {x: numbr}",
        "features: {x: {type: text}}",
        "features: {x: {min: 1}}",
        "features: {x: {type: number, values: [1]}}",
        "features: {x: {type: category, max: 1}}",
        "quality: {rules: [{name: a}]}",
        "serve: {port: 70000}",
        "data: {source: x, time: t, split: {train_until: 1.3.2013}}",
        "name: Flights",
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(tmp_path: Path, line: str) -> None:
    key, _, value = line.partition(":")
    document = {"name": "flights", "task": {"target": "late"}, "data": {"source": "x"}, key: yaml.safe_load(value)}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_schema())
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(DeclarationError):
        read(file)


def test_the_schema_accepts_the_flights_example() -> None:
    file = Path(__file__).parents[2] / "examples" / "flights" / "flights.yaml"
    jsonschema.validate(parse(file.read_text(), file.name).value, json_schema())
    assert read(file).spec.name == "flights"
