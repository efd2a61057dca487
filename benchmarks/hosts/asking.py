"""Ask a service steadily, over a few connections, and keep what became of every request."""

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType


@dataclass(frozen=True)
class Answered:
    """One request: when it was sent (seconds since the begin), what it took (seconds), its status (0: none), what it said."""

    at: float
    seconds: float
    status: int
    said: bytes


@dataclass
class Asking:
    """Clients that go on until the end of the block; `body` makes the body of the request of a number."""

    address: str
    path: str
    body: Callable[[int], bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = 4
    pause: float = 0.02
    """Seconds a client waits between an answer and its next request."""
    timeout: float = 60.0

    answered: list[Answered] = field(default_factory=list)
    begin: float = field(default_factory=time.perf_counter)
    _end: threading.Event = field(default_factory=threading.Event)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Asking":
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    @property
    def now(self) -> float:
        """Seconds since the begin."""
        return time.perf_counter() - self.begin

    @property
    def failed(self) -> list[Answered]:
        """What was not answered with a success."""
        return [one for one in self.answered if not 200 <= one.status < 300]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=self.timeout)
        while not self._end.wait(self.pause):
            body, begin = self.body(next(self._numbers)), self.now
            try:
                connection.request("POST", self.path, body, {"content-type": "application/json", **self.headers})
                answer = connection.getresponse()
                status, said = answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, said = 0, repr(error).encode()
            self.answered.append(Answered(begin, self.now - begin, status, said))
        connection.close()
