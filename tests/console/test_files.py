"""The console ships whole, and nothing in it reaches out or turns text into markup."""

import re

import pytest

from app.console.page import HEADERS, files

FILES = files()
OWN = sorted(path for path in FILES if path.endswith(".js") and "uplot" not in path)


def text(path):
    return FILES[path][1].decode()


def test_the_page_lies_at_the_root_and_all_else_below_console():
    assert FILES[""][0] == "text/html; charset=utf-8"
    assert all(path.startswith("console/") for path in FILES if path)
    assert {path.rpartition(".")[2] for path in FILES if path} == {"css", "js", "svg", "txt"}


def test_every_file_that_is_named_is_there():
    named = re.findall(r'(?:src|href)="(console/[^"]+)"', text(""))
    named += [f"console/{name}" for path in OWN for name in re.findall(r'from "\./([^"]+)"', text(path))]
    assert len(named) > 20
    assert set(named) <= set(FILES)


@pytest.mark.parametrize("path", sorted(FILES))
def test_no_file_names_another_host(path):
    hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", re.sub(r"/\*!.*?\*/", "", text(path))))
    assert hosts <= {"www.w3.org"}, "the name of SVG, which nobody fetches, is the only address"


@pytest.mark.parametrize("path", OWN)
def test_no_script_turns_text_into_markup_or_code(path):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|cssText", text(path)
    )


def test_the_library_comes_with_its_licence():
    assert "Leon Sorokin" in text("console/uplot.LICENSE.txt")
    assert "MIT License" in text("console/uplot.LICENSE.txt")


def test_page_and_headers_say_the_same_of_what_may_be_loaded():
    page = re.search(r'Content-Security-Policy" content="([^"]+)"', text(""))
    assert page is not None
    only_in_headers = {"frame-ancestors 'none'"}
    assert set(HEADERS["content-security-policy"].split("; ")) - only_in_headers == set(page[1].split("; "))
    assert "default-src 'none'" in page[1]


def test_the_console_is_small():
    assert sum(len(content) for _, content in FILES.values()) < 150_000
