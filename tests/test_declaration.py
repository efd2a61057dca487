"""A declaration's file is read, or every mistake in it is told by line, with what is allowed."""

import datetime as dt
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.declaration import DeclarationError, read
from app.declaration.schema import Allowed, Schema, json_schema
from app.spec import DURATION, MOMENT, ConflictError, NumberFeature, Spec
from app.types import UserError

SMALLEST = "name: flights\ntask: {target: late}\ndata: {source: flights.parquet}\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a path whose messages are short: f.yaml in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path("f.yaml")


def mistakes(file: Path, text: str, *overrides: str) -> list[str]:
    """Return what is wrong with a text, as a user reads it."""
    file.write_text(text)
    with pytest.raises(DeclarationError) as caught:
        read(file, overrides)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "https://user:secret@mlflow.example.com/", "mlflow.example.com", "ftp://a/b"]
)
def test_a_page_to_link_to_is_one_that_a_browser_opens_and_holds_no_password(file: Path, address: str) -> None:
    [said] = mistakes(file, f"{SMALLEST}serve:\n  links:\n    MLflow: {address}\n")
    assert said.startswith("f.yaml:6:13: serve.links.MLflow: found text")
    assert said.endswith("allowed: an http(s) address, without user and password")


def test_pages_to_link_to_keep_their_order(file: Path) -> None:
    links = {
        "MLflow": "http://127.0.0.1:5000/#/models/flights",
        "Grafana": "https://grafana.example.com/d/evertrue?x=1",
    }
    file.write_text(f"{SMALLEST}serve: {{links: {json.dumps(links)}}}\n")
    assert list(read(file).spec.serve.links.items()) == list(links.items())


def test_name_target_and_source_are_enough(file: Path) -> None:
    file.write_text(SMALLEST)
    declaration = read(file)
    assert declaration.spec.task.target == "late"
    assert declaration.path == file
    assert declaration.text == SMALLEST


