"""What the documents point at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_every_path_leads_somewhere(document):
    text = document.read_text()
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text)
    paths = re.findall(r"`((?:app|jobs|tests|docs|examples|benchmarks)/[\w./-]*)`", text)
    lost = [link for link in links if not (document.parent / link).exists()]
    lost += [path for path in paths if not (ROOT / path).exists()]
    assert not lost


def test_every_room_has_its_place_in_the_architecture():
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = {
        path.stem for path in (ROOT / "app").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} <= set(re.findall(r"\w+", text))
