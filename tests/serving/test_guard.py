"""What needs a key is answered to a good one alone; nobody hears more than that his was not."""

import base64
import datetime as dt
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from app.keys import add_key, read_keys, revoke_key
from app.serving import guard as guarding
from app.serving.guard import Guard
from app.serving.keyring import Keyring

ROW = {"distance": 250.0, "passengers": 2, "zone": "north", "rain": True}
PREDICT = ("POST", "/rides/predict", {"json": ROW})
LABELS = ("POST", "/rides/labels", {"json": {"labels": [{"id": "a", "label": True}]}})
PAGES = ("", "/", "/drift", "/decisions", "/model", "/nothing", "/predict/../drift")


class Service:
    """A guarded endpoint and the keys of a file beside it."""

    def __init__(self, room: Any, version: Any, folder: Path) -> None:
        self.uri = str(folder / "keys.json")
        self.keyring = Keyring(self.uri)
        self.now = dt.datetime.now(dt.UTC).timestamp()
        self.room = room(guard=Guard(self.keyring, "rides", clock=lambda: self.now))
        self.room.stand(version("1"))

    def key(self, name: str, *scopes: Any, expires: dt.timedelta | None = None, rate: float | None = None) -> str:
        _, secret = add_key(self.uri, name, scopes, expires, rate)
        self.keyring.look()
        return secret

    def ask(self, request: tuple[str, str, dict[str, Any]], **headers: str) -> Any:
        method, path, content = request
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        [answer] = self.room.ask((method, path, content | {"headers": named}))
        return answer


@pytest.fixture
def service(room: Any, version: Any, tmp_path: Path) -> Service:
    return Service(room, version, tmp_path)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def basic(key: str, user: str = "") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


