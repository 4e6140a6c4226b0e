"""The law of a family that lies nearest to a measurement: where to begin, and the descent.

A start comes from the caller, from a family's method of moments, or from a search: quasi-random
points of a box of parameters, judged by a few coordinates that cost little
(:meth:`Instrument.glance`), the best of them improved there. Then least squares in all coordinates
of the instrument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from rmthess.families import Family
from rmthess.instrument import Instrument
from rmthess.laws.law import Law
from rmthess.measure import SpectralMeasure

Array = NDArray[np.float64]

POINTS = 300  # of the search
_BEST = 5  # of them are improved
_SINGULAR = 1e-5  # of the normalised Jacobian: rounding of differences is 1e-9


@dataclass(frozen=True)
class Problem:
    """A family with some parameters ``fixed``, the ``free`` ones in order, and the data's unit."""

    family: Callable[..., Law]
    free: tuple[str, ...]
    fixed: Mapping[str, float]
    unit: float

    def named(self, values: Array) -> dict[str, float]:
        return dict(zip(self.free, map(float, values), strict=True))

    def law(self, values: Array) -> Law:
        return self.family(**self.named(values), **self.fixed)

    def multiple(self, values: Array) -> Law:
        """The same law, as a multiple of the last one where nothing but its scale is another."""
        name = getattr(self.family, "scale_parameter", None)
        if name is None or name not in self.free:
            return self.law(values)
        place = self.free.index(name)
        unit = values.copy()
        unit[place] = 1.0
        return self._unit(tuple(unit)).dilate(values[place])

    @cached_property
    def _unit(self) -> Callable[[tuple[float, ...]], Law]:
        return lru_cache(maxsize=2)(lambda values: self.law(np.array(values)))

    @property
    def bounds(self) -> tuple[Array, Array]:
        known = getattr(self.family, "bounds", {})
        pairs = [known.get(name, (-np.inf, np.inf)) for name in self.free]
        return np.array([low for low, _ in pairs]), np.array([high for _, high in pairs])

    def ordered(self, values: Array) -> Array:
        """One form of parameters that mean the same law: atoms ascend."""
        if not isinstance(self.family, Family):
            return values
        return np.array(list(self.family.ordered(self.named(values)).values()))


def problem(
    family: Callable[..., Law],
    fixed: Mapping[str, float],
    start: Mapping[str, float],
    unit: float,
) -> Problem:
    """What is to be found; an unknown or a missing parameter is refused."""
    if not callable(family):
        raise TypeError(
            f"family must be a law class or a callable that returns a law, got {family!r}; "
            "rmthess.family(name) finds one by its name"
        )
    own = family.parameters if isinstance(family, Family) else inspect.signature(family).parameters
    names = list(own)
    unknown = sorted((set(fixed) | set(start)) - set(names))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; the family has {', '.join(names)}")
    free = tuple(name for name in names if name not in fixed)
    if not free:
        raise ValueError("every parameter is fixed; nothing is left to fit")
    return Problem(family, free, dict(fixed), unit)


# ---------------------------------------------------------------------------- start


def begin_at(
    task: Problem, instrument: Instrument, measure: SpectralMeasure, start: Mapping[str, float]
) -> Array:
    """Where the descent begins: ``start``, and for what it leaves out moments or a search."""
    missing = [name for name in task.free if name not in start]
    found = dict(start)
    if missing:
        estimate = getattr(task.family, "moment_estimate", None)
        box = getattr(task.family, "box", None)
        cut = getattr(task.family, "cut_estimate", None)
        if estimate is not None:
            guesses = [{**each(measure), **start} for each in (estimate, cut) if each is not None]
            found = dict(_nearer(task, instrument, guesses))
        elif box is not None:
            found = {**task.named(_search(task, instrument, box(measure))), **start}
        else:
            raise ValueError(f"pass start={{...}} with a first guess of {', '.join(missing)}")
    values = np.array([float(found[name]) for name in task.free])
    if not np.isfinite(values).all():
        raise ValueError(f"start must be finite, got {task.named(values)}")
    task.law(values)  # a start outside the range is the caller's to mend
    return values


