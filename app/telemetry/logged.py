"""How often does something go wrong enough to be logged? Warnings and errors, counted by logger."""

import logging

from app.telemetry.names import LOG_MESSAGES
from app.telemetry.sink import RaySink, Sink


class Logged(logging.Handler):
    """Counts records of warnings and worse."""

    def __init__(self, model: str, sink: Sink) -> None:
        super().__init__(logging.WARNING)
        self._model = model
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        self._sink.add(LOG_MESSAGES, 1, self._model, record.levelname.lower(), record.name)


def count_messages(model: str, sink: Sink | None = None) -> None:
    """Count what this process logs from now on; a second call takes the place of the first."""
    ours = logging.getLogger("app")
    for handler in [one for one in ours.handlers if isinstance(one, Logged)]:
        ours.removeHandler(handler)
    ours.addHandler(Logged(model, RaySink() if sink is None else sink))
