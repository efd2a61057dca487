"""A page of another site cannot make somebody's browser ask, or teach, the service that the browser reaches."""

from typing import Any

import pytest

ROW = {"distance": 250.0, "passengers": 2, "zone": "north", "rain": True}
LABELS = {"labels": [{"id": "a", "label": True}]}


@pytest.mark.parametrize(
    ("site", "status"),
    [("cross-site", 403), ("same-site", 403), ("", 403), ("same-origin", 200), ("none", 200), (None, 200)],
)
def test_what_another_sites_page_sends_is_refused_before_it_is_read(
    room: Any, version: Any, site: str | None, status: int
) -> None:
    here = room()
    here.stand(version("1"))
    headers = {} if site is None else {"sec-fetch-site": site}
    asked, taught = here.ask(
        ("POST", "/rides/predict", {"json": ROW, "headers": headers}),
        ("POST", "/rides/labels", {"json": LABELS, "headers": headers}),
    )
    assert (asked.status_code, taught.status_code) == (status, 202 if status == 200 else 403)
    assert len(here.kept.rows("labels")) == (1 if status == 200 else 0)
    if status == 403:
        assert asked.json()["type"] == "urn:evertrue:problem:cross-site"
