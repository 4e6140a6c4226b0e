"""Fit a law to a measured spectrum, and say whether it holds.

The fit minimises the distance between measurement and law in the coordinates of the instrument that
measured (``rmthess/instrument.py``). Random matrices of the fitted law, carried through the same
instrument, then give the standard errors, the bias to subtract, the distance that a true law would
show, and the p-value: the share of them that lie farther from their own best fit than the data do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from rmthess.instrument import EigenvalueInstrument, Instrument, Window, instrument_of
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.laws.semicircle import Semicircle
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure, check_order

Array = NDArray[np.float64]

FAMILIES: Mapping[str, type[Law]] = {"semicircle": Semicircle, "marchenko_pastur": MarchenkoPastur}


LEVEL = 0.01  # a law is refused where fewer of its own matrices lie as far away


@dataclass(frozen=True)
class Fit:
    """The outcome of :func:`fit`.

    ``distance`` between data and best fit, in units of the standard deviation of the data, beside
    ``expected_distance``, its mean over matrices for which the law is true; ``p_value`` the share
    of those that lie at least as far away, of the ``draws`` that were made. ``standard_errors``
    assume the law; where it is refused they say how well a best fit is determined, not how near it
    is to anything.
    """

    law: Law
    parameters: Mapping[str, float]
    standard_errors: Mapping[str, float]
    distance: float
    expected_distance: float
    p_value: float
    draws: int
    converged: bool
    message: str

    def accepted(self, level: float = LEVEL) -> bool:
        """True where the data could refuse the law at this level, and do not.

        False without a p-value, and with fewer than 1/level - 1 draws, which cannot refuse
        anything.
        """
        decidable = (1 + self.draws) * level >= 1
        return bool(self.converged and decidable and self.p_value > level)

    def __str__(self) -> str:
        fitted = "   ".join(
            f"{name} {format_uncertain(value, self.standard_errors[name])}"
            for name, value in self.parameters.items()
        )
        expected = (
            f", expected {self.expected_distance:.2g} if true"
            if np.isfinite(self.expected_distance)
            else ""
        )
        lines = [f"{fitted}   distance {self.distance:.2g}{expected}", self.message]
        return "\n".join(line for line in lines if line)


def format_uncertain(value: float, error: float) -> str:
    """``value ± error`` with two digits of the error: 0.4012 ± 0.0021."""
    if not (np.isfinite(error) and error > 0):
        return f"{value:.4g}"
    decimals = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def fit(
    family: Callable[..., Law],
    measure: DiscreteMeasure | LanczosMeasure,
    *,
    window: Window | None = None,
    fixed: Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
    dim: int | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> Fit:
    """argmin_p |observed - expected(family(**p))| in the instrument's coordinates.

    family: a law class, or any callable of named parameters that returns a law.
    measure: a LanczosMeasure, or a DiscreteMeasure of all eigenvalues.
    window: (left, right), only the bulk between them is fitted; the rest is left out.
    fixed: parameters that are known. start: where to begin, needed for a callable that is no class.
    dim: side of the matrix, where the measure does not state it.
    bootstrap: number of random matrices that calibrate the fit; 0 leaves errors and p-value NaN.

    Parameters are corrected for the O(1/dim) bias that the bootstrap shows. Each bootstrap matrix
    is refitted by one linearised step from the best fit (errors of second order in the noise).

    >>> import numpy as np
    >>> from rmthess import DiscreteMeasure, Semicircle
    >>> values = Semicircle(0.5).sample(300, np.random.default_rng(1))
    >>> found = fit(Semicircle, DiscreteMeasure.from_eigenvalues(values), bootstrap=100)
    >>> found.accepted()
    True
    """
    if check_order("bootstrap", bootstrap, least=0) == 1:
        raise ValueError("bootstrap must be 0 or at least 2, got 1: one matrix shows no spread")
    instrument = instrument_of(measure, window, dim)
    seen = measure if window is None else measure.restrict(window)
    unit = _spread(seen)
    free, begin = _start(family, seen, dict(fixed or {}), start)
    best = _nearest(family, instrument, free, begin, dict(fixed or {}), unit)
    draws, why_not = _draws(instrument, best.law, bootstrap, seed)
    notes = [note for note in (best.doubt, why_not) if note]
    if draws is None:
        missing = dict.fromkeys(free, float("nan"))
        return Fit(
            best.law, best.parameters, missing, best.distance / unit, float("nan"), float("nan"),
            0, not best.doubt, " ".join(notes),
        )  # fmt: skip

    # one linearised step refits each draw; what it leaves is the draw's own distance
    deviations = draws - instrument.expect(best.law)
    steps = deviations @ np.linalg.pinv(best.jacobian).T
    remaining = np.linalg.norm(deviations - steps @ best.jacobian.T, axis=1)
    as_far = int(np.count_nonzero(remaining >= best.distance))
    p_value = (1 + as_far) / (1 + bootstrap) if not best.doubt else float("nan")
    expected = float(remaining.mean())
    law, parameters = best.law, best.parameters
    if not best.doubt:
        values = np.array(list(parameters.values())) - steps.mean(axis=0)
        law, parameters = _corrected(family, free, values, dict(fixed or {})) or (law, parameters)
        notes.append(_verdict(best.distance / expected, p_value, as_far, bootstrap))
    errors = dict(zip(free, map(float, steps.std(axis=0, ddof=1)), strict=True))
    return Fit(
        law, parameters, errors, best.distance / unit, expected / unit, p_value, bootstrap,
        not best.doubt, " ".join(notes),
    )  # fmt: skip


def _spread(seen: DiscreteMeasure | LanczosMeasure) -> float:
    """Standard deviation of the data; an atom has none, and no law with a density fits it."""
    left, right = seen.quantile(np.array([0.0, 1.0]))
    if right - left <= 1e-12 * max(abs(left), abs(right)):
        raise ValueError(
            f"the spectrum is one atom at {left:g}, and no law with a density fits an atom; "
            "look at a window that holds more of it"
        )
    mean = float(seen.moment(1))
    return float(np.sqrt(seen.integrate(lambda x: (x - mean) ** 2)))


def _start(
    family: Callable[..., Law],
    measure: SpectralMeasure,
    fixed: Mapping[str, float],
    start: Mapping[str, float] | None,
) -> tuple[list[str], Array]:
    """Names of the free parameters and where to begin."""
    if not callable(family):
        raise TypeError(
            f"family must be a law class or a callable that returns a law, got {family!r}"
        )
    names = list(inspect.signature(family).parameters)
    unknown = sorted((set(fixed) | set(start or {})) - set(names))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; the family has {', '.join(names)}")
    free = [name for name in names if name not in fixed]
    if not free:
        raise ValueError("every parameter is fixed; nothing is left to fit")
    begin = dict(start or {})
    if any(name not in begin for name in free):
        estimate = getattr(family, "moment_estimate", None)
        if estimate is None:
            missing = [name for name in free if name not in begin]
            raise ValueError(f"pass start={{...}} with a first guess of {', '.join(missing)}")
        begin = {**estimate(measure), **begin}
    values = np.array([float(begin[name]) for name in free])
    if not np.isfinite(values).all():
        raise ValueError(f"start must be finite, got {dict(zip(free, map(float, values)))}")
    return free, values


@dataclass(frozen=True)
class _Nearest:
    """The nearest law of the family, its distance, and the slope of its coordinates."""

    law: Law
    parameters: Mapping[str, float]
    distance: float
    jacobian: Array
    doubt: str


def _nearest(
    family: Callable[..., Law],
    instrument: Instrument,
    free: list[str],
    begin: Array,
    fixed: Mapping[str, float],
    unit: float,
) -> _Nearest:
    observed = instrument.observe()
    if observed.size < len(free):
        raise ValueError(
            f"{observed.size} coordinates cannot determine {len(free)} parameters "
            f"({', '.join(free)}); measure with more steps, or fix some of them"
        )

    def named(values: Array) -> dict[str, float]:
        return dict(zip(free, map(float, values), strict=True))

    def misfit(values: Array) -> Array:
        try:
            law = family(**named(values), **fixed)
        except ValueError:  # a step out of the family's range: the minimiser takes a shorter one
            return np.full(observed.shape, np.inf)
        return (instrument.expect(law) - observed) / unit

    family(**named(begin), **fixed)  # a start outside the range is the caller's to mend
    bounds = [getattr(family, "bounds", {}).get(name, (-np.inf, np.inf)) for name in free]
    tiny = np.array([1e-9 if edge == 0 else 0.0 for edge, _ in bounds])
    low = np.array([edge for edge, _ in bounds]) + tiny * np.maximum(begin, 1e-300)
    high = np.array([edge for _, edge in bounds])
    solution = least_squares(
        misfit, np.clip(begin, low, high), bounds=(low, high), x_scale="jac", diff_step=1e-6,
        xtol=1e-12, ftol=1e-14, gtol=1e-14,
    )  # fmt: skip
    at_end = [
        name
        for name, value, edge in zip(free, solution.x, low, strict=True)
        if np.isfinite(edge) and value <= 1.01 * edge
    ]
    doubts = []
    if not solution.success:
        doubts.append(f"The minimisation did not converge: {solution.message}")
    if at_end:
        doubts.append(f"At the end of its range: {', '.join(at_end)}. The family does not fit.")
    parameters = named(solution.x)
    return _Nearest(
        family(**parameters, **fixed), parameters, float(np.linalg.norm(solution.fun)) * unit,
        solution.jac * unit, " ".join(doubts),
    )  # fmt: skip


def _corrected(
    family: Callable[..., Law], free: list[str], values: Array, fixed: Mapping[str, float]
) -> tuple[Law, Mapping[str, float]] | None:
    """The law with its bias taken off, or None where that leaves the family's range."""
    parameters = dict(zip(free, map(float, values), strict=True))
    try:
        return family(**parameters, **fixed), parameters
    except ValueError:
        return None