def test_dates_durations_and_shorthand_are_read(file: Path) -> None:
    file.write_text(
        "name: flights\ntask: {target: late}\n"
        "data:\n  source: [a.csv, b.csv]\n  time: t\n  split: {train_until: 2013-03-01, gap: 6h}\n"
        "features: {x: number, y: {type: category, values: ['no', \"012\"]}}\n"
        "train: {num_workers: {min: 1, max: 2}, learning_rate: 1e-3}\n"
    )
    spec = read(file).spec
    assert spec.data.split.train_until == dt.datetime(2013, 3, 1, tzinfo=dt.UTC)
    assert spec.data.split.gap == dt.timedelta(hours=6)
    assert spec.features is not None
    assert spec.features["x"] == NumberFeature(type="number")
    assert spec.train.learning_rate == 0.001


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train: {epoch: 5}", "4:9: train.epoch: unknown key, did you mean epochs? allowed: epochs, batch_size, "),
        ("epochs: 5", "4:1: epochs: unknown key here, did you mean train.epochs or "),
        ("train: {zzz: 5}", "4:9: train.zzz: unknown key; allowed: epochs, "),
        ("train: {epochs: five}", '4:17: train.epochs: found text "five"; allowed: a whole number from 1 to 1000000'),
        ("train: {epochs: 0}", "4:17: train.epochs: found 0; allowed: a whole number from 1 to 1000000"),
        ("train: {epochs: 1.5}", "4:17: train.epochs: found 1.5; allowed: a whole number from 1 to 1000000"),
        ("train: {epochs: true}", "4:17: train.epochs: found true; allowed: a whole number from 1 to 1000000"),
        ("train: {epochs: }", "4:16: train.epochs: found nothing; allowed: a whole number from 1 to 1000000"),
        ("train: {epochs: 1_000}", '4:17: train.epochs: found text "1_000"; allowed: a whole number from 1 to 1000000; '
         "write 1000 without quotes or separators"),
        ("train: {epochs: [1]}", "4:17: train.epochs: found a list; allowed: a whole number from 1 to 1000000"),
        ("train: {learning_rate: .nan}", "4:24: train.learning_rate: found nan; allowed: a number, above 0"),
        ("train: {warmup: 1}", "4:17: train.warmup: found 1; allowed: a number, at least 0 and below 1"),
        ("train: {use_gpu: maybe}", '4:18: train.use_gpu: found text "maybe"; allowed: auto, true or false'),
        ("train: {num_workers: many}", '4:22: train.num_workers: found text "many"; allowed: a whole number from 0 to '
         "10000 or a mapping with min, max"),
        ("train: {num_workers: {min: 0, max: 2}}", "4:28: train.num_workers.min: found 0; allowed: a whole number from 1"),
        ("train: {num_workers: {min: 1}}", "4:22: train.num_workers.max: this key is missing; allowed: a whole number"),
        ("train: {num_workers: {min: 1, max: 2, mix: 1}}", "4:39: train.num_workers.mix: unknown key, did you mean min?"),
        ("train: {num_workers: {min: 3, max: 2}}", "4:28: train.num_workers.min: 3 is above max 2"),
        ('train: {class_weights: {"yes": a}}', '4:32: train.class_weights.yes: found text "a"; allowed: a number'),
        ("train: {class_weights: {late: }}", "4:30: train.class_weights.late: found nothing; allowed: a number"),
        ("train: {class_weights: [1]}", "4:24: train.class_weights: found a list; allowed: none, balanced or a mapping"),
        ("train: {epochs: 0x" + "f" * 4000 + "}", "4:17: train.epochs: found 0xffff"),
        ("tune: {space: {model.width: {type: range, low: " + "9" * 400 + ", high: 8}}}", "4:48: tune.space.model.width.low: found 999"),
        ("retrain: {every: " + "9" * 900_000 + "d}", "4:18: retrain.every: found text"),
        ('features: {"a\\ud800b": number}', "4:12: features: found a?b, where ? was an escape of half a character"),
        ('gate: {slices: ["\\udfff"]}', "4:17: gate.slices[0]: found ?, where ? was an escape of half a character"),
        ("train:", "4:7: train: found nothing; allowed: a mapping with epochs, batch_size, "),
        ("retrain: {window: never}", '4:19: retrain.window: found text "never"; allowed: all or a number and a unit'),
        ("retrain: {window: 0s}", '4:19: retrain.window: found text "0s"; allowed: all or a number and a unit'),
        ("gate: {max_latency: 20}", "4:21: gate.max_latency: found 20; allowed: a number and a unit (ms, s, m, h, d, w)"),
        ("gate: {slices: origin}", '4:16: gate.slices: found text "origin"; allowed: a list of text'),
        ("gate: {slices: [7]}", "4:17: gate.slices[0]: found 7; allowed: text; in quotes it is text"),
        ("gate: {slices: [no]}", '4:17: gate.slices[0]: found no, which some readers of YAML take for false: write "no"'),
        ("features: {x: numbr}", '4:15: features.x: found text "numbr"; allowed: number, category or a mapping with type, '
         "required, min, max, values, max_categories; did you mean number?"),
        ("features: {x: {type: text}}", '4:22: features.x.type: found text "text"; allowed: number or category'),
        ("features: {x: {min: 1}}", "4:15: features.x.type: this key is missing; allowed: number or category"),
        ("features: {x: }", "4:14: features.x: found nothing; allowed: number, category or a mapping with type, "),
        ("features: {x: {type: number, values: [1]}}", "4:30: features.x.values: is for category features; allowed: type, "
         "required, min, max"),
        ("features: {x: {type: category, max: 1}}", "4:32: features.x.max: is for number features; allowed: type, "
         "required, values, max_categories"),
        ("features: {number: {type: number, min: a}}", '4:40: features.number.min: found text "a"; allowed: a number'),
        ("features: {x: {type: number, number: 1}}", "4:30: features.x.number: unknown key"),
        ("features: {x: {type: category, values: [a, ~]}}", "4:44: features.x.values[1]: found nothing; allowed: text, a "
         "whole number, true or false"),
        ("features: {x: {type: category, values: []}}", "4:40: features.x.values: found an empty list; allowed: a list of "),
        ("features: [x, y]", "4:11: features: found a list; allowed: a mapping of names to number or category"),
        ('features: {"": number}', "4:12: features.: a column's name cannot be empty"),
        ("features: {late: number}", "4:18: features.late: this column is task.target and cannot be a feature"),
        ("quality: {rules: [{name: a}]}", "4:19: quality.rules[0].expression: this key is missing; allowed: text"),
        ("quality: {rules: [{name: a, expresion: b, expression: c}]}", "4:29: quality.rules[0].expresion: unknown key, did "
         "you mean expression? allowed: name, expression"),
        ("serve: {tls: {certificate: a.crt, key: /a.key}}", '4:28: serve.tls.certificate: found text "a.crt"; allowed: an absolute path'),
        ("serve: {min_replicas: 9}", "4:23: serve.min_replicas: 9 is above max_replicas 4"),
        ("retrain: {window: 30d}", "4:19: retrain.window: needs data.time"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_line_with_what_is_allowed(file: Path, line: str, message: str) -> None:
    (said,) = mistakes(file, SMALLEST + line + "\n")
    assert said.startswith(f"f.yaml:{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: f\ndata: {source: x}\n", "f.yaml:1:1: task: this key is missing; allowed: a mapping with target, "),
        (
            "name: f\ntask: {type: auto}\ndata: {source: x}",
            "f.yaml:2:7: task.target: this key is missing; allowed: text",
        ),
        (
            "name: F\ntask: {target: y}\ndata: {source: x}",
            'f.yaml:1:7: name: found text "F"; allowed: 1 to 63 lower-case',
        ),
        (
            "name: f\ntask: {target: 1}\ndata: {source: x}",
            "f.yaml:2:16: task.target: found 1; allowed: text; in quotes",
        ),
        (
            "name: f\ntask: {target: y}\ndata: {source: 5}",
            "f.yaml:3:16: data.source: found 5; allowed: text or a list of",
        ),
        ("name: f\ntask: {target: y}\ndata: {source: [a, 5]}", "f.yaml:3:20: data.source[1]: found 5; allowed: text"),
        (
            "name: f\ntask: {target: y}\ndata: {source: x, timezone: Mars}",
            'f.yaml:3:29: data.timezone: found text "Mars"; allowed: text (not an IANA zone such as UTC',
        ),
        (
            "name: f\ntask: {target: y}\ndata: {source: x, time: t, split: {train_from: 2013-02-30}}",
            'f.yaml:3:48: data.split.train_from: found text "2013-02-30"; allowed: an ISO 8601 date',
        ),
    ],
)
def test_what_a_declaration_needs_is_told_the_same_way(file: Path, text: str, message: str) -> None:
    (said,) = mistakes(file, text)
    assert said.startswith(message)


