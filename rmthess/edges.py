"""Edges of a law: where its density begins and ends, and how steeply (theory/edges.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmthess.extremes import tracy_widom
from rmthess.laws.kernel_law import KernelLaw
from rmthess.laws.law import AffineLaw, Law

_HARD = 1e20  # constants beyond it, in units of the interval, are infinite but for roundings


@dataclass(frozen=True)
class Edge:
    """An end of an interval of the support.

    ``side`` says on which side of the edge there is no density. ``constant`` a > 0 at a soft edge,
    where ρ(x) ~ (a/π)√|x - location|; NaN at a hard edge, where the density does not vanish.
    """

    location: float
    side: Literal["left", "right"]
    constant: float

    @property
    def soft(self) -> bool:
        """Whether the density vanishes like a square root."""
        return bool(np.isfinite(self.constant))

    def scale(self, dim: int) -> float:
        """(a dim)^(-2/3): the outermost eigenvalue lies at location ± scale · Tracy–Widom.

        0 at a hard edge, which no eigenvalue of the bulk crosses.
        """
        return float((self.constant * dim) ** (-2 / 3)) if self.soft else 0.0

    def threshold(self, dim: int, level: float) -> float:
        """The point that a bulk's outermost eigenvalue passes with probability ``level``."""
        reach = self.scale(dim) * float(tracy_widom(1).quantile(1 - level))
        return self.location + reach if self.side == "right" else self.location - reach


def edges(law: Law) -> tuple[Edge, ...]:
    """Both ends of every interval of the support, from left to right.

    The constant of a kernel law is |dm/dω| √(2/|K''|); of others it is the limit of π ρ/√distance,
    extrapolated, to about 1e-12 where no other edge or singularity is near.

    >>> from rmthess import Semicircle
    >>> [(edge.location, round(edge.constant, 9)) for edge in edges(Semicircle())]
    [(-2.0, 1.0), (2.0, 1.0)]
    """
    if isinstance(law, AffineLaw):
        return _mapped(edges(law.base), float(law.scale), float(law.offset))
    ends = np.array(law.support, float)
    lengths = np.repeat(ends[:, 1] - ends[:, 0], 2)
    if isinstance(law, KernelLaw):
        constants = law.edge_constants
    else:
        signs = np.tile([1.0, -1.0], len(ends))
        constants = np.array(
            [_extrapolated(law, *each) for each in zip(ends.ravel(), signs * lengths, strict=True)]
        )
    constants[~(constants * lengths**1.5 < _HARD)] = np.nan
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    return tuple(
        Edge(float(x), sides[k % 2], float(a))
        for k, (x, a) in enumerate(zip(ends.ravel(), constants, strict=True))
    )


def _mapped(found: tuple[Edge, ...], scale: float, offset: float) -> tuple[Edge, ...]:
    """The edges of scale X + offset: ρ/√distance is |scale|^(-3/2) as large."""
    other: dict[str, Literal["left", "right"]] = {"left": "right", "right": "left"}
    images = [
        Edge(
            scale * edge.location + offset,
            edge.side if scale > 0 else other[edge.side],
            edge.constant * abs(scale) ** -1.5,
        )
        for edge in found
    ]
    return tuple(images if scale > 0 else images[::-1])


def cusps(law: Law) -> tuple[float, ...]:
    """Points inside the support where the density vanishes like a cube root: gaps about to open.

    There K' (of a rational kernel) or 1 - B₁'B₂' (of a free sum or product) has a double zero: to
    1e-12, so that the least density is at most near 1e-6/width; or the gap is lost in roundings.
    Laws in closed form have none.

    >>> from rmthess import DeformedWigner, DiscreteMeasure
    >>> (found,) = cusps(DeformedWigner(DiscreteMeasure([0.0, 2.0], [0.5, 0.5]), variance=1))
    >>> round(found, 12)
    1.0
    """
    return law.cusps


def _extrapolated(law: Law, edge: float, inward: float) -> float:
    """π ρ/√distance at six distances, as a polynomial at 0; NaN where it has no limit.

    Of steps from 1e-6 to 1e-2 of the interval the one at which six and five points agree best.
    """
    steps = inward * 10.0 ** np.arange(-6, -1)[:, None] * np.arange(1, 7)
    distance = np.abs((edge + steps) - edge)  # of the points themselves
    slope = np.pi * np.asarray(law.density(edge + steps), float) / np.sqrt(distance)
    if not abs(slope[0, 0] / slope[0, 1] - 1) < 0.05:  # a cube root or a pole
        return float("nan")
    six = slope @ np.array([6.0, -15.0, 20.0, -15.0, 6.0, -1.0])
    five = slope @ np.array([5.0, -10.0, 10.0, -5.0, 1.0, 0.0])
    return float(six[np.argmin(np.abs(six - five))])
