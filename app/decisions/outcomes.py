"""What became of a probe or a retraining, as an entry of the ledger."""

from typing import TYPE_CHECKING, Any

from app.decisions.ledger import Draft, Entry, Kind, to_iso
from app.decisions.retrain import Outcome
from app.decisions.situation import Champion, Situation
from app.decisions.work import Failed
from app.spec import Spec

if TYPE_CHECKING:
    from app.decisions.probe import Gain

FIRST_WAIT = 60.0
WAIT_GROWTH = 4.0
"""Seconds before a failed retraining's second attempt, and by how much each further wait is longer."""


def probed(spec: Spec, situation: Situation, probe: Entry, result: "Gain | Failed") -> Draft:
    """Return what a probe told: a gain, or why there is none to tell."""
    if isinstance(result, Failed):
        words = f"the probe could not tell what a retraining would gain: {result.error}"
        return _draft("probed", situation, probe, words, {"buys": False, "error": result.error})
    least = spec.retrain.min_gain
    buys = result.low > 0 and result.relative >= least
    gain = f"a gain of {result.relative:.1%} in loss, {spec.gate.confidence:.0%} interval {result.low:.1%} to"
    words = f"the probe found {gain} {result.high:.1%}, on {result.rows:,} rows: " + (
        "worth a retraining" if buys else f"not proven to be worth one, which takes {least:.1%} at least"
    )
    evidence = {
        "buys": buys,
        "relative": result.relative,
        "low": result.low,
        "high": result.high,
        "rows": result.rows,
        "days": result.days,
        "seconds": result.seconds,
    }
    return _draft("probed", situation, probe, words, evidence)


def retrained(spec: Spec, situation: Situation, retrain: Entry, outcome: Outcome, broken: str | None) -> Draft:
    """Return what a retraining gave; `broken` says what is wrong with its bundle, None that nothing is."""
    evidence = {"cpu_seconds": outcome.cpu_seconds, "decision": outcome.decision}
    if outcome.version is None or outcome.bundle is None:
        attempt = int(retrain.evidence["attempt"])
        error = outcome.error or "it ended without a version"
        wait = FIRST_WAIT * WAIT_GROWTH ** (attempt - 1)
        evidence |= {"attempt": attempt, "error": error, "not_before": to_iso(situation.now + round(wait * 1000))}
        more = f"it is tried again in {wait:g} s" if attempt < spec.retrain.attempts else "it is not tried again"
        words = f"attempt {attempt} of {spec.retrain.attempts} failed: {error}; {more}"
        return _draft("retrain_failed", situation, retrain, words, evidence)
    trial = Champion(str(outcome.version), outcome.bundle, int(retrain.evidence["until"]))
    evidence |= {"trial": trial.to_json(), "reasons": outcome.reasons, "figures": outcome.figures}
    name = f"version {trial.version}"
    if broken is not None:
        return _draft("refused", situation, retrain, f"{name} cannot be opened: {broken}", evidence, trial.version)
    if not outcome.passed:
        words = "; ".join(reason for reason in outcome.reasons if reason.startswith("refused"))
        return _draft(
            "refused", situation, retrain, f"{name} did not pass the gate: {words}", evidence, trial.version
        )
    rollout = spec.rollout.promote == "auto"
    rest = "it is rolled out" if rollout else "it stays challenger, for rollout.promote is manual"
    words = f"{name} passed the gate: {outcome.reasons[0] if outcome.reasons else 'nothing spoke against it'}; {rest}"
    return _draft("retrained", situation, retrain, words, evidence | {"rollout": rollout}, trial.version)


def _draft(
    kind: Kind,
    situation: Situation,
    about: Entry,
    words: str,
    evidence: dict[str, Any],
    version: str | None = None,
) -> Draft:
    return Draft(kind, "", situation.at, situation.step, words, evidence, about.id, version)
