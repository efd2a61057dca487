"""How does a process log? As it ever did, or with $EVERTRUE_LOG_FORMAT=json one JSON object a line, for a machine.

Fields are named by the Elastic Common Schema. What a job prints becomes lines of its log, so that a collector finds
nothing else.
"""

import contextlib
import datetime as dt
import importlib.metadata
import io
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TextIO

from app.types import UserError

ENVIRONMENT = "EVERTRUE_LOG_FORMAT"
ECS = "8.11.0"
"""The version of the schema."""

Facts = Callable[[], Mapping[str, str]]
"""What else is known where a line is logged, such as the request."""

_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray tells a submitted job's driver about itself in it


def wants_json() -> bool:
    """Say whether lines are JSON. Raises UserError for a format that is none."""
    chosen = os.environ.get(ENVIRONMENT, "text")
    if chosen not in ("text", "json"):
        raise UserError(f"${ENVIRONMENT}: found {chosen!r}, allowed is text or json")
    return chosen == "json"


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object; `fields` are on every line, `facts` are asked for each."""

    def __init__(self, fields: Mapping[str, str], facts: Facts = dict) -> None:
        super().__init__()
        self._fields = {**fields, "ecs.version": ECS}
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "@timestamp": moment.replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "log.logger": record.name,
            "process.pid": record.process,
            **self._fields,
            **self._facts(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line |= {
                "error.type": record.exc_info[0].__name__,
                "error.message": str(record.exc_info[1]),
                "error.stack_trace": self.formatException(record.exc_info),
            }
        # A file's name need not be UTF-8: what cannot be written is a question mark, not an error in place of the line.
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").decode()


def set_up(role: str, service: str | None = None, facts: Facts = dict, **labels: str) -> bool:
    """Let this process's lines be JSON on stderr, where that is wanted, and say so; nothing changes otherwise.

    `role` says what the process is (`jobs.train`, `replica`, `actor`), `labels` what else marks it. A second call takes
    the place of the first. Raises UserError for a format that is none.
    """
    if not wants_json():
        return False
    fields = {"service.name": service or "evertrue", "host.hostname": platform.node(), "labels.role": role}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        fields["service.version"] = importlib.metadata.version("evertrue")
    if submission := _submission():
        fields["labels.ray_submission_id"] = submission
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonLines(fields | {f"labels.{name}": value for name, value in labels.items()}, facts))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for ours in ("app", "jobs"):
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    return True


def _submission() -> str | None:
    """Return the id under which this process was submitted as a Ray job."""
    given = json.loads(os.environ.get(_SUBMITTED, "{}"))
    found = given.get("metadata", {}).get("job_submission_id")
    return None if found is None else str(found)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("app").critical("the process ends by an error", exc_info=(kind, error, trace))


@contextlib.contextmanager
def printed_as_lines(name: str) -> Iterator[None]:
    """Log what is printed under this logger's name, where lines are JSON."""
    if not wants_json():
        yield
        return
    lines: TextIO = _Lines(logging.getLogger(name))  # type: ignore[assignment]  # print() needs write() alone
    with contextlib.redirect_stdout(lines):
        yield


class _Lines(io.TextIOBase):
    """Logs every line that is written."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._rest = ""

    def write(self, text: str) -> int:
        """Log the lines that are whole."""
        *whole, self._rest = (self._rest + text).split("\n")
        for line in filter(None, whole):
            self._logger.info("%s", line)
        return len(text)
