"""Which versions answer, and who gets which share? One small file that every replica follows.

Whoever changes the line-up (a deployment, the drift actor, a rollback by hand) writes the file whole; replicas read it
anew every half second, load what is new beside the old, and swap.
"""

import zlib
from dataclasses import dataclass

import msgspec

from app.types import UserError
from app.workspace import read_bytes, write_bytes

FILE = "lineup.json"


@dataclass(frozen=True)
class Answering:
    """A version and the address of its bundle."""

    version: str
    bundle: str


@dataclass(frozen=True)
class Lineup:
    """The champion, and a challenger that answers `share` of the rows (0: it scores them unheard, a shadow).

    `generation` grows by one with every change, so that a replica can say which line-up it follows.
    """

    generation: int
    champion: Answering
    challenger: Answering | None = None
    share: float = 0.0

    def then(self, champion: Answering, challenger: Answering | None = None, share: float = 0.0) -> "Lineup":
        """Return the line-up that follows this one."""
        return Lineup(self.generation + 1, champion, challenger, share)


def bucket(key: str, salt: str = "") -> float:
    """Return a number in [0, 1) that is always the same for a row's key: below `share`, the challenger answers."""
    return zlib.crc32(f"{salt}{key}".encode()) / 2**32


def read_lineup(uri: str) -> Lineup | None:
    """Read the line-up at an address; None when there is none yet. Raises UserError for a file that is none."""
    try:
        return msgspec.json.decode(read_bytes(uri), type=Lineup)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{uri} is no line-up: {error}") from error


def write_lineup(uri: str, lineup: Lineup) -> None:
    """Put a line-up in the place of the last one, whole."""
    write_bytes(uri, msgspec.json.encode(lineup))
