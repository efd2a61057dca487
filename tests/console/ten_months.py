"""Ten months of flights as a replica would tell them on Christmas Eve: what the console's tests show."""

import datetime as dt
import runpy
from pathlib import Path
from typing import Any

import numpy as np

LEDGER = runpy.run_path(str(Path(__file__).with_name("ten_months_ledger.py")))
START, CHAMPIONS, day, decisions = (LEDGER[name] for name in ("START", "CHAMPIONS", "day", "decisions"))
DAYS = 299  # up to Christmas Eve


EXPECTED = 0.4612


def flights(state: str = "ok") -> dict[str, Any]:
    """Return the four documents a replica answers with, on Christmas Eve, in one of the states of health."""
    random = np.random.default_rng(2013)
    days = [(START + dt.timedelta(days=number)).date().isoformat() for number in range(DAYS)]
    rows = [
        int(930 - 170 * (number % 7 == 1) - 60 * (number % 7 == 2) + random.normal(0, 22)) for number in range(DAYS)
    ]
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
        "written": dt.datetime.now(dt.UTC).isoformat(),
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
            {
                "what": "origin_day_flights",
                "direction": "lower",
                "shift": -0.41,
                "onset": 1387238400000,
                "at": 1387540800000,
                "words": "origin_day_flights lies 0.41 σ lower than in training at this time of day, since about 17 Dec.",
            },
            {
                "what": "city_left_delay",
                "direction": "wider",
                "shift": 0.29,
                "onset": 1387324800000,
                "at": 1387713600000,
                "words": "city_left_delay is spread wider than in training at this time of day, since about 18 Dec.",
            },
        )
    ],
    "fault": [
        {
            "kind": "fault",
            "what": "temp",
            "direction": "Celsius for Fahrenheit",
            "detector": "unit",
            "shift": -2.31,
            "onset": 1387497600000,
            "at": 1387504800000,
            "step": 4102,
            "version": "8",
            "evidence": 41.0,
            "threshold": 9.08,
            "words": "temp looks like Celsius for Fahrenheit since 20 Dec 00:00: 1.8 x + 32 brings it back to what it was.",
        }
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
            "role": "champion" if version == newest else "former",
            "reason": reasons.get(
                version,
                f"The probe showed a gain of {2.9 - 0.2 * version:.1f} %, the gate {3.1 - 0.2 * version:.1f} %.",
            ),
            "metrics": {
                "log_loss": round(0.4791 - 0.0026 * version, 4),
                "auc": round(0.731 + 0.0047 * version, 4),
                "brier": round(0.158 - 0.0012 * version, 4),
            },
        }
        for version, begun in CHAMPIONS.items()
    ]


NUMBERS = (
    "origin_day_flights city_left_delay temp pressure departure_minute arrival_minute scheduled_minutes "
    "weekday distance origin_hour_flights dest_hour_flights carrier_hour_flights city_left_flights "
    "city_overdue origin_left_delay origin_left_flights origin_overdue carrier_left_delay "
    "carrier_left_flights carrier_overdue dest_left_delay dest_left_flights dest_overdue plane_left_delay "
    "plane_left_flights plane_year plane_seats dest_lat dest_lon dest_altitude dewp humid wind_dir "
    "wind_speed wind_gust precip visib"
)
CATEGORIES = {
    "origin": {"EWR": 0.36, "JFK": 0.33, "LGA": 0.31},
    "carrier": {
        "UA": 0.174,
        "B6": 0.162,
        "EV": 0.161,
        "DL": 0.143,
        "AA": 0.097,
        "MQ": 0.079,
        "US": 0.061,
        "9E": 0.055,
        "WN": 0.036,
        "other": 0.032,
    },
    "dest": {
        "ORD": 0.051,
        "ATL": 0.051,
        "LAX": 0.048,
        "BOS": 0.046,
        "MCO": 0.042,
        "CLT": 0.042,
        "SFO": 0.04,
        "FLL": 0.036,
        "MIA": 0.035,
        "other": 0.609,
    },
    "plane_model": {"A320-232": 0.12, "EMB-145LR": 0.1, "737-824": 0.09, "757-222": 0.06, "other": 0.63},
}


def features(state: str, random: np.random.Generator) -> list[dict[str, Any]]:
    """Every feature of the declaration, those that moved among them."""
    found = []
    for name in NUMBERS.split():
        expected = random.dirichlet(np.full(10, 40))
        edges = np.linspace(-2, 2, 9)
        labels = ["below −2.0 σ", *(f"{low:+.1f} … {low + 0.5:+.1f} σ" for low in edges), "null"][:10]
        found.append(feature(name, "number", labels, expected, random))
    for name, share in CATEGORIES.items():
        found.append(feature(name, "category", [*share, "unseen"], np.array([*share.values(), 0.0005]), random))
    moved = {
        "drift": {"origin_day_flights": ("drift", "lower", -0.41), "city_left_delay": ("drift", "wider", 0.29)},
        "fault": {"temp": ("fault", "Celsius for Fahrenheit", -2.31)},
    }.get(state, {})
    for one in found:
        if one["name"] in moved:
            one["state"], one["direction"], one["shift"] = moved[one["name"]]
            one |= {"detector": "slow", "evidence": 9.8, "since": day(294), "onset": day(291)}
            for number, part in enumerate(one["bins"]):
                part["seen"] = round(part["expected"] * (1.9 if number < 3 else 0.6), 4)
        elif one["name"] == "pressure" and state == "watch":
            one |= {"evidence": 6.45, "direction": "higher", "shift": 0.12}
    return found


def feature(name: str, kind: str, bins: list[str], expected: Any, random: np.random.Generator) -> dict[str, Any]:
    """A quiet feature."""
    seen = random.dirichlet(expected * 4000 + 0.1)
    return {
        "name": name,
        "kind": kind,
        "state": "ok",
        "detector": "medium",
        "direction": "higher",
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
