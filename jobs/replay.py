"""Send a table's rows to the live endpoint as a client would: in event-time order, with labels when they were known."""

import argparse
import datetime as dt
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from app.declaration import Declaration
from app.keys import ENVIRONMENT
from app.replay import DAY, Client, Replay, read_arrivals
from app.serving import listener
from app.types import UserError
from app.workspace import Workspace
from jobs.command import main, parse_duration

log = logging.getLogger(__name__)

ASK_EVERY = 0.25
"""Seconds between two looks at what the service is doing."""
PATIENCE = 60.0
"""Seconds for which the service may tell nothing of itself; rows go on meanwhile. A loop that reads nothing is told of as often."""
BUSY = {"probing", "running"}


def replay(declaration: Declaration, _: Workspace, arguments: argparse.Namespace) -> None:
    """Send the rows, showing what the service makes of them; a failed request is an error."""
    spec = declaration.spec
    address = arguments.address or listener.address(spec)
    trust = None if arguments.address else listener.trust(spec.serve)
    arrivals = read_arrivals(declaration, arguments.source, arguments.known, arguments.delay)
    key = os.environ.get(ENVIRONMENT)
    client = Client(address, key, trust)
    sending = Replay(client, arrivals)
    sending.run(arguments.pace, Watch(Client(address, key, trust).get, arguments.lead))
    log.info(
        "%s requests, %s rows, %s labels, %s failed",
        *map("{:,}".format, (client.sent, client.rows, sending.labels_sent, client.failed)),
    )
    if client.failed:
        raise UserError(f"{client.failed} of {client.sent} requests failed; see above")


class Watch:
    """Shows how the loop does, and says when the replay is to be held: its minutes are weeks at the replay's pace.

    That is while the service trains, and while the newest row sent is further ahead of what the loop has read than
    `lead`. `get` reads a JSON page of the service.
    """

    def __init__(self, get: Callable[[str], Any], lead: dt.timedelta | None = None) -> None:
        self._get = get
        self._lead = lead
        self._asked = 0.0
        self._told_at = time.monotonic()
        self._busy = False
        self._read: int | None = None  # event time (ms) that the loop has come to, by the last look
        self._read_at = self._told_at  # when that was news, or that there is none was told
        self._told = 0
        self._month = ""

    def __call__(self, now: int) -> bool:
        """Look, at most every `ASK_EVERY` seconds; `now` is the time of the newest row sent, in ms since 1970.

        Raises UserError where the service tells nothing for longer than `PATIENCE`.
        """
        if time.monotonic() - self._asked >= ASK_EVERY:
            self._asked = time.monotonic()
            try:
                self._look(now)
            except UserError as error:
                if self._asked - self._told_at > PATIENCE:
                    raise
                log.warning("%s", error)
            else:
                self._told_at = self._asked
        return self._busy or self._behind(now)

    def _behind(self, now: int) -> bool:
        if self._lead is None or self._read is None:
            return False
        return now - self._read > self._lead / dt.timedelta(milliseconds=1)

    def _follow(self, as_of: str | None, now: int) -> None:
        """Note how far the loop has read, and tell where it reads nothing while rows wait for it."""
        read = None if as_of is None else round(dt.datetime.fromisoformat(as_of).timestamp() * 1000)
        if read != self._read:
            self._read, self._read_at = read, self._asked
        elif self._behind(now) and self._asked - self._read_at > PATIENCE:
            log.warning("the loop has read nothing new for %.0f s; rows wait for it, as --lead says", PATIENCE)
            self._read_at = self._asked

    def _look(self, now: int) -> None:
        status = self._get("drift")
        self._busy = (status.get("retrain") or {}).get("state") in BUSY
        self._follow(status.get("as_of"), now)
        date = dt.datetime.fromtimestamp(now / 1000, dt.UTC).strftime("%Y-%m-%d")
        self._tell(self._get("decisions?limit=200")["decisions"])
        rollout = status.get("rollout")
        words = [
            date,
            str(status.get("model", "")),
            f"{len(status.get('findings', []))} alarms",
            f"{self._told} entries in the ledger",
            f"rollout of {rollout['challenger']}: {rollout['stage']}" if rollout else "",
            str((status.get("retrain") or {}).get("state") or ""),
            "waits for the loop" if self._behind(now) else "",
        ]
        line = "  ".join(filter(None, words))
        if sys.stdout.isatty():
            print(f"\r\x1b[K{line}", end="", flush=True)
        elif date[:7] != self._month:
            self._month = date[:7]
            print(line, flush=True)

    def _tell(self, entries: list[dict[str, Any]]) -> None:
        """Write a line for every new entry of the ledger, and one for all new alarms together."""
        new = [entry for entry in reversed(entries) if entry["number"] > self._told]
        alarms = [entry for entry in new if entry["kind"] == "alarm_noted"]
        for entry in new:
            if entry not in alarms[1:]:
                more = f" (and {len(alarms) - 1} more)" if entry in alarms and len(alarms) > 1 else ""
                _line(f"{entry['at'][:10]}  {entry['kind']:<14} {entry['reason']}{more}")
            self._told = entry["number"]


def _line(words: str) -> None:
    print(f"\r\x1b[K{words}" if sys.stdout.isatty() else words, flush=True)


def _pace(text: str) -> float:
    """Read an argument such as 0.5; argparse tells the mistake."""
    try:
        pace = float(text)
    except ValueError:
        pace = 0.0
    if not 0 < pace < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a number above 0, such as 0.5")
    return pace


def _address(text: str) -> str:
    """Read an argument such as http://127.0.0.1:8000/flights; argparse tells the mistake."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an address of IPv6 that is none
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed an address such as http://127.0.0.1:8000/flights")
    return text.rstrip("/")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is replayed, and how fast."""
    parser.add_argument("--known", help="column of the moments at which the labels were known")
    parser.add_argument(
        "--delay",
        type=parse_duration,
        default=dt.timedelta(milliseconds=DAY),
        help="or how long after its row a label is known (default: 1d)",
    )
    parser.add_argument(
        "--pace", type=_pace, default=1.0, help="days of event time that pass in a second (default: 1)"
    )
    parser.add_argument(
        "--lead",
        type=parse_duration,
        help="let the loop keep up: event time by which rows may be ahead of what it has read, such as 2d",
    )


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="table to replay: the declaration's features, key, time and target")
    parser.add_argument(
        "--address",
        type=_address,
        help="the service (default: where the declaration says it is); its key: $EVERTRUE_KEY",
    )
    add_arguments(parser)


if __name__ == "__main__":
    main(replay, __doc__ or "", _extend)
