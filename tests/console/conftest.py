"""A browser, a small server that hands out the console, and ten months of flights for it to show."""

import datetime as dt
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from app.console import page as console

START = dt.datetime(2013, 3, 1, tzinfo=dt.UTC)
DAYS = 299  # up to Christmas Eve
OFTEN = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


class Service:
    """What a replica answers below `/flights/`, and who asked for what; it can go away and come back."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        self._files = console.files()
        self._port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0].removeprefix("/flights").removeprefix("/")
                service.asked.append(self.path)
                if path in service._files:
                    status, (kind, body) = 200, service._files[path]
                else:
                    status, document = service.answers.get(path, (404, {"title": "Not found"}))
                    kind, body = "application/json", json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**console.HEADERS, "content-type": kind, "content-length": len(body)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the tests read `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where the console is."""
        return f"http://127.0.0.1:{self._port}/flights/"

    def show(self, documents: dict[str, Any]) -> None:
        """Answer with these documents from now on."""
        self.answers = {name: (200, document) for name, document in documents.items()}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start Debian's Chromium once a module; its event loop must not outlive it, other tests have their own."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if executable is None:
        pytest.skip("no Chromium: install the package `chromium`, or name one in $CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OFTEN)
        yield browser
        browser.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that answers with ten calm months of flights."""
    service = Service()
    service.show(flights())
    yield service
    service.stop()


class Visit:
    """A page in its own context, and all it complained of or asked for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.expected = ""  # a part of complaints that are to be expected
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.complain(message.text))
        self.page.on("pageerror", lambda error: self.complain(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def complain(self, text: str) -> None:
        """Note an error or a warning of the page."""
        if not self.expected or self.expected not in text:
            self.complaints.append(text)

    def close(self, own: str) -> None:
        """Leave, and hold two promises that every visit makes: no complaints, and no request to another host."""
        self.context.close()
        assert not self.complaints
        assert [url for url in self.requests if not url.startswith(own)] == []

    def open(self, service: Service) -> Any:
        """Open the console and wait until it has shown something."""
        self.page.clock.install()
        self.page.goto(service.address)
        self.page.wait_for_selector("html[data-link]")
        return self.page

    def after(self, seconds: float) -> None:
        """Let the page's clock run."""
        self.page.clock.run_for(int(seconds * 1000))


@pytest.fixture
def visit(chromium: Any, service: Service) -> Iterator[Any]:
    """Return a function that makes a visit with given options of the browser's context."""
    visits: list[Visit] = []

    def start(**options: Any) -> Visit:
        visits.append(Visit(chromium, **options))
        return visits[-1]

    yield start
    for one in visits:
        one.close(service.address)


@pytest.fixture(name="flights")
def flights_of() -> Any:
    """Return `flights`, which makes a service's documents."""
    return flights


def day(number: float) -> str:
    """The moment so many days after the first of March."""
    return (START + dt.timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


CHAMPIONS = {1: 0, 2: 31, 3: 66, 4: 101, 6: 157, 7: 206, 8: 262}  # version -> day it began to answer
EXPECTED = 0.4612


def flights(state: str = "ok") -> dict[str, Any]:
    """Return the four documents a replica answers with, on Christmas Eve, in one of the states of health."""
    random = np.random.default_rng(2013)
    days = [(START + dt.timedelta(days=number)).date().isoformat() for number in range(DAYS)]
    rows = [int(930 - 170 * (number % 7 == 1) - 60 * (number % 7 == 2) + random.normal(0, 22)) for number in range(DAYS)]
    weather = np.convolve(random.normal(0, 0.05, DAYS + 4), [0.1, 0.3, 0.5, 0.3, 0.1], "valid")
    summer = 0.03 * np.exp(-(((np.arange(DAYS) - 118) / 26) ** 2))
    loss = []
    for number, name in enumerate(days[:-1]):
        champion = max(version for version, begun in CHAMPIONS.items() if begun <= number)
        stale = 0.0007 * (number - CHAMPIONS[champion])
        value = round(float(0.447 + weather[number] + summer[number] + stale), 4)
        loss.append({"day": name, "version": str(champion), "rows": int(rows[number] * 0.973), "loss": value})
    lately = np.mean([one["loss"] for one in loss[-7:]])
    for one in loss[-36:]:
        one["loss"] = round(one["loss"] * EXPECTED * {"drift": 1.04, "degraded": 1.01}.get(state, 0.99) / lately, 4)
    health, following = HEALTH[state]
    status: dict[str, Any] = {
        "model": "flights",
        "as_of": day(DAYS - 0.4),
        "step": 4183,
        "health": {"state": state, "words": health},
        "traffic": {"days": [{"day": name, "rows": number} for name, number in zip(days, rows, strict=True)]},
        "labels": {
            "predictions": sum(rows),
            "joined": 261_874,
            "waiting": 1_312,
            "unmatched": 3,
            "duplicates": 41,
            "late": 12,
            "coverage": 0.9732,
            "delay_seconds": {"p50": 9_240, "p90": 24_300},
        },
        "loss": {"expected": EXPECTED, "days": loss},
        "features": features(state, random),
        "findings": FINDINGS.get(state, []),
        "rollout": None,
        "retrain": None,
        "versions": versions(),
        "next": following,
    }
    model = {
        "model": "flights/8",
        "version": "8",
        "bundle": "b4f1c09a",
        "task": "binary",
        "target": "late",
        "device": "cpu",
        "metrics": {"log_loss": 0.4588, "auc": 0.7683, "brier": 0.149},
    }
    return {
        "drift": status,
        "decisions": {"decisions": decisions(state)},
        "model": model,
        "readyz": {"status": "ready", "model": "flights/8"},
    }


HEALTH = {
    "ok": (
        "flights is well: its loss is 1 % below what was expected, and no feature has moved.",
        "A probe on 6 Jan, or sooner when something moves.",
    ),
    "watch": (
        "flights is well, and pressure is moving: the evidence is at 71 % of an alarm.",
        "An alarm when the evidence grows, otherwise the next probe on 6 Jan.",
    ),
    "drift": (
        "Two features moved since 17 Dec; the loss of the last week is 4 % above what was expected.",
        "A probe as soon as 380 more rows have their label, about tonight.",
    ),
    "fault": (
        "temp comes in another unit since 20 Dec (it looks like Celsius for Fahrenheit): a person was paged.",
        "Nothing is retrained before the fault has gone.",
    ),
    "degraded": (
        "Version 9 was rolled back after failing 2.4 % of its rows; version 8 answers every row.",
        "The next probe on 6 Jan.",
    ),
}
FINDINGS = {
    "drift": [
        finding
        | {"kind": "drift", "version": "8", "detector": "slow", "step": 4120, "evidence": 9.8, "threshold": 9.08}
        for finding in (
            {"what": "origin_day_flights", "direction": "mean down", "shift": -0.41, "onset": 1387238400000, "at": 1387540800000, "words": "origin_day_flights lies 0.41 σ lower than in training at this time of day, since about 17 Dec."},
            {"what": "city_left_delay", "direction": "spread up", "shift": 0.29, "onset": 1387324800000, "at": 1387713600000, "words": "city_left_delay is spread wider than in training at this time of day, since about 18 Dec."},
        )
    ],
    "fault": [
        {"kind": "fault", "what": "temp", "direction": "mean down", "detector": "fast", "shift": -2.31, "onset": 1387497600000, "at": 1387504800000, "step": 4102, "version": "8", "evidence": 41.0, "threshold": 9.08, "words": "temp looks like Celsius for Fahrenheit since 20 Dec 00:00: 1.8 x + 32 brings it back to what it was."}
    ],
}


def versions() -> list[dict[str, Any]]:
    """Every champion so far, the newest in force."""
    newest = max(CHAMPIONS)
    reasons = {1: "The first version, trained on January and February."}
    return [
        {
            "version": str(version),
            "since": day(begun),
            "role": "champion" if version == newest else "retired",
            "reason": reasons.get(version, f"The probe showed a gain of {2.9 - 0.2 * version:.1f} %, the gate {3.1 - 0.2 * version:.1f} %."),
            "metrics": {"log_loss": round(0.4791 - 0.0026 * version, 4), "auc": round(0.731 + 0.0047 * version, 4), "brier": round(0.158 - 0.0012 * version, 4)},
        }
        for version, begun in CHAMPIONS.items()
    ]


NUMBERS = """origin_day_flights city_left_delay temp pressure departure_minute arrival_minute scheduled_minutes weekday
distance origin_hour_flights dest_hour_flights carrier_hour_flights city_left_flights city_overdue origin_left_delay
origin_left_flights origin_overdue carrier_left_delay carrier_left_flights carrier_overdue dest_left_delay
dest_left_flights dest_overdue plane_left_delay plane_left_flights plane_year plane_seats dest_lat dest_lon
dest_altitude dewp humid wind_dir wind_speed wind_gust precip visib""".split()
CATEGORIES = {
    "origin": {"EWR": 0.36, "JFK": 0.33, "LGA": 0.31},
    "carrier": {"UA": 0.174, "B6": 0.162, "EV": 0.161, "DL": 0.143, "AA": 0.097, "MQ": 0.079, "US": 0.061, "9E": 0.055, "WN": 0.036, "other": 0.032},
    "dest": {"ORD": 0.051, "ATL": 0.051, "LAX": 0.048, "BOS": 0.046, "MCO": 0.042, "CLT": 0.042, "SFO": 0.04, "FLL": 0.036, "MIA": 0.035, "other": 0.609},
    "plane_model": {"A320-232": 0.12, "EMB-145LR": 0.1, "737-824": 0.09, "757-222": 0.06, "other": 0.63},
}


def features(state: str, random: np.random.Generator) -> list[dict[str, Any]]:
    """Every feature of the declaration, those that moved among them."""
    found = []
    for name in NUMBERS:
        expected = random.dirichlet(np.full(10, 40))
        edges = np.linspace(-2, 2, 9)
        labels = ["below −2.0 σ", *(f"{low:+.1f} … {low + 0.5:+.1f} σ" for low in edges), "null"][:10]
        found.append(feature(name, "number", labels, expected, random))
    for name, share in CATEGORIES.items():
        found.append(feature(name, "category", [*share, "unseen"], np.array([*share.values(), 0.0005]), random))
    moved = {
        "drift": {"origin_day_flights": ("drift", "mean down", -0.41), "city_left_delay": ("drift", "spread up", 0.29)},
        "fault": {"temp": ("fault", "mean down", -2.31)},
    }.get(state, {})
    for one in found:
        if one["name"] in moved:
            one["state"], one["direction"], one["shift"] = moved[one["name"]]
            one |= {"detector": "slow", "evidence": 9.8, "since": day(294), "onset": day(291)}
            for number, part in enumerate(one["bins"]):
                part["seen"] = round(part["expected"] * (1.9 if number < 3 else 0.6), 4)
        elif one["name"] == "pressure" and state == "watch":
            one |= {"evidence": 6.45, "direction": "mean up", "shift": 0.12}
    return found


def feature(name: str, kind: str, bins: list[str], expected: Any, random: np.random.Generator) -> dict[str, Any]:
    """A quiet feature."""
    seen = random.dirichlet(expected * 4000 + 0.1)
    return {
        "name": name,
        "kind": kind,
        "state": "ok",
        "detector": "medium",
        "direction": "mean up",
        "shift": round(float(random.normal(0, 0.03)), 3),
        "onset": None,
        "since": None,
        "evidence": round(float(random.gamma(1.2, 0.7)), 2),
        "threshold": 9.08,
        "bins": [
            {"bin": label, "expected": round(float(one), 4), "seen": round(float(other), 4)}
            for label, one, other in zip(bins, expected, seen, strict=True)
        ],
    }


def decisions(state: str) -> list[dict[str, Any]]:
    """The ledger of ten months, newest first."""
    entries: list[dict[str, Any]] = []

    def add(at: float, kind: str, reason: str, version: int | None = None, about: str | None = None, **evidence: Any) -> str:
        number = len(entries) + 1
        entry = f"{kind}-{number:06d}"
        written = dt.datetime(2026, 11, 24, 2, 0, tzinfo=dt.UTC) + dt.timedelta(seconds=at * 1.2)
        entries.append(
            {
                "number": number,
                "id": entry,
                "kind": kind,
                "at": day(at),
                "written": written.isoformat(),
                "step": int(at * 14),
                "about": about,
                "version": None if version is None else str(version),
                "reason": reason,
                "evidence": evidence,
            }
        )
        return entry

    add(0, "deploy", "Version 1, trained on January and February, answers every row.", 1, rows=51_955, log_loss=0.4791)
    for version, begun in [*CHAMPIONS.items(), (5, 140)][1:]:
        champion = max(other for other in CHAMPIONS if CHAMPIONS[other] < begun)
        alarm = add(begun - 3, "alarm_noted", "origin_day_flights moved 0.38 σ up since about a week; its effect on the loss is not known, so a probe is asked.", champion, feature="origin_day_flights", detector="slow", direction="mean up", shift=0.38, evidence=9.4, threshold=9.08, onset=int((START + dt.timedelta(days=begun - 9)).timestamp() * 1000))
        probe = add(begun - 2.9, "probe", "An alarm stands and 14,210 labelled rows are newer than the champion: a cheap model shall tell what a retraining would gain.", champion, alarm, labelled_rows=14_210, cooldown_days=7)
        if version == 4:
            add(begun - 2.8, "probed", "A retraining would gain 0.2 % (between -0.4 and 0.7 %): not worth it yet.", champion, probe, gain={"relative": 0.002, "low": -0.004, "high": 0.007, "rows": 14_210, "days": 30})
            probe = add(begun - 2, "probe", "The loss is 2.1 % above what was expected: a second look.", champion, alarm, loss={"seen": 0.4709, "expected": 0.4612})
        won = add(begun - 1.9, "probed", "A retraining would gain 2.1 % (between 1.2 and 3.0 %).", champion, probe, gain={"relative": 0.021, "low": 0.012, "high": 0.03, "rows": 14_210, "days": 30, "seconds": 6.2})
        train = add(begun - 1.8, "retrain", "The probe showed a gain of at least 1.2 %, more than the 0.5 % that are worth a retraining; 3 of 12 retrainings of the year are used.", champion, won, budget={"used": 3, "allowed": 12, "per_days": 365})
        if version == 5:
            add(begun - 1, "retrained", "Version 5 is trained in 74 CPU seconds.", 5, train, cpu_seconds=74.1)
            add(begun - 0.9, "refused", "The gate refused version 5: at LGA its loss is 1.3 % above the champion's.", 5, train, slices=[{"slice": "origin=LGA", "champion": 0.4702, "challenger": 0.4763, "rows": 4_410}, {"slice": "origin=EWR", "champion": 0.4691, "challenger": 0.4611, "rows": 5_120}])
            continue
        add(begun - 1, "retrained", f"Version {version} is trained in 71 CPU seconds, and its loss on the newest 28 days is 1.9 % below the champion's.", version, train, cpu_seconds=71.3, log_loss={"champion": 0.4702, "challenger": 0.4613}, passed=True)
        rolled = add(begun - 0.9, "shadow", f"Version {version} scores every row beside version {champion}, unheard.", version, train, share=0)
        for share in (0.05, 0.25):
            add(begun - 0.5 + share, "stage", f"Every check passed on 500 rows: version {version} answers {share * 100:.0f} % of the rows.", version, rolled, share=share, checks={"errors": "0 of 500", "slowdown": 1.04, "score_shift": 0.031})
        add(begun, "promote", f"Every check passed on all rows: version {version} is the champion.", version, rolled, share=1.0)
    entries.sort(key=lambda entry: entry["at"])
    for number, entry in enumerate(entries, 1):
        entry["number"] = number
    if state == "fault":
        found = add(294.1, "fault", "temp looks like Celsius for Fahrenheit since 20 Dec 00:00.", 8, feature="temp", cause="unit change", scale=1.8, offset=32, evidence=41.0, threshold=9.08)
        add(294.1, "page", "A person was paged: temp comes in another unit, and no retraining can mend that.", 8, found, webhook=200)
    elif state == "degraded":
        add(296.2, "rollback", "Version 9 failed 2.4 % of its rows, more than the 0.1 % allowed: version 8 answers every row again.", 8, None, errors={"rows": 412, "failed": 10, "allowed": 0.001})
    elif state == "drift":
        add(296.1, "alarm_noted", "origin_day_flights moved 0.41 σ down since about 17 Dec; too few labelled rows for a probe (620 of 1,000).", 8, None, feature="origin_day_flights", labelled_rows=620, needed=1000)
    return entries[::-1]
