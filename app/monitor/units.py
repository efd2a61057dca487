"""Are these the same values in another unit? Known conversions, tried on quantiles of values before and now."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GRID = np.linspace(0.05, 0.95, 19)

_WEAK = 5.0  # a conversion that changes values by less than this factor can be mistaken for a move of the world
_LARGEST_LOG = 80.0


class Conversion(NamedTuple):
    """What seems to be sent, and how to take it back."""

    words: str
    back: Callable[[Floats], Floats]
    weak: bool


class Found(NamedTuple):
    """A conversion that explains what is seen: distances to what was seen before, in standard deviations."""

    words: str
    distance: float  # of the values as sent
    explained: float  # of the values taken back


def _affine(words: str, scale: float, offset: float = 0.0) -> Conversion:
    ratio = max(abs(scale), 1 / abs(scale))
    return Conversion(words, lambda x: scale * x + offset, scale > 0 and not offset and ratio < _WEAK)


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
    *_factors("tens", "units", 10),
    _affine("the opposite sign", -1),
    Conversion("natural logarithms", lambda x: _power(x, np.e), False),
    Conversion("decimal logarithms", lambda x: _power(x, 10), False),
    Conversion("logarithms of one more", lambda x: _power(x, np.e) - 1, False),
)

_BY_WORDS = {conversion.words: conversion for conversion in CONVERSIONS}


def quantiles(values: Floats) -> Floats:
    """Return the quantiles (19,) that values (n,) are compared by; the outermost twentieths do not count."""
    return np.quantile(values, GRID)


def spread(known: Floats) -> float:
    """Return the standard deviation that a normal with these quantiles (19,) would have, never 0."""
    return max(float(known[-2] - known[1]) / 2.5631, 1e-3 * float(np.abs(known).max()), 1e-12)


def explain(now: Floats, before: Sequence[Floats], scale: float, strict: bool) -> Found | None:
    """Return the conversion under which the values now look like those before; None when none is needed or fits.

    `now` and each of `before` are quantiles (19,), `scale` the standard deviation that distances are told in. The
    values as sent have to be far from all of `before`: no move of the world is so sudden. Taken back they have
    to be near to one of it; `strict`: so near that only the same distribution is.
    """
    distance = min(_distance(now, one, scale) for one in before)
    tried = [(min(_distance(c.back(now), one, scale) for one in before), c) for c in CONVERSIONS]
    explained, conversion = min(tried, key=lambda one: one[0])
    far, near = (0.4, 0.1) if conversion.weak else (1.0, 0.35)
    near = min(near, 0.2) if strict else near
    fits = distance >= far and explained <= near and explained <= distance / 4
    return Found(conversion.words, distance, explained) if fits else None


def still(words: str, now: Floats, before: Floats) -> bool:
    """Say whether values taken back by the conversion `words` are still nearer to what was before than as sent."""
    taken_back = _BY_WORDS[words].back(now)
    return bool(_distance(taken_back, before, 1.0) < _distance(now, before, 1.0) / 2)


def _distance(some: Floats, other: Floats, scale: float) -> float:
    """Mean distance of quantiles: the Wasserstein distance without the tails."""
    return float(np.abs(np.sort(some) - other).mean() / scale)
