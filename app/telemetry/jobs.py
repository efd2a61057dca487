"""What jobs report of their work: a few figures a run, handed over at once."""

from collections.abc import Mapping

from app.telemetry.names import PREPARED_ROWS, QUARANTINED_ROWS, STEP_SECONDS, TABLE_ROWS, TRAINING_SPEED, VERDICTS
from app.telemetry.sink import RaySink, Sink


class JobMetrics:
    """One job's figures."""

    def __init__(self, model: str, sink: Sink | None = None) -> None:
        self._model = model
        self._sink = RaySink() if sink is None else sink

    def prepared(self, rows: int, quarantined: Mapping[str, int]) -> None:
        """Report rows that kept the contract, and those set aside by reason."""
        if rows > 0:
            self._sink.add(PREPARED_ROWS, rows, self._model)
        for reason, count in quarantined.items():
            if count > 0:
                self._sink.add(QUARANTINED_ROWS, count, self._model, reason)

    def trained(self, rows_per_second: float) -> None:
        """Report the speed of a training."""
        self._sink.set(TRAINING_SPEED, rows_per_second, self._model)

    def judged(self, passed: bool) -> None:
        """Report a verdict of the gate."""
        self._sink.add(VERDICTS, 1, self._model, "pass" if passed else "fail")

    def took(self, step: str, seconds: float) -> None:
        """Report the seconds of a training's step."""
        if seconds > 0:
            self._sink.add(STEP_SECONDS, seconds, self._model, step)

    def scored(self, rows: int, rejected: int) -> None:
        """Report a table's rows: scored, and rejected by the contract."""
        for outcome, count in (("scored", rows), ("rejected", rejected)):
            if count > 0:
                self._sink.add(TABLE_ROWS, count, self._model, outcome)
