"""Are these the same values in another unit? Known conversions, tried on quantiles of values before and now."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GRID = np.linspace(0.05, 0.95, 19)

_LARGEST_LOG = 80.0


class Conversion(NamedTuple):
    """What seems to be sent, and how to take it back."""

    words: str
    back: Callable[[Floats], Floats]


class Found(NamedTuple):
    """A conversion that explains what is seen: distances to what was seen before, in standard deviations."""

    words: str
    distance: float  # of the values as sent
    explained: float  # of the values taken back


def _affine(words: str, scale: float, offset: float = 0.0) -> Conversion:
    return Conversion(words, lambda x: scale * x + offset)


def _factors(words: str, other: str, factor: float) -> tuple[Conversion, Conversion]:
    return _affine(f"{words} instead of {other}", factor), _affine(f"{other} instead of {words}", 1 / factor)


def _power(x: Floats, base: float) -> Floats:
    powers: Floats = np.exp(np.clip(x * np.log(base), -_LARGEST_LOG, _LARGEST_LOG))
    return powers


CONVERSIONS: tuple[Conversion, ...] = (
    _affine("degrees Celsius instead of Fahrenheit", 1.8, 32),
    _affine("degrees Fahrenheit instead of Celsius", 1 / 1.8, -32 / 1.8),
    _affine("kelvins instead of degrees Celsius", 1, -273.15),
    _affine("degrees Celsius instead of kelvins", 1, 273.15),
    _affine("kelvins instead of degrees Fahrenheit", 1.8, -459.67),
    _affine("degrees Fahrenheit instead of kelvins", 1 / 1.8, 459.67 / 1.8),
    *_factors("kilometres", "miles", 1 / 1.609344),
    *_factors("kilograms", "pounds", 1 / 0.45359237),
    *_factors("metres", "feet", 1 / 0.3048),
    *_factors("inches", "centimetres", 2.54),
    *_factors("metres a second", "miles an hour", 1 / 0.44704),
    *_factors("kilometres an hour", "metres a second", 1 / 3.6),
    *_factors("inches of mercury", "hectopascals", 33.8638866667),
    *_factors("hours", "minutes", 60),
    *_factors("hours", "seconds", 3600),
    *_factors("days", "seconds", 86400),
    *_factors("thousands", "units", 1000),
    *_factors("millions", "units", 1_000_000),
    *_factors("percent", "fractions", 0.01),
    _affine("the opposite sign", -1),
    Conversion("natural logarithms", lambda x: _power(x, np.e)),
    Conversion("decimal logarithms", lambda x: _power(x, 10)),
    Conversion("logarithms of one more", lambda x: _power(x, np.e) - 1),
)

_BY_WORDS = {conversion.words: conversion for conversion in CONVERSIONS}


def quantiles(values: Floats) -> Floats:
    """Return the quantiles (19,) that values (n,) are compared by; the outermost twentieths do not count."""
    return np.quantile(values, GRID)


def spread(known: Floats) -> float:
    """Return the standard deviation that a normal with these quantiles (19,) would have, never 0."""
    return max(float(known[-2] - known[1]) / 2.5631, 1e-3 * float(np.abs(known).max()), 1e-12)


def comparable(known: Floats) -> bool:
    """Say whether quantiles (19,) are those of a quantity: of few values, many conversions look alike."""
    return len(np.unique(known)) > len(known) // 2


def jumped(now: Sequence[Floats], before: Sequence[Floats], scale: float) -> Found | None:
    """Return the conversion that explains a jump beyond all that training saw; None when none does.

    All of `now` (here: one) and `before` are quantiles (19,), `scale` the standard deviation that distances are told
    in. Days differ: so what is taken back has to be near to one of `before` only, and the less near the further the jump.
    """
    [newest] = now
    distance = min(_distance(newest, one, scale) for one in before)
    explained, words = min(
        (min(_distance(c.back(newest), one, scale) for one in before), c.words) for c in CONVERSIONS
    )
    near = min(max(0.35, distance / 6), 0.8)
    return Found(words, distance, explained) if distance >= 0.6 and explained <= min(near, distance / 5) else None


def turned(now: Sequence[Floats], before: Sequence[Floats], scale: float) -> Found | None:
    """Return the conversion that turns the parts `now` of a day into all of `before`; None when none does.

    The parts have to be alike, and so have those before. Where hours and days differ by themselves, a day that looks
    converted is just another day; and a change within the day would look like any mixture.
    """
    if not all(comparable(one) for one in (*now, *before)):
        return None
    apart = max(_distance(one, other, scale) for alike in (now, before) for one in alike for other in alike)
    day = np.mean(now, axis=0)
    distance = min(_distance(day, one, scale) for one in before)
    explained, words = min((max(_distance(c.back(day), one, scale) for one in before), c.words) for c in CONVERSIONS)
    return Found(words, distance, explained) if apart <= 0.2 and distance >= 0.4 and explained <= 0.15 else None


def still(words: str, now: Floats, before: Floats) -> bool:
    """Say whether values taken back by the conversion `words` are still nearer to what was before than as sent."""
    taken_back = _BY_WORDS[words].back(now)
    return bool(_distance(taken_back, before, 1.0) < _distance(now, before, 1.0) / 2)


def _distance(some: Floats, other: Floats, scale: float) -> float:
    """Mean distance of quantiles: the Wasserstein distance without the tails."""
    return float(np.abs(np.sort(some) - other).mean() / scale)