def test_all_mistakes_are_told_in_the_order_of_the_file(file: Path) -> None:
    text = SMALLEST + "train:\n  epochs: 0\n  epochs: none\n  warmup: 2\nserve: {port: 0, host: no}\nmodle: {}\n"
    said = mistakes(file, text, "gate.margin=-1")
    assert [line.split(":")[1] for line in said[:-1]] == ["6", "6", "7", "8", "8", "9"][1:]
    assert said[-1] == "--set gate.margin: found -1; allowed: a number, at least 0"
    with pytest.raises(UserError, match=r"^6 mistakes in the declaration:\nf\.yaml:6"):
        read(file, ["gate.margin=-1"])


def test_thousands_of_mistakes_are_found_at_once_and_the_first_are_told(file: Path) -> None:
    file.write_text(SMALLEST + "features:\n" + "".join(f"  c{i}: numbr\n" for i in range(3000)))
    with pytest.raises(DeclarationError) as caught:
        read(file)
    assert len(caught.value.problems) == 3000
    lines = str(caught.value).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("3000 mistakes in the declaration:", "and 2950 more", 52)


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("train.epochs=5", ("train", "epochs"), 5),
        ("train.learning_rate=1e-3", ("train", "learning_rate"), 0.001),
        ("gate.slices=[a, b]", ("gate", "slices"), ["a", "b"]),
        ("retrain.window=all", ("retrain", "window"), "all"),
        ("task.target=delay", ("task", "target"), "delay"),
        ("data.key=", ("data", "key"), None),
        ("model={width: 8}", ("model", "width"), 8),
    ],
)
def test_an_override_replaces_one_key(file: Path, override: str, place: tuple[str, ...], value: object) -> None:
    file.write_text(SMALLEST + "train: {epochs: 3, warmup: 0.1}\n")
    found: Any = read(file, [override]).spec.dump()
    for part in place:
        found = found[part]
    assert found == value
    assert read(file, [override]).spec.train.warmup == 0.1


