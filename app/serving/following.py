"""Which versions should answer? A replica follows the line-up: it looks every half second, loads what is new, swaps.

What cannot be loaded changes nothing: the versions that answer go on answering, and the fault is reported and tried
again now and then. A version that changes its place, as a challenger that becomes champion, is not loaded again.
"""

import logging
import time
from collections.abc import Callable, Hashable

from app.lineup import Answering, Lineup, read_lineup
from app.serving.interpreter import settle
from app.serving.loaded import Loaded, Standing
from app.serving.looking import Looking
from app.types import UserError
from app.workspace import PROMPT, mark

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""Time until a version that could not be loaded is tried again."""


class Follower(Looking):
    """Follows the line-up at `uri`.

    `load` loads a version; `take` is given who answers from now on; `fault` hears of what cannot be followed, with the
    challenger's version where it is that. All three are called on the follower's thread.
    """

    def __init__(
        self,
        uri: str,
        load: Callable[[Answering], Loaded],
        take: Callable[[Standing], None],
        fault: Callable[[str | None], None],
    ) -> None:
        super().__init__("lineup", "the versions that answer go on")
        self._uri = uri
        self._load = load
        self._take = take
        self._fault = fault
        self._loaded: dict[Answering, Loaded] = {}
        self._lineup: Lineup | None = None
        self._seen: Hashable = None
        self._retry: float | None = None

    def first(self) -> Standing:
        """Return who answers first. Raises UserError when there is no line-up, and when its champion cannot be loaded."""
        lineup = read_lineup(self._uri)
        if lineup is None:
            raise UserError(f"{self._uri} is not there: deploy a version first")
        return self._follow(lineup)

    def _look(self) -> None:
        due = self._retry is not None and time.monotonic() >= self._retry
        signature = mark(self._uri, PROMPT)
        if signature is not None and signature == self._seen and not due:
            return
        lineup = read_lineup(self._uri)
        self._seen = signature
        if lineup is not None and (due or lineup != self._lineup):
            self._take(self._follow(lineup))
            settle()

    def _fail(self) -> None:
        self._retry = time.monotonic() + RETRY_SECONDS
        self._fault(None)

    def _follow(self, lineup: Lineup) -> Standing:
        champion = self._version(lineup.champion)
        challenger = fault = self._retry = None
        if lineup.challenger is not None:
            try:
                challenger = self._version(lineup.challenger)
            except UserError as error:
                fault = str(error)
                self._retry = time.monotonic() + RETRY_SECONDS
        standing = Standing.of(lineup, champion, challenger, fault)
        if lineup.challenger is not None and standing.fault is not None:
            log.warning("challenger %s: %s", lineup.challenger.version, standing.fault)
            self._fault(lineup.challenger.version)
        kept = {lineup.champion: champion, lineup.challenger: challenger}
        self._loaded = {one: loaded for one, loaded in kept.items() if one is not None and loaded is not None}
        self._lineup = lineup
        return standing

    def _version(self, answering: Answering) -> Loaded:
        if answering in self._loaded:
            return self._loaded[answering]
        try:
            return self._load(answering)
        except Exception as error:  # there is no end to what may be wrong with a file
            raise UserError(f"version {answering.version} cannot be loaded: {error}") from error