def code(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_a_key_is_taken_as_bearer_or_in_its_own_header(service: Service) -> None:
    key = service.key("app", "predict")
    for headers in (bearer(key), {"authorization": f"bearer  {key} "}, {"x_api_key": key}):
        assert service.ask(PREDICT, **headers).status_code == 200


def test_without_a_key_or_with_one_that_is_not_known_all_but_the_probes_is_refused(service: Service) -> None:
    key = service.key("app", "predict", "labels", "read")
    for request in (PREDICT, LABELS, *(("GET", f"/rides{page}", {}) for page in PAGES)):
        for headers, expected in (
            ({}, "no-key"),
            (bearer(""), "no-key"),
            ({"authorization": key}, "no-key"),
            (bearer(key[:-1]), "unknown-key"),
            (bearer(key + "x"), "unknown-key"),
            ({"x_api_key": hashlib.sha256(key.encode()).hexdigest()}, "unknown-key"),
        ):
            answer = service.ask(request, **headers)
            assert code(answer) == (401, expected)
            assert answer.headers["www-authenticate"].startswith('Bearer realm="rides"')
    assert service.room.kept.rows("labels") == []


def test_probes_need_no_key_and_tell_strangers_nothing_of_the_model(room: Any, service: Service) -> None:
    assert service.ask(("GET", "/rides/healthz", {})).json() == {"status": "alive"}
    assert service.ask(("GET", "/rides/readyz", {})).json() == {"status": "ready", "generation": 1}
    empty = room(guard=Guard(service.keyring, "rides"))
    answers = empty.ask(("GET", "/rides/readyz", {}), ("POST", "/rides/predict", {"json": ROW}))
    assert [answer.status_code for answer in answers] == [503, 401]


def test_a_key_is_good_for_its_scopes_alone(service: Service) -> None:
    requests = {"predict": PREDICT, "labels": LABELS, "read": ("GET", "/rides/drift", {})}
    for scope in requests:
        key = service.key(scope, scope)
        for wanted, request in requests.items():
            answer = service.ask(request, **bearer(key))
            if wanted == scope:
                assert answer.status_code in (200, 202)
            else:
                assert code(answer) == (403, "scope")
                assert f'error="insufficient_scope", scope="{wanted}"' in answer.headers["www-authenticate"]


def test_a_key_ends_when_it_expires_or_is_revoked(service: Service) -> None:
    brief, lasting = service.key("brief", "predict", expires=dt.timedelta(days=1)), service.key("long", "predict")
    [end] = [known.expires for known in read_keys(service.uri) if known.expires is not None]
    service.now = end.timestamp() - 1
    assert service.ask(PREDICT, **bearer(brief)).status_code == 200
    service.now = end.timestamp()
    assert code(service.ask(PREDICT, **bearer(brief))) == (401, "expired-key")
    assert service.ask(PREDICT, **bearer(lasting)).status_code == 200
    revoke_key(service.uri, "long")
    service.keyring.look()
    assert code(service.ask(PREDICT, **bearer(lasting))) == (401, "unknown-key")


def test_a_browser_is_asked_for_the_key_of_a_page_and_its_basic_posts_nothing(service: Service) -> None:
    key = service.key("me", "predict", "labels", "read")
    challenges = service.ask(("GET", "/rides/", {})).headers.get_list("www-authenticate")
    assert [challenge.split()[0] for challenge in challenges] == ["Bearer", "Basic"]
    for headers in (basic(key), basic(key, "anybody")):
        assert service.ask(("GET", "/rides/", {}), **headers).status_code == 200
        for request in (PREDICT, LABELS):
            answer = service.ask(request, **headers)
            assert code(answer) == (401, "no-key")
            assert "Basic" not in answer.headers["www-authenticate"]
    for broken in ("Basic", "Basic !", "Basic " + base64.b64encode(b"no colon").decode()):
        assert code(service.ask(("GET", "/rides/", {}), authorization=broken)) == (401, "no-key")


def test_a_key_is_held_against_all_that_are_known_in_constant_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [service.key(f"k{i}", "predict") for i in range(3)]
    compared: list[bytes] = []

    def compare(ours: bytes, theirs: bytes) -> bool:
        compared.append(ours)
        return hmac.compare_digest(ours, theirs)

    monkeypatch.setattr(guarding, "compare_digest", compare)
    for key in (*keys, "evt_unknown"):
        service.ask(PREDICT, **bearer(key))
        assert compared == [hashlib.sha256(key.encode()).digest() for key in keys]
        compared.clear()


def test_no_answer_no_log_and_no_metric_holds_a_key(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    good, unknown = service.key("app", "predict"), "evt_" + "x" * 43
    answers = [service.ask(request, **bearer(key)) for key in (good, unknown) for request in (PREDICT, LABELS)]
    service.room.metrics.flush()
    said = "".join(f"{answer.text}{answer.headers}" for answer in answers)
    said += caplog.text + json.dumps([str(key) for key in service.room.counted.values])
    assert good not in said
    assert unknown not in said
    assert service.room.count("evertrue_requests_total", "unknown-key") == 2


def test_a_key_that_is_used_up_hears_when_to_come_again_and_holds_up_no_other(service: Service) -> None:
    slow, free = service.key("slow", "predict", "labels", "read", rate=0.001), service.key("free", "predict")
    assert service.ask(PREDICT, **bearer(slow)).status_code == 200
    for request in (PREDICT, LABELS, ("GET", "/rides/drift", {})):
        answer = service.ask(request, **bearer(slow))
        assert code(answer) == (429, "key-rate")
        assert 900 < int(answer.headers["retry-after"]) <= 1000
    assert [service.ask(PREDICT, **bearer(free)).status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("path", "content"),
    [("predict", {"rows": [ROW] * 50}), ("labels", {"labels": [{"id": str(i), "label": True} for i in range(50)]})],
)
def test_a_request_costs_its_rows(service: Service, path: str, content: Any) -> None:
    key = service.key("slow", "predict", "labels", rate=0.01)
    assert service.ask(("POST", f"/rides/{path}", {"json": content}), **bearer(key)).status_code in (200, 202)
    answer = service.ask(PREDICT, **bearer(key))
    assert 4900 < int(answer.headers["retry-after"]) <= 5000


def test_a_used_up_key_stays_so_when_the_file_changes(service: Service) -> None:
    key = service.key("slow", "predict", rate=0.001)
    assert service.ask(PREDICT, **bearer(key)).status_code == 200
    service.key("another", "predict")
    assert service.ask(PREDICT, **bearer(key)).status_code == 429
