"""How is the fold's state written down? As msgpack of its dataclasses: arrays as bytes, tables as Arrow; never code."""

from typing import Any, TypeVar, get_origin

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

State = TypeVar("State")


def encode(state: object) -> bytes:
    """Return a dataclass as bytes; equal states have equal bytes."""
    return msgspec.msgpack.encode(state, enc_hook=_plain)


def decode(data: bytes, kind: type[State]) -> State:
    """Read what `encode` wrote. Raises msgspec.DecodeError for anything else."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_revive)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, pl.DataFrame):
        # By way of Arrow: polars' own files also tell how a table came about.
        table = value.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()
    raise NotImplementedError(f"{type(value)} has no place in a snapshot")


def _revive(kind: type, value: Any) -> npt.NDArray[Any] | pl.DataFrame:
    if kind is pl.DataFrame:
        frame = pl.from_arrow(pa.ipc.open_stream(value).read_all())
        assert isinstance(frame, pl.DataFrame)
        return frame
    assert get_origin(kind) is np.ndarray, f"{kind} has no place in a snapshot"
    dtype, shape, data = value
    return np.frombuffer(data, dtype).reshape(shape)
