"""The logarithmic axis: a positive bulk over many decades, above a floor that is stated.

Trained networks' positive eigenvalues span ten decades, and every distance on the linear axis sees
the largest few only. Here λ > floor becomes log10 λ, as a measure of its own; what is negative, and
what lies between -floor and floor, is stated beside it and is no part of any verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.laws.law import Law
from rmthess.measure import (
    DiscreteMeasure,
    LanczosMeasure,
    SpectralMeasure,
    check_order,
    check_probabilities,
)

Array = NDArray[np.float64]

RESOLVED = 0.05  # a Lanczos run knows its cdf within this, from its floor on
_PER_DECADE = 6  # points where that is looked at


@dataclass(frozen=True)
class LogSpectrum:
    """The law of log10 λ given λ > ``floor``, and the masses of the whole beside it.

    ``above`` the mass that ``measure`` stands for, ``negative`` that below -floor, ``unresolved``
    that between -floor and floor, of which ``zero`` is 0 to rounding (NaN where that cannot be
    told: Lanczos). The four describe the measurement; the verdict is on ``measure`` alone.
    """

    measure: SpectralMeasure
    floor: float
    above: float
    unresolved: float
    zero: float
    negative: float

    def __str__(self) -> str:
        zero = f", {self.zero:.3g} of it zero to rounding" if np.isfinite(self.zero) else ""
        return (
            f"{self.above:.3g} of the mass lies above {self.floor:.2g}; left out: "
            f"{self.unresolved:.3g} between ±{self.floor:.2g}{zero}, {self.negative:.3g} below"
        )


def log_spectrum(measure: SpectralMeasure, floor: float | None = None) -> LogSpectrum:
    """``measure`` on the axis log10 λ, λ > ``floor``.

    measure: eigenvalues, a Lanczos run, or a law.
    floor: by default the rounding of eigenvalues, dim ε max|λ|; of a Lanczos run the least λ from
        which on ``cdf_bounds`` are within 0.05 of each other; of a law 0.

    >>> spectrum = log_spectrum(DiscreteMeasure.from_eigenvalues([-1.0, 0.0, 0.01, 100.0]))
    >>> spectrum.measure.nodes, spectrum.negative, spectrum.zero
    (array([-2.,  2.]), 0.25, 0.25)
    """
    if floor is not None and not (np.isfinite(floor) and floor >= 0):
        raise ValueError(f"floor must be a finite number that is not negative, got {floor}")
    if isinstance(measure, Law):
        return _of_law(measure, floor or 0.0)
    if isinstance(measure, LanczosMeasure):
        lowest = _resolved_from(measure) if floor is None else floor
        return _of_nodes(measure.pooled, lowest, float("nan"))
    if not isinstance(measure, DiscreteMeasure):
        raise TypeError(f"a spectrum is a law or a measure, got {type(measure).__name__}")
    rounding = np.finfo(float).eps * measure.nodes.size * float(np.abs(measure.nodes).max())
    zero = float(measure.weights[np.abs(measure.nodes) <= rounding].sum())
    return _of_nodes(measure, rounding if floor is None else floor, zero)


def without_zeros(measure: SpectralMeasure) -> tuple[DiscreteMeasure, float]:
    """What is left of a measured spectrum, and the share of it that cannot be told from 0.

    Eigenvalues within rounding of 0; of a Lanczos run the Ritz values whose error bounds reach 0. A
    spectrum of nothing else stays as it is.

    >>> without_zeros(DiscreteMeasure.from_eigenvalues([0.0, 0.0, 0.0, 2.0]))[0].nodes
    array([2.])
    """
    if isinstance(measure, LanczosMeasure):
        known = np.isfinite(measure.nodes)
        nodes, weights = measure.nodes[known], measure.weights[known] / measure.probes
        bound = measure.errors[known]
    elif isinstance(measure, DiscreteMeasure):
        nodes, weights, bound = measure.nodes, measure.weights, np.zeros(measure.nodes.size)
    else:
        raise TypeError(
            f"a measured spectrum is eigenvalues or a Lanczos run, got {type(measure).__name__}; "
            "to fit another one, pass start="
        )
    zero = np.abs(nodes) <= np.maximum(bound, 1e-9 * np.abs(nodes).max())
    kept = ~zero if zero.any() and not zero.all() else np.ones(zero.shape, bool)
    total = float(weights[kept].sum())
    return DiscreteMeasure(nodes[kept], weights[kept] / total), 1 - total if zero.any() else 0.0


def _of_nodes(measure: DiscreteMeasure, floor: float, zero: float) -> LogSpectrum:
    kept, low = measure.nodes > floor, measure.nodes < -floor
    above, negative, rest = (
        float(measure.weights[part].sum()) for part in (kept, low, ~kept & ~low)
    )
    if not above > 0:
        raise ValueError(
            f"no mass lies above {floor:g}, and a logarithmic axis shows nothing else; the measure "
            f"lies on {measure.nodes[0]:g} to {measure.nodes[-1]:g}"
        )
    dim = None if measure.dim is None else max(1, round(measure.dim * above))
    logs = DiscreteMeasure(np.log10(measure.nodes[kept]), measure.weights[kept] / above, dim)
    return LogSpectrum(logs, floor, above, rest, zero, negative)


def _of_law(law: Law, floor: float) -> LogSpectrum:
    found = LogLaw(law, floor)
    at_zero = sum(float(mass) for place, mass in law.atoms if place == 0)
    negative = float(law.cdf(np.nextafter(-floor, -np.inf)))
    above = 1 - found.below
    return LogSpectrum(found, floor, above, found.below - negative, at_zero, negative)


def _resolved_from(measure: LanczosMeasure) -> float:
    """The least λ from which on the run knows its cdf within 0.05."""
    positive = measure.nodes[measure.nodes > 0]  # NaN drops out
    if positive.size == 0:
        raise ValueError("no Ritz value is positive, and a logarithmic axis shows nothing else")
    low, high = np.log10(positive.min()), np.log10(positive.max())
    points = 10 ** np.linspace(low, high, 2 + int(_PER_DECADE * (high - low)))
    below, up_to = measure.cdf_bounds(points)
    vague = np.flatnonzero(up_to - below > RESOLVED)
    if vague.size and vague[-1] + 2 >= points.size:
        raise ValueError(
            f"{measure.steps} steps know the cdf within {RESOLVED} nowhere on the positive axis; "
            "measure more steps, or pass floor="
        )
    return float(points[vague[-1] + 1]) if vague.size else float(points[0] * (1 - 1e-9))


@dataclass(frozen=True, eq=False)
class LogLaw(SpectralMeasure):
    """log10 X given X > ``floor``, X of a law: F(y) = (F_X(10^y) - F_X(floor))/(1 - F_X(floor)).

    >>> from rmthess import Uniform
    >>> round(float(LogLaw(Uniform(0.0, 10.0), 1.0).cdf(np.log10(5.5))), 12)
    0.5
    """

    law: Law
    floor: float

    resolution = 0.0

    def __post_init__(self) -> None:
        if not self.below < 1:
            raise ValueError(
                f"the law has no mass above {self.floor:g}; it ends at {self.law.breakpoints[-1]:g}"
            )

    @cached_property
    def below(self) -> float:
        """Mass of the law up to the floor."""
        return float(self.law.cdf(self.floor))

    @property
    def breakpoints(self) -> Array:
        points = self.law.breakpoints
        inside = points > self.floor
        if self.floor > 0 and points[0] < self.floor:
            return np.asarray(np.log10(np.concatenate([[self.floor], points[inside]])))
        least = self.law.quantile(min(1.0, self.below + 1e-12)) if points[0] <= 0 else points[0]
        return np.unique(np.log10(np.concatenate([[least], points[inside]])))

    @cached_property
    def _rule(self) -> tuple[Array, Array]:
        nodes, weights = self.law.quadrature(2048)
        inside = (nodes > self.floor) & (weights > 0)
        return np.log10(nodes[inside]), weights[inside] / weights[inside].sum()

    def density(self, y: Any) -> Any:
        """ρ(10^y) 10^y log 10/(1 - F(floor))."""
        x = 10.0 ** np.asarray(y, float)
        density = np.asarray(self.law.density(x), float) * x * np.log(10) / (1 - self.below)
        return np.where(x > self.floor, density, 0.0)[()]

    def cdf(self, x: Any) -> Any:
        up_to = np.asarray(self.law.cdf(10.0 ** np.asarray(x, float)), float)
        return np.clip((up_to - self.below) / (1 - self.below), 0.0, 1.0)[()]

    def quantile(self, p: Any) -> Any:
        level = self.below + check_probabilities(p) * (1 - self.below)
        values = np.asarray(self.law.quantile(np.minimum(level, 1.0)), float)
        return np.log10(np.maximum(values, 10.0 ** self.breakpoints[0]))[()]

    def integrate(self, f: Callable[[Array], Array]) -> float:
        nodes, weights = self._rule
        return float(np.asarray(f(nodes)) @ weights)

    def stieltjes(self, z: Any) -> Any:
        nodes, weights = self._rule
        return ((1 / (nodes - np.asarray(z, complex)[..., None])) @ weights)[()]

    def jacobi(self, steps: int) -> jacobi.Coefficients:
        return jacobi.from_quadrature(*self._rule, check_order("steps", steps))
