"""The ledger of ten months: what was decided about flights, and on what evidence."""

import datetime as dt
import zlib
from typing import Any

START = dt.datetime(2013, 3, 1, tzinfo=dt.UTC)


def day(number: float) -> str:
    """The moment so many days after the first of March."""
    return (START + dt.timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ms(number: float) -> int:
    """The same in milliseconds since 1970."""
    return int((START + dt.timedelta(days=number)).timestamp() * 1000)


CHAMPIONS = {1: 0, 2: 31, 3: 66, 4: 101, 6: 157, 7: 206, 8: 262}  # version -> day it began to answer


def decisions(state: str) -> list[dict[str, Any]]:
    """The ledger of ten months, newest first."""
    entries: list[dict[str, Any]] = []

    def add(at: float, kind: str, reason: str, version: int, about: str | None = None, **evidence: Any) -> str:
        number = len(entries) + 1
        written = dt.datetime(2026, 11, 24, 2, 0, tzinfo=dt.UTC) + dt.timedelta(seconds=at * 1.2)
        entry = {
            "number": number,
            "id": f"flights-{kind.replace('_', '-')}-{zlib.crc32(reason.encode()):08x}{number:04x}",
            "kind": kind,
            "at": day(at),
            "written": written.isoformat(),
            "step": int(at * 14),
            "about": about,
            "version": str(version),
            "reason": reason,
            "evidence": evidence,
        }
        entries.append(entry)
        return str(entry["id"])

    def rollout(begun: float, version: int, champion: int, train: str) -> None:
        trial = {
            "version": str(version),
            "bundle": f"workspace/flights/bundles/{version}",
            "known_until": ms(begun - 1),
        }
        add(
            begun - 0.9,
            "shadow",
            f"version {version} scores 500 rows unheard beside version {champion}",
            version,
            train,
            trial=trial,
            share=0.0,
        )
        for share, before in (
            (0.05, "500 rows were scored without a breach as shadow"),
            (0.25, "200 rows were scored without a breach as challenger for 5 %"),
            (1.0, "200 rows were scored without a breach as challenger for 25 %"),
        ):
            measured = {
                "rows": 214,
                "failures": 0,
                "calls": 209,
                "shift": 0.0312,
                "paired_labelled": 187,
                "difference": {"mean": -0.0061, "low": -0.0127, "high": 0.0005},
            }
            add(
                begun - 0.5 + share / 4,
                "stage",
                f"version {version} answers {share * 100:.0f} % of the rows: {before}",
                version,
                train,
                share=share,
                trial=trial,
                measured=measured,
            )

    add(0, "deploy", "version 1 answers, the first that was trained", 1, rows=51_955, log_loss=0.4791)
    for version, begun in sorted([*list(CHAMPIONS.items())[1:], (5, 140)], key=lambda item: item[1]):
        champion = max(other for other in CHAMPIONS if CHAMPIONS[other] < begun)
        found = {
            "feature": "origin_day_flights",
            "detector": "slow",
            "direction": "higher",
            "shift": 0.38,
            "evidence": 9.4,
            "threshold": 9.08,
            "onset": ms(begun - 9),
        }
        alarm = add(
            begun - 3,
            "alarm_noted",
            f"origin_day_flights: higher, +0.38 standard deviations since {day(begun - 9)[:10]}; a probe follows",
            champion,
            None,
            findings=[found],
        )
        probe = add(
            begun - 2.9,
            "probe",
            "after an alarm (origin_day_flights) and with 14,210 new labelled rows, a probe is due",
            champion,
            alarm,
            labels=14_210,
            needed=1_000,
        )
        if version == 4:
            add(
                begun - 2.8,
                "probed",
                "the probe proved no gain: 0.2 % (95 % interval -0.4 to 0.7 %)",
                champion,
                probe,
                relative=0.002,
                low=-0.004,
                high=0.007,
                rows=14_210,
                seconds=6.1,
            )
            louder = add(
                begun - 2.4,
                "alarm_noted",
                "loss: higher than expected by 2.1 % since 2013-06-01; a probe follows",
                champion,
                None,
                findings=[{"what": "loss", "detector": "loss", "shift": 0.021, "onset": ms(begun - 9)}],
            )
            probe = add(
                begun - 2,
                "probe",
                "after an alarm (loss) and with 15,044 new labelled rows, a probe is due",
                champion,
                louder,
                labels=15_044,
                needed=1_000,
            )
        won = add(
            begun - 1.9,
            "probed",
            "the probe proved a gain of 2.1 % in loss (95 % interval 1.2 to 3.0 %)",
            champion,
            probe,
            relative=0.021,
            low=0.012,
            high=0.03,
            rows=14_210,
            seconds=6.2,
        )
        train = add(
            begun - 1.8,
            "retrain",
            "the probe proved a gain of 2.1 % in loss, so a retraining is bought",
            champion,
            won,
            budget={"used": 3, "retrains": 12, "days": 365},
            cpu_seconds=71,
        )
        if version == 5:
            slices = [
                {"slice": "origin=LGA", "champion": 0.4702, "challenger": 0.4763, "rows": 4_410},
                {"slice": "origin=EWR", "champion": 0.4691, "challenger": 0.4611, "rows": 5_120},
            ]
            add(
                begun - 1,
                "refused",
                "version 5 did not pass the gate: for origin=LGA its loss is 1.3 % above the champion's",
                5,
                train,
                slices=slices,
                cpu_seconds=74.1,
            )
            continue
        trained = add(
            begun - 1,
            "retrained",
            f"version {version} passed the gate: its loss on the newest 28 days is 1.9 % below the champion's",
            version,
            train,
            cpu_seconds=71.3,
            log_loss={"champion": 0.4702, "challenger": 0.4613},
            passed=True,
        )
        rollout(begun, version, champion, trained)
        add(
            begun,
            "promote",
            f"version {version} is champion: 200 rows were scored without a breach as challenger for 100 %",
            version,
            trained,
        )
        add(
            begun + 1.2,
            "settled",
            f"version {version} stays champion: 214 labelled rows say nothing against it",
            version,
            trained,
        )
    entries.sort(key=lambda entry: entry["at"])
    for number, entry in enumerate(entries, 1):
        entry["number"] = number
    if state == "fault":
        detail = {"scale": 1.8, "offset": 32, "nearest": "Celsius", "rows": 4_610}
        add(
            294.1,
            "fault",
            "temp: unit since 2013-12-20 (Celsius for Fahrenheit): this looks like a fault upstream, so nothing is retrained on it",
            8,
            None,
            findings=[{"what": "temp", "detector": "unit", "onset": ms(294), "detail": detail}],
        )
    elif state == "degraded":
        add(
            296.2,
            "rollback",
            "version 9 goes back as challenger for 5 %, version 8 answers: it failed on 2.43 % of 412 rows, allowed 0.10 %",
            9,
            None,
            measured={"rows": 402, "failures": 10},
            allowed=0.001,
        )
    elif state == "drift":
        add(
            296.1,
            "alarm_noted",
            "origin_day_flights: lower, -0.41 standard deviations since 2013-12-17; nothing follows now: 620 labelled rows have come since version 8 learned, and 1,000 are needed",
            8,
            None,
            findings=[{"what": "origin_day_flights", "detector": "slow", "shift": -0.41, "onset": ms(291)}],
        )
    return entries[::-1]
