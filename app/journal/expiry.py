"""What may be forgotten? Steps whose hours are past, and what killed processes left lying about."""

import datetime as dt

from app.journal.layout import hour_of, list_hours
from app.journal.manifests import Manifests
from app.journal.parquet import failing
from app.journal.rows import STREAMS
from app.workspace import delete, delete_folder, join, list_files


def delete_before(folder: str, manifests: Manifests, before: dt.datetime) -> None:
    """Delete all of a journal whose hour ended before `before`, file by file, except the newest.

    Manifests go before their files, so that a reader never meets a step in halves.
    """
    hour = hour_of(before)
    found = manifests.blocks()
    kept: set[str] = set()
    for number, block in enumerate(found, start=1):
        if block.hour < hour and number < len(found):
            manifests.drop(block)
        else:
            kept.update(piece.hour for piece in manifests.shorten(block, hour).pieces)
    with failing(f"{folder} cannot be cleared"):
        for stream in STREAMS:
            for past in list_hours(folder, stream):
                if past < hour and past not in kept:
                    delete_folder(join(folder, stream, past))
        for left in ("corrupt", "steps", *(f"new/{stream}" for stream in STREAMS)):
            _delete_leftovers(join(folder, left), before, drafts_only=left != "corrupt")


def _delete_leftovers(uri: str, before: dt.datetime, drafts_only: bool) -> None:
    for file in list_files(uri):
        if file.written < before and (file.name.startswith(".") or not drafts_only):
            delete(join(uri, file.name))
