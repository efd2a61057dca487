"""YAML's traps are errors with a line, and every value knows where it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.declaration.marked import MAX_VALUES, Mark, parse


def said(text: str) -> list[str]:
    """Return the problems of a text."""
    return [str(problem) for problem in parse(text, "f.yaml").problems]


def test_keys_and_values_know_their_lines() -> None:
    marked = parse("a: 1\nb:\n  c: [x, y]\n", "f.yaml")
    assert marked.value == {"a": 1, "b": {"c": ["x", "y"]}}
    assert marked.keys["b", "c"] == Mark("f.yaml", 3, 3)
    assert marked.values["b", "c", 1] == Mark("f.yaml", 3, 10)
    assert marked.mark(("b", "c", 7, "z")) == Mark("f.yaml", 3, 6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-5", -5),
        ("0x1F", 31),
        ("0o17", 15),
        ("12:30", "12:30"),
        ("2013-03-01", "2013-03-01"),
        ("1_000", "1_000"),
        ("~", None),
        ("", None),
        ("True", True),
        ('"no"', "no"),
        ("'012'", "012"),
        ("!!str 5", "5"),
        ("NA", "NA"),
        ("=", "="),
    ],
)
def test_scalars_are_read_by_the_core_rules_of_yaml_1_2(text: str, value: object) -> None:
    marked = parse(f"a: {text}", "f.yaml")
    assert marked.problems == []
    assert marked.value == {"a": value}
    assert type(marked.at(("a",))) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: no", 'f.yaml:1:4: a: found no, which some readers of YAML take for false: write "no" or false'),
        ("a: [SE, NO]", 'f.yaml:1:9: a[1]: found NO, which some readers of YAML take for false: write "NO" or false'),
        ("on: 1", 'f.yaml:1:1: on: found on, which some readers of YAML take for true: write "on" or true'),
        ("a: 012", 'f.yaml:1:4: a: found 012: write "012" in quotes for text, or the number without its zero'),
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: a: the key is given twice, first in line 1"),
        ("b:\n  a: 1\n  a: 3", "f.yaml:3:3: b.a: the key is given twice, first in line 2"),
        ("1: x", 'f.yaml:1:1: a key must be text, found 1; write "1"'),
        ("null: x", 'f.yaml:1:1: a key must be text, found null; write "null"'),
        ("true: x", 'f.yaml:1:1: a key must be text, found true; write "true"'),
        ("[a]: x", "f.yaml:1:1: a key must be text, found a list or mapping"),
        ("a: &b {c: 1}\nd: {<<: *b}", "f.yaml:2:5: d: merge keys (<<) are not read here; write the keys out"),
        ("a: !!python/name:os.system x", "f.yaml:1:4: a: the YAML tag !!python/name:os.system is not read here"),
        ("a: !env HOME", "f.yaml:1:4: a: the YAML tag !env is not read here"),
        ("a: !!set {b}", "f.yaml:1:4: a: the YAML tag !!set is not read here"),
        ("a: !!int x", "f.yaml:1:4: a: found x, which cannot be read as a value of YAML's type int"),
        ("a: !!bool no", "f.yaml:1:4: a: found no, which cannot be read as a value of YAML's type bool"),
    ],
)
def test_what_readers_of_yaml_disagree_about_is_refused(text: str, message: str) -> None:
    assert said(text) == [message]


@pytest.mark.parametrize(
    ("text", "start", "hint"),
    [
        ("a:\n\tb: 1", "f.yaml:2:1: not valid YAML", "indent with spaces, never tabs"),
        ("a: b: c", "f.yaml:1:5: not valid YAML", "quote text that holds a colon"),
        ("- a\nb", "f.yaml:2:2: not valid YAML", "a key is followed by a colon and a space"),
        ("a: 1\n  b: 2\n", "f.yaml:2:4: not valid YAML", "quote text that holds a colon"),
        ("a:\n    b: 1\n  c: 2\n", "f.yaml:3:3: not valid YAML", "keys of one section start in the same column"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: not valid YAML", "one file holds one declaration"),
        ("a: [1", "f.yaml:1:6: not valid YAML", "expected ',' or ']'"),
        ("a: *b", "f.yaml:1:4: not valid YAML", "undefined alias"),
        ('a: "x', "f.yaml:1:6: not valid YAML", "unexpected end of stream"),
        ("a: 1\nb: \x00", "f.yaml:2:4: ", "U+0000"),
        ("[" * 100_000, "f.yaml:1:33: not valid YAML", "nested deeper than 32 levels"),
    ],
)
def test_a_syntax_error_names_line_and_column_and_what_to_do(text: str, start: str, hint: str) -> None:
    (message,) = said(text)
    assert message.startswith(start)
    assert hint in message


def test_aliases_are_written_out() -> None:
    assert parse("a: &x [1, 2]\nb: *x", "f.yaml").value == {"a": [1, 2], "b": [1, 2]}


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    assert said(bomb) == [f"f.yaml:1:1: more than {MAX_VALUES:,} values once its aliases are written out"]


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: *x}", "a: &x [*x, *x]"])
def test_an_alias_of_itself_is_refused(text: str) -> None:
    assert said(text) == ["f.yaml:1:1: nested deeper than 32 levels once its aliases are written out"]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_but_never_crashes(text: str) -> None:
    parse(text, "f.yaml")


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@, \n\t?01.", max_size=40))
def test_any_text_in_yamls_own_letters_is_read_or_refused(text: str) -> None:
    marked = parse(text, "f.yaml")
    assert all(problem.mark.line >= 1 for problem in marked.problems)