def _draws(instrument: Instrument, law: Law, count: int, seed: int) -> tuple[Array | None, str]:
    """Coordinates (count, n) of random matrices of the law, or None and the reason."""
    if count == 0:
        return None, "No p-value: bootstrap = 0."
    if law.ensemble is None:
        return None, f"No p-value: {type(law).__name__} has no canonical matrix ensemble."
    if instrument.dim is None:
        return None, "No p-value: the side of the matrix is unknown; pass dim=."
    if isinstance(instrument, EigenvalueInstrument) and np.ptp(instrument.seen.weights) > 1e-12:
        return None, "No p-value: nodes of unequal weight are not the eigenvalues of a matrix."
    seeds = np.random.SeedSequence(seed).spawn(count)
    draws = [instrument.draw(law, np.random.default_rng(child)) for child in seeds]
    return np.array(draws), ""


def _verdict(ratio: float, p_value: float, as_far: int, count: int) -> str:
    times = f"{ratio:.2g} times the distance expected if it were true"
    if p_value > LEVEL and as_far == 0:
        return f"Undecided: {times}; none of {count} random matrices is as far, ask for 200."
    if p_value > LEVEL:
        return f"Not refused (p = {p_value:.2g}): {times}."
    return f"Refused (p {'=' if as_far else '≤'} {p_value:.2g}): {times}."