def test_a_dotted_column_is_quoted_in_an_override_and_the_last_override_wins(file: Path) -> None:
    file.write_text(SMALLEST)
    spec = read(
        file, ['features."dep.time"={type: number}', 'features."dep.time".max=9', 'features."dep.time".max=24']
    ).spec
    assert spec.features == {"dep.time": NumberFeature(type="number", max=24)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=5", "--set train.epoch: unknown key, did you mean epochs? allowed: epochs, "),
        ("trian.epochs=5", "--set trian.epochs: trian: unknown key, did you mean train? allowed: name, task, "),
        ("train.epochs=x", '--set train.epochs: found text "x"; allowed: a whole number from 1 to 1000000'),
        ("train.num_workers.min=0", "--set train.num_workers.min: found 0; allowed: a whole number from 1 to 10000"),
        ("name.first=x", "--set name.first: name is not a mapping there; set it as a whole"),
        ("train.epochs", "--set train.epochs: an override is key.key=value, such as train.epochs=5"),
        ("=5", "--set =5: an override is key.key=value"),
        ("train..epochs=5", "--set train..epochs=5: an override is key.key=value"),
        ("train.epochs=[", "--set train.epochs: not valid YAML"),
        ("train.epochs=", "--set train.epochs: found nothing; allowed: a whole number from 1 to 1000000"),
        ("train=", "--set train: found nothing; allowed: a mapping with epochs, "),
        ("gate.slices=[no]", "--set gate.slices: gate.slices[0]: found no, which some readers"),
    ],
)
def test_a_wrong_override_is_told_by_its_own_name(file: Path, override: str, message: str) -> None:
    assert mistakes(file, SMALLEST, override)[0].startswith(message)


def test_an_override_repairs_the_files_own_mistake(file: Path) -> None:
    file.write_text(SMALLEST + "train: {epochs: five}\n")
    assert read(file, ["train.epochs=5"]).spec.train.epochs == 5


def test_a_file_that_is_not_there_names_its_neighbours(file: Path) -> None:
    Path("flights.yaml").write_text(SMALLEST)
    with pytest.raises(UserError, match=r"flihgts\.yaml does not exist; did you mean flights\.yaml\?"):
        read("flihgts.yaml")
    with pytest.raises(UserError, match=r"nowhere/f\.yaml does not exist, nor does its folder"):
        read("nowhere/f.yaml")


def test_a_directory_names_the_declarations_in_it(file: Path) -> None:
    Path("examples").mkdir()
    Path("examples/flights.yaml").write_text(SMALLEST)
    with pytest.raises(
        UserError, match=r"examples is a directory, not a file; did you mean examples/flights\.yaml\?"
    ):
        read("examples")