def _nearer(
    task: Problem, instrument: Instrument, guesses: Sequence[Mapping[str, float]]
) -> Mapping[str, float]:
    """The guess whose law is nearest to the data; the first where there is no other."""
    if len(guesses) == 1:
        return guesses[0]
    observed, distances = instrument.observe(), []
    for guess in guesses:
        try:
            expected = instrument.expect(task.law(np.array([guess[name] for name in task.free])))
            distances.append(float(np.linalg.norm(expected - observed)))
        except ValueError:
            distances.append(np.inf)
    return guesses[int(np.argmin(distances))]


def _search(task: Problem, instrument: Instrument, box: Mapping[str, tuple[float, float]]) -> Array:
    low, high = (np.array([box[name][k] for name in task.free]) for k in (0, 1))
    logarithmic = low > 0  # a positive parameter is looked for by its size
    share = quasi_random(POINTS, low.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = np.where(logarithmic, low * (high / low) ** share, low + share * (high - low))
    seen, glance = instrument.glance(len(task.free) + 1)
    scale = np.maximum(np.abs(seen), 1e-3 * np.abs(seen).max())

    def misfit(values: Array) -> Array:
        try:
            return np.asarray((glance(task.law(values)) - seen) / scale)
        except (ValueError, np.linalg.LinAlgError):
            return np.full(seen.shape, 1e6)

    costs = np.array([np.sum(misfit(point) ** 2) for point in points])

    improved = [
        least_squares(
            misfit, point, bounds=task.bounds, x_scale=np.maximum(np.abs(point), 1e-6),
            diff_step=1e-6, max_nfev=60,
        )
        for point in points[np.argsort(costs)[:_BEST]]
    ]  # fmt: skip
    return np.asarray(min(improved, key=lambda found: float(found.cost)).x)


def quasi_random(count: int, dimension: int) -> Array:
    """Points (count, dimension) in (0, 1): n (1/φ, 1/φ², ...) mod 1, φ^(d+1) = φ + 1.

    The additive recurrence of the generalised golden ratio: of low discrepancy for every count.
    Roberts, "The unreasonable effectiveness of quasirandom sequences" (2018).
    """
    golden = 2.0
    for _ in range(60):
        golden = (1 + golden) ** (1 / (dimension + 1))
    steps = golden ** -np.arange(1.0, dimension + 1)
    return (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1


# ---------------------------------------------------------------------------- descent


@dataclass(frozen=True)
class Nearest:
    """The nearest law, its distance, the slope of its coordinates, and what speaks against it."""

    law: Law
    parameters: Mapping[str, float]
    distance: float
    jacobian: Array
    at_bound: tuple[str, ...]
    doubt: str

    @property
    def values(self) -> Array:
        return np.array(list(self.parameters.values()))


def nearest(task: Problem, instrument: Instrument, observed: Array, begin: Array) -> Nearest:
    """argmin |observed - expected(family(**p))|, from ``begin``."""
    if observed.size < begin.size:
        raise ValueError(
            f"{observed.size} coordinates cannot determine {begin.size} parameters "
            f"({', '.join(task.free)}); measure with more steps, or fix some of them"
        )
    low, high = task.bounds
    low = low + np.where(low == 0, 1e-9, 0.0) * np.maximum(np.abs(begin), 1e-300)

    @lru_cache(maxsize=2)  # the minimiser asks for the slopes where it has just been
    def at(point: tuple[float, ...]) -> Array:
        try:
            expected = instrument.expect(task.multiple(np.array(point)))
        except ValueError:  # a step out of the family's range: the minimiser takes a shorter one
            return np.full(observed.shape, np.inf)
        return np.asarray((expected - observed) / task.unit)

    def misfit(values: Array) -> Array:
        return at(tuple(values))

    def descend(values: Array) -> Any:
        # A cost that falls by less than 1e-5 of itself falls by the roundings of its slopes, for as
        # many steps as it took to get there (log-normal populations through Lanczos). At 1e-4 the
        # descent would stop, and say that it has converged, in a bent valley that goes on.
        return least_squares(
            misfit, np.clip(values, low, high), _jacobian(misfit, low, high, begin),
            bounds=(low, high), x_scale="jac", xtol=1e-6, ftol=1e-5, gtol=1e-12,
        )  # fmt: skip

    solution = descend(begin)
    values = task.ordered(solution.x)
    if not np.array_equal(values, solution.x):
        solution = descend(values)  # at the bottom already: for the slopes in this order
    at_bound = _ends(task, solution.x, low, high, begin)
    doubts = []
    if not solution.success:
        doubts.append(f"The minimisation did not converge: {solution.message}")
    if at_bound:
        doubts.append(f"At the end of its range: {', '.join(at_bound)}. The family does not fit.")
    parameters = task.named(solution.x)
    return Nearest(
        task.law(solution.x), parameters, float(np.linalg.norm(solution.fun)) * task.unit,
        solution.jac * task.unit, at_bound, " ".join(doubts),
    )  # fmt: skip


def _jacobian(
    misfit: Callable[[Array], Array], low: Array, high: Array, begin: Array
) -> Callable[[Array], Array]:
    """Differences (coordinates, parameters) to the side where the family is defined."""

    def slopes(values: Array) -> Array:
        here, columns = misfit(values), []
        sizes = np.maximum(np.abs(values), 1e-3 * np.abs(begin))
        for k, size in enumerate(sizes):
            column = np.zeros_like(here)
            for step in (1e-6, -1e-6):
                moved = values.copy()
                moved[k] += step * (size or 1.0)
                there = misfit(moved) if low[k] <= moved[k] <= high[k] else np.array([np.inf])
                if np.isfinite(there).all():
                    column = (there - here) / (moved[k] - values[k])
                    break
            columns.append(column)
        return np.array(columns).T

    return slopes


def _ends(task: Problem, values: Array, low: Array, high: Array, begin: Array) -> tuple[str, ...]:
    """Parameters at an end of their range, to 1e-5 of it where it is finite."""
    finite = np.isfinite(low) & np.isfinite(high)
    width = np.where(finite, high, 0.0) - np.where(finite, low, 0.0)
    sizes = [np.maximum(width, np.where(np.isfinite(end), np.abs(end), 0.0)) for end in (low, high)]
    bottom = low + np.maximum(1e-5 * sizes[0], 1e-9 * np.abs(begin))
    top = high - 1e-5 * sizes[1]
    at = (values <= bottom) | (values >= top)
    return tuple(name for name, close in zip(task.free, at, strict=True) if close)


# ---------------------------------------------------------------------------- identifiability


@dataclass(frozen=True)
class Inverse:
    """Parameter steps that follow a deviation of the coordinates, (parameters, coordinates).

    ``weakest`` (parameters,): the change of parameters that moves the coordinates least, its
    ``effect`` relative to what its parts would do alone; 1 where each acts on its own.
    """

    matrix: Array
    weakest: Array
    effect: float

    @property
    def singular(self) -> bool:
        return self.effect < _SINGULAR


def inverse(jacobian: Array) -> Inverse:
    """The pseudo-inverse, by singular values of the Jacobian with columns of norm 1."""
    norms = np.linalg.norm(jacobian, axis=0)
    sizes = np.where(norms > 0, norms, 1.0)
    left, strengths, right = np.linalg.svd(jacobian / sizes, full_matrices=False)
    kept = strengths > _SINGULAR
    matrix = (right[kept].T / strengths[kept]) @ left[:, kept].T / sizes[:, None]
    weakest = right[-1] / sizes
    return Inverse(matrix, weakest / np.abs(weakest).max(), float(strengths[-1]))


def combination(task: Problem, direction: Array) -> str:
    """``ratio +1, variance -0.8``: a direction in the space of parameters, in words."""
    size = np.abs(direction).max()
    parts = [
        f"{name} {value / size:+.2g}"
        for name, value in zip(task.free, direction, strict=True)
        if abs(value) > 0.02 * size
    ]
    return ", ".join(parts)
