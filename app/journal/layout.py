"""Where do the journal's files lie, and what do their names say?

    journal/new/<stream>/seg-20261124T021530123-<replica>-<n>.parquet   written by replicas: UTC, in milliseconds
    journal/<stream>/2026-11-24T02/step-000123-<token>.parquet          committed; by the hour in which it arrived
    journal/<stream>/2026-11-24T02/step-000100-000163-<token>.parquet   many steps, with a column `step`
    journal/steps/000123.json  000100-000163.json                       manifests: what is committed
    journal/corrupt/<stream>-seg-...parquet                             segments that could not be read

New segments have a folder of their own, so that looking for them costs the same however long the journal is. Names
sort by time. The token keeps apart what two committers write at once.
"""

import datetime as dt
import logging
import re
from typing import NamedTuple

from app.journal.rows import STREAMS, Stream
from app.workspace import join, list_files, list_folders, move

_log = logging.getLogger(__name__)

_SEGMENT = re.compile(r"seg-(\d{8}T\d{9})-.+\.parquet")
_HOUR = "%Y-%m-%dT%H"


class Segment(NamedTuple):
    """A file that a replica wrote; `hour` is the partition it belongs to."""

    name: str
    stream: Stream
    hour: str
    size: int

    @property
    def source(self) -> tuple[Stream, str]:
        """What a manifest calls it."""
        return self.stream, self.name


def segment_name(moment: dt.datetime, replica: str, number: int) -> str:
    """Return a segment's name; unique as long as the replica's is."""
    return f"seg-{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}-{replica}-{number:06d}.parquet"


def segment_uri(folder: str, stream: Stream, name: str) -> str:
    """Return the address of a new segment below the journal's folder."""
    return join(folder, "new", stream, name)


def set_aside(folder: str, segment: Segment) -> None:
    """Move a segment that cannot be read to where a person may look at it. Raises FileNotFoundError when it is gone."""
    source = segment_uri(folder, segment.stream, segment.name)
    target = join(folder, "corrupt", f"{segment.stream}-{segment.name}")
    move(source, target)
    _log.warning("segment %s cannot be read and was set aside as %s", source, target)


def list_segments(folder: str) -> list[Segment]:
    """Return the new segments of all streams by time."""
    found = []
    for stream in STREAMS:
        for info in list_files(join(folder, "new", stream)):
            match = _SEGMENT.fullmatch(info.name)
            if match is not None:
                moment = dt.datetime.strptime(match[1][:11], "%Y%m%dT%H")
                found.append(Segment(info.name, stream, f"{moment:{_HOUR}}", info.size))
    return sorted(found)


def step_path(hour: str, first: int, last: int, token: str) -> str:
    """Return the path of a committed file below its stream's folder."""
    numbers = f"{first:06d}" if first == last else f"{first:06d}-{last:06d}"
    return f"{hour}/step-{numbers}-{token}.parquet"


def list_hours(folder: str, stream: Stream) -> list[str]:
    """Return the partitions of a stream's committed files."""
    return sorted(list_folders(join(folder, stream)))


def hour_of(moment: dt.datetime) -> str:
    """Return the partition of a moment."""
    return f"{moment.astimezone(dt.UTC):{_HOUR}}"