def test_a_pipe_is_not_waited_for(file: Path) -> None:
    os.mkfifo("pipe.yaml")
    with pytest.raises(UserError, match=r"pipe\.yaml is not a regular file"):
        read("pipe.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"f\.yaml is empty; it needs at least name, task\.target and data\.source"),
        (b"# only a comment\n", r"f\.yaml is empty"),
        (b"- a\n- b\n", r"f\.yaml is not a mapping of keys; it needs at least name"),
        (b"name:flights", r"f\.yaml is not a mapping of keys"),
        (b"name: f\ntask: \xff\n", r"f\.yaml:2: not UTF-8 text \(byte 0xff\); save it as UTF-8"),
        ("name: flüge".encode("utf-16"), r"f\.yaml:1: not UTF-8 text"),
        (b"# " + b"x" * 2_000_000, r"f\.yaml is larger than 1,048,576 bytes"),
        (b"name: f\n\ttask: x\n", r"f\.yaml:2:1: not valid YAML: .*indent with spaces"),
    ],
)
def test_a_file_that_is_no_declaration_is_refused(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(file)


def test_a_byte_order_mark_is_no_part_of_the_first_key(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert read(file).spec.name == "flights"


_TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8
)


def values(allowed: Allowed) -> st.SearchStrategy[Any]:
    """Draw what the schema allows at one place."""
    return st.one_of([_values(allowed, option) for option in allowed.options])


def _values(allowed: Allowed, option: Schema) -> st.SearchStrategy[Any]:
    low = option.get("minimum", option.get("exclusiveMinimum", -1000))
    high = option.get("maximum", option.get("exclusiveMaximum", low + 1000))
    if "const" in option or "enum" in option:
        return st.sampled_from(option.get("enum") or [option["const"]])
    match option["type"]:
        case "integer":
            return st.integers(low, high)
        case "number":
            return st.floats(
                low, high, exclude_min="exclusiveMinimum" in option, exclude_max="exclusiveMaximum" in option
            )
        case "boolean":
            return st.booleans()
        case "string" if option.get("pattern") == MOMENT:
            return st.sampled_from(["2013-03-01", "2013-04-01T06:30Z", "2014-01-01 00:00:00.5+01:00"])
        case "string" if option.get("pattern") == DURATION:
            return st.sampled_from(["20ms", "1.5h", "90d", "2w"])
        case "string" if "pattern" in option:
            return st.from_regex(option["pattern"].replace("$", r"\Z"))
        case "string":
            return st.just("Europe/Paris") if option.get("title") == "Timezone" else _TEXT
        case "array":
            return st.lists(values(Allowed(allowed.root, (option,)).below(0)), min_size=1, max_size=3)
    section = Allowed(allowed.root, (option,))
    if "properties" not in option:
        return st.dictionaries(_TEXT, values(section.below("x")), max_size=3)
    keys = {key: values(section.below(key)) for key in section.keys}
    needed = option.get("required", [])
    return st.fixed_dictionaries(
        {key: keys[key] for key in needed}, optional={key: keys[key] for key in keys if key not in needed}
    )


_DECLARATIONS = st.deferred(lambda: values(Allowed.in_declaration()))


@cache
def _schema() -> tuple[Allowed, jsonschema.Draft202012Validator]:
    return Allowed.in_declaration(), jsonschema.Draft202012Validator(json_schema())


@settings(max_examples=60)
@given(st.data())
def test_what_the_schema_allows_is_read_and_its_dump_is_the_same_declaration(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    allowed, validator = _schema()
    chosen = data.draw(st.lists(st.sampled_from(allowed.keys), max_size=4, unique=True))
    keys = sorted({"name", "task", "data", *chosen})
    drawn = data.draw(st.fixed_dictionaries({key: values(allowed.below(key)) for key in keys}))
    drawn["data"]["time"] = "happened at"
    try:
        spec = Spec.model_validate(drawn)
    except ValidationError as error:
        if any(isinstance(detail.get("ctx", {}).get("error"), ConflictError) for detail in error.errors()):
            reject()
        raise
    assert Spec.model_validate(spec.dump()) == spec
    file = tmp_path_factory.getbasetemp() / "drawn.yaml"
    file.write_text(json.dumps(spec.dump(), ensure_ascii=False), encoding="utf-8")
    assert read(file).spec == spec
    assert validator.is_valid(drawn)
    assert validator.is_valid(spec.dump())


@settings(max_examples=60)
@given(
    st.data(), st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | _TEXT, st.lists, max_leaves=4)
)
def test_whatever_stands_at_a_key_is_read_or_refused_by_that_key(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: object
) -> None:
    section = data.draw(st.sampled_from(["task", "data", "quality", "model", "train", "gate", "serve", "retrain"]))
    key = data.draw(st.sampled_from(_schema()[0].below(section).keys))
    drawn: dict[str, Any] = {"name": "f", "task": {"target": "y"}, "data": {"source": "x", "time": "t"}}
    drawn.setdefault(section, {})[key] = value
    file = tmp_path_factory.getbasetemp() / "drawn.yaml"
    written = json.dumps(drawn, ensure_ascii=False).replace("NaN", ".nan").replace("Infinity", ".inf")
    file.write_text(written, encoding="utf-8")
    try:
        read(file)
    except DeclarationError as error:
        assert {problem.place[:2] for problem in error.problems} == {(section, key)}  # noqa: PT017
