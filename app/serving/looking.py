"""How does a replica follow a small file? A thread looks every half second; what goes wrong is told once, and passes."""

import logging
import threading
from abc import ABC, abstractmethod

from app.types import UserError

log = logging.getLogger(__name__)

SECONDS = 0.5
"""Time between two looks."""


class Looking(ABC):
    """Looks again and again, on a thread called `name`.

    UserError and OSError end nothing: the log says once what is wrong and what holds `meanwhile`.
    """

    def __init__(self, name: str, meanwhile: str) -> None:
        self._meanwhile = meanwhile
        self._said = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start to look, on the thread."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; blocks until the thread has ended."""
        self._end.set()
        self._thread.join()

    def look(self) -> None:
        """Look now, and take what has changed since the last look."""
        try:
            self._look()
            self._said = ""
        except (UserError, OSError) as error:
            if str(error) != self._said:  # once, not twice a second
                log.warning("%s; %s", error, self._meanwhile)
            self._said = str(error)
            self._fail()

    @abstractmethod
    def _look(self) -> None:
        """Take what has changed."""

    @abstractmethod
    def _fail(self) -> None:
        """Take note that a look failed."""

    def _run(self) -> None:
        while not self._end.wait(SECONDS):
            self.look()
