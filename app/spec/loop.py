"""How a service keeps itself true: what is written down, watched, decided, retrained and rolled out."""

import datetime as dt
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from app.spec.section import Conflict, Section
from app.spec.values import Duration, PositiveDuration


class Journal(Section):
    """What is written down of predictions and labels."""

    flush: PositiveDuration = Field(
        dt.timedelta(seconds=1), description="Time within which an answered prediction is in the journal."
    )
    durable: bool = Field(
        False, description="A prediction is on disk before it is answered, as labels always are; costs milliseconds."
    )
    label_commit: Duration = Field(
        dt.timedelta(milliseconds=20),
        description="How long a request with labels waits for others to be written with.",
    )
    sample: float = Field(
        1.0, gt=0, le=1, description="Fraction of rows that are journaled, chosen by id; for very high traffic."
    )
    label_wait: PositiveDuration = Field(
        dt.timedelta(days=30),
        description="How long a prediction waits for its label; of no more than the newest million rows, so that with more "
        "traffic than that in the time that labels take `sample` has to be smaller. A later label still trains, but raises "
        "no alarm, and does not count for `retrain.min_labels`.",
    )
    retention: PositiveDuration = Field(
        dt.timedelta(days=730),
        description="Age from which journaled rows are deleted; those that share a file with younger ones go with these.",
    )


class Drift(Section):
    """What the bundle remembers of its training data, and how traffic is held against it."""

    bins: int = Field(32, ge=4, le=256, description="Histogram bins of a number.")
    season: Literal["none", "hour_of_week", "hour_of_day"] = Field(
        "hour_of_day",
        description="Season slots of the reference: `hour_of_day` by weekday or weekend (48), `hour_of_week` (168).",
    )
    components: int = Field(20, ge=0, le=100, description="Most principal components watched as virtual features.")
    false_alarm: PositiveDuration = Field(
        dt.timedelta(days=365), description="Mean time to a false alarm, of all detectors together."
    )
    lateness: Duration = Field(
        dt.timedelta(minutes=10), description="How long an hour of event time stays open for rows that come late."
    )
    interval: PositiveDuration = Field(
        dt.timedelta(seconds=5), description="How often the drift actor reads the journal."
    )


class Budget(Section):
    """What retraining may cost."""

    retrains: int = Field(12, ge=0, description="Most retrainings in `per`.")
    cpu_seconds: float | None = Field(
        None, gt=0, description="Most CPU seconds of retraining in `per`; no limit when left out."
    )
    per: PositiveDuration = Field(dt.timedelta(days=365), description="Period of the budget.")


class Retrain(Section):
    """When a retraining is worth it, and what it rests on."""

    policy: Literal["probe", "calendar", "drift", "loss", "never"] = Field(
        "probe",
        description="What buys a retraining: `probe`, a cheap model that proves what fresh rows would gain; `calendar`, "
        "time alone; `drift`, an alarm of a feature; `loss`, an alarm of the loss; `never`. `jobs.backtest` compares them.",
    )
    every: PositiveDuration = Field(
        dt.timedelta(days=28),
        description="Calendar: time from one retraining to the next. Probe: longest time from one probe to the next.",
    )
    cooldown: Duration = Field(
        dt.timedelta(days=7), description="Shortest time from one probe or retraining to the next."
    )
    min_labels: int = Field(
        1000, ge=1, description="Fewest labelled rows that have come since the champion's training."
    )
    min_gain: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="Probe: smallest relative gain in loss, with the gate's confidence, worth a retraining.",
    )
    budget: Budget = Field(default_factory=Budget, description="What retraining may cost.")
    window: Literal["all"] | PositiveDuration = Field(
        "all",
        description="Rows a training uses: all, or those this close before the end of the training part.",
    )
    validation: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Fraction of a retraining's rows, the newest, that validate: fewer than in a first training, because "
        "there are more rows, and the newest teach most.",
    )
    warm_start: bool = Field(False, description="Begin with the champion's weights instead of new ones.")
    epochs: int | None = Field(
        None, ge=1, description="Passes over the rows of a retraining; `train.epochs` when left out."
    )
    attempts: int = Field(3, ge=1, le=10, description="Times a failing retraining is tried before a person is paged.")


class Rollout(Section):
    """What happens to a version that passed the gate."""

    promote: Literal["auto", "manual"] = Field(
        "auto", description="`auto`: a version that passes is rolled out; `manual`: it stays challenger."
    )
    shadow_rows: int = Field(
        500, ge=0, description="Rows a challenger scores beside the champion, unheard, before it may answer any."
    )
    stages: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.05, 0.25, 1.0],
        description="Shares of the rows, by key, that the challenger answers one after the other; the last is 1.",
    )
    stage_rows: int = Field(200, ge=1, description="Rows a challenger answers in every stage before the next.")
    stage_time: Duration = Field(dt.timedelta(0), description="Time, by the clock, a stage lasts at least.")
    max_errors: float = Field(
        0.001, ge=0, lt=1, description="Largest share of its rows a challenger may fail to score."
    )
    max_slowdown: float = Field(
        3.0,
        gt=1,
        description="Largest ratio of a challenger's time per scoring call to the champion's, beside `gate.max_latency`.",
    )
    max_score_shift: float = Field(
        0.15,
        gt=0,
        description="Largest mean difference of its scores from the champion's on the same rows; of a regression in "
        "standard deviations of the target.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Yield stages that do not lead to every row."""
        if self.stages != sorted(set(self.stages)) or self.stages[-1:] != [1.0]:
            yield ("stages",), f"found {self.stages}; shares have to rise, and end with 1"


class Alerts(Section):
    """Who is told when a person is needed."""

    webhook: bool = Field(
        False,
        description="Post every page as JSON to the address in $EVERTRUE_WEBHOOK, which may hold a secret and so stays "
        "out of this file.",
    )
