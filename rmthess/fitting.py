"""Fit a law to a measured spectrum, and say whether it holds.

The fit minimises the distance between measurement and law in the coordinates of the instrument that
measured (``rmthess/instrument.py``). Random matrices of the fitted law, carried through the same
instrument, then give the standard errors, the bias to subtract, the distance that a true law would
show, and the p-value: the share of them that lie farther from their own best fit than the data do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.families import FAMILIES
from rmthess.instrument import (
    SHOWN,
    Axis,
    Draws,
    EigenvalueInstrument,
    Instrument,
    LogInstrument,
    LogLanczosInstrument,
    NoDraws,
    Window,
    instrument_of,
)
from rmthess.laws.law import Law
from rmthess.log_axis import log_spectrum
from rmthess.measure import DiscreteMeasure, LanczosMeasure, check_order
from rmthess.nearest import Inverse, Nearest, Problem, begin_at, combination, inverse, nearest
from rmthess.nearest import problem as problem_of
from rmthess.trial import Trial, trial

Array = NDArray[np.float64]

LEVEL = 0.01  # a law is refused where fewer of its own matrices lie as far away
_PILOT = 20  # draws that say how the side of the matrix shifts its coordinates
_FAINT = 0.03  # parameters whose effects cancel to this are asked whether the data tell them apart


@dataclass(frozen=True)
class Fit:
    """The outcome of :func:`fit`.

    ``distance`` between data and best fit, in units of the standard deviation of the data, beside
    ``expected_distance``, its mean over matrices for which the law is true; ``p_value`` the share
    of those that lie at least as far away, of the ``draws`` that were made. ``standard_errors``
    assume the law; where it is refused they say how well a best fit is determined, not how near it
    is to anything.

    ``at_bound`` names the parameters that ended at an end of their range, ``undetermined`` those
    of which only a combination is seen: their standard errors are infinite, or as large as they
    are. ``message`` says both in words, and everything else that speaks against the fit.
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
    at_bound: tuple[str, ...] = ()
    undetermined: tuple[str, ...] = ()

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
    axis: Axis = "linear",
    floor: float | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> Fit:
    """argmin_p |observed - expected(family(**p))| in the instrument's coordinates.

    family: a law class, any callable of named parameters that returns a law, or a ``Family``
        (``rmthess.family(name)``).
    measure: a LanczosMeasure, or a DiscreteMeasure of all eigenvalues.
    window: (left, right), only the bulk between them is fitted; the rest is left out.
    fixed: parameters that are known. start: where to begin, needed for a bare callable.
    dim: side of the matrix, where the measure does not state it.
    axis: "log" fits log10 λ of the eigenvalues above ``floor`` (default: rounding, or what a
        Lanczos run resolves), for bulks over many decades; the rest is left out, and the message
        says how much that is.
    bootstrap: number of random matrices that calibrate the fit; 0 leaves errors and p-value NaN.
        It is the budget: the fit itself takes 0.1 to 2 s, 200 matrices 0.3 to 4 s more (one core);
        with a population over many decades, of some 80 atoms, 3 to 7 s more.

    Outliers are no part of a family: deflate them before the run, or leave them out by ``window``.
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
    instrument = instrument_of(measure, window, dim, axis, floor)
    seen = _seen(measure, window)
    unit = _spread(seen)
    if isinstance(instrument, LogInstrument | LogLanczosInstrument):
        nodes = seen.pooled if isinstance(seen, LanczosMeasure) else seen
        seen = nodes.restrict((np.nextafter(instrument.floor, np.inf), np.inf))
        unit = _spread(instrument.seen)
    counted, rank = _counted(family, instrument, seen, fixed or {})
    task = problem_of(family, {**counted, **(fixed or {})}, start or {}, unit)
    observed = instrument.observe()
    best = nearest(task, instrument, observed, begin_at(task, instrument, seen, start or {}))
    limit = not best.doubt and not instrument.is_mean(best.law)  # expected as at infinite side
    try:
        if limit:
            best = _piloted(task, instrument, observed, best, min(bootstrap, _PILOT), seed)
        draws = _draw(instrument, best.law, bootstrap, seed)
    except NoDraws as reason:
        left_out = _left_out(instrument, measure)
        bare = _without_draws(task, best, f"No p-value: {reason} {rank}".strip(), left_out)
        return _with_counted(bare, counted, instrument.dim)
    drawn = best
    if limit and not best.doubt:
        draws, best = _at_its_side(task, instrument, observed, best, draws)

    step = inverse(best.jacobian)
    tried = trial(task, instrument, best, drawn, draws, step, centred=best is not drawn)
    p_value = tried.p_value if not best.doubt else float("nan")
    estimate, again = best.values, tried.refits
    notes = [best.doubt] if best.doubt else [_verdict(tried, best.distance, bootstrap)]
    likelihood = getattr(family, "likelihood_estimate", None)
    exact = isinstance(instrument, EigenvalueInstrument) and window is None and not fixed
    exact = exact and instrument.dim == draws.coordinates.shape[1]
    if likelihood is not None and exact and p_value > LEVEL:
        likely = [likelihood(row) for row in (seen.nodes, *_eigenvalues(draws))]
        values = np.array([[each[name] for name in task.free] for each in likely])
        estimate, again = values[0], values[1:]
        notes.append("Parameters by maximum likelihood.")
    spread, bias = again.std(axis=0, ddof=1), again.mean(axis=0) - drawn.values
    undetermined, sentence = _undetermined(task, best, step, again)
    if step.singular:
        spread = np.where(np.isin(task.free, undetermined), np.inf, spread)
    law, parameters = best.law, best.parameters
    if not best.doubt:
        inside = _corrected(task, estimate - bias)
        law, parameters = inside or (law, parameters)
        if inside is None:
            notes.append("Not corrected for bias: that would leave the range of the family.")
    notes += [
        rank, sentence, _missed(law, seen), _tail(instrument),
        _shown(instrument), _left_out(instrument, measure),
    ]  # fmt: skip
    found = Fit(
        law, parameters, dict(zip(task.free, map(float, spread), strict=True)),
        best.distance / unit, tried.expected / unit, p_value, bootstrap, not best.doubt,
        " ".join(note for note in notes if note), best.at_bound, undetermined,
    )  # fmt: skip
    return _with_counted(found, counted, instrument.dim)


def _counted(
    family: Callable[..., Law], instrument: Instrument, seen: Any, fixed: Mapping[str, float]
) -> tuple[Mapping[str, float], str]:
    """The parameter that a singular matrix tells by its rank, dim/rank, and a sentence.

    The zeros of all eigenvalues are counted, not measured, and between two counts the quantiles of
    a law stand still: no descent can find the ratio, and draws must have the rank of the data.
    """
    known = next((each for each in FAMILIES.values() if each.law is family), family)
    name = getattr(known, "rank_parameter", None)
    if name is None or name in fixed or not isinstance(instrument, EigenvalueInstrument):
        return {}, ""
    nodes, weights = seen.nodes, seen.weights
    zero = np.abs(nodes) <= nodes.size * np.finfo(float).eps * np.abs(nodes).max()
    if not zero.any() or zero.all():
        return {}, ""
    share = float(weights[~zero].sum())
    return {name: 1 / share}, (
        f"{name} by counting: {share:.4g} of the eigenvalues are not 0; its error is the rounding "
        "to whole numbers."
    )


def _with_counted(found: Fit, counted: Mapping[str, float], dim: float | None) -> Fit:
    """A rank known to ± 1/2, evenly: dim/rank with a standard error of ratio²/(dim √12)."""
    side = float("nan") if dim is None else dim
    errors = {name: value**2 / (side * np.sqrt(12)) for name, value in counted.items()}
    return replace(
        found,
        parameters={**counted, **found.parameters},
        standard_errors={**errors, **found.standard_errors},
    )


def _piloted(
    task: Problem, instrument: Instrument, observed: Array, best: Nearest, count: int, seed: int
) -> Nearest:
    """A law near to the one that will be found: that from which the draws are to come.

    Matrices of a law at their side lie off its limit by more than they scatter. A first few of them
    say by how much, and one linearised step follows: drawn from the law nearest in the limit, one
    true law in four was refused at 5% (sample covariance of side 400, 20 steps); now 6% are. A step
    that leads away from the data is not taken: where a parameter is undetermined, it may be wild.
    """
    pilot = _draw(instrument, best.law, count, seed)
    shift = pilot.coordinates.mean(axis=0) - instrument.expect(best.law)
    values = best.values - inverse(best.jacobian).matrix @ shift
    inside = _corrected(task, values)
    if inside is None:
        return best
    law, parameters = inside
    old, new = (
        float(np.linalg.norm(instrument.expect(each) + shift - observed))
        for each in (best.law, law)
    )
    return replace(best, law=law, parameters=parameters) if new <= old else best


def _at_its_side(
    task: Problem, instrument: Instrument, observed: Array, best: Nearest, draws: Draws
) -> tuple[Draws, Nearest]:
    """The draws less what the side of the matrix changes on average, and the law nearest to data
    less the same."""
    shift = draws.coordinates.mean(axis=0) - instrument.expect(best.law)
    found = nearest(task, instrument, observed - shift, best.values)
    return replace(draws, coordinates=draws.coordinates - shift), found


def _without_draws(task: Problem, best: Nearest, why: str, left_out: str) -> Fit:
    undetermined, sentence = _undetermined(task, best, inverse(best.jacobian), None)
    notes = (best.doubt, why, sentence, left_out)
    nan = float("nan")
    return Fit(
        best.law, best.parameters, dict.fromkeys(task.free, nan), best.distance / task.unit, nan,
        nan, 0, not best.doubt, " ".join(note for note in notes if note), best.at_bound,
        undetermined,
    )  # fmt: skip


def _seen(measure: DiscreteMeasure | LanczosMeasure, window: Window | None) -> Any:
    bulk = measure.bulk if isinstance(measure, LanczosMeasure) else measure
    return bulk if window is None else bulk.restrict(window)


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


def _corrected(task: Problem, values: Array) -> tuple[Law, Mapping[str, float]] | None:
    """The law with its bias taken off, or None where that leaves the family's range."""
    low, high = task.bounds
    if not ((values > low) & (values < high)).all():
        return None
    try:
        return task.law(values), task.named(values)
    except ValueError:
        return None


def _undetermined(
    task: Problem, best: Nearest, step: Inverse, refits: Array | None
) -> tuple[tuple[str, ...], str]:
    """Parameters that the data do not tell apart, and a sentence with their combination.

    Their effects cancel: to rounding, or so far that along this combination the draws scatter by
    more than half of a parameter.
    """
    faint = step.effect < _FAINT and refits is not None
    if faint and refits is not None:
        scatter = refits.std(axis=0, ddof=1)
        faint = bool((scatter > 0.5 * np.abs(best.values))[np.abs(step.weakest) > 0.02].any())
    if not (step.singular or faint):
        return (), ""
    names = tuple(
        name for name, part in zip(task.free, step.weakest, strict=True) if abs(part) > 0.02
    )
    how = "Undetermined" if step.singular else "Poorly determined"
    return names, (
        f"{how}: changed together by {combination(task, step.weakest)}, the parameters leave the "
        "spectrum as it is; fix one of them."
    )


def _missed(law: Law, seen: Any) -> str:
    """A sentence where the support of the law misses half of the measured mass."""
    ends = law.breakpoints[[0, -1]]
    slack = 0.05 * float(ends[1] - ends[0])
    outside = (
        float(seen.cdf(np.nextafter(ends[0] - slack, -np.inf)))
        + 1
        - float(seen.cdf(ends[1] + slack))
    )
    if outside <= 0.5:
        return ""
    return (
        f"The law lies on {ends[0]:.4g} to {ends[1]:.4g} and misses {outside:.0%} of the spectrum."
    )


def _tail(instrument: Instrument) -> str:
    """A sentence where a few eigenvalues make up the whole distance."""
    if not isinstance(instrument, EigenvalueInstrument):
        return ""
    middle, ninth, top = np.abs(instrument.seen.quantile(np.array([0.5, 0.9, 1.0])))
    if not top > 100 * max(middle, 0.1 * ninth):
        return ""
    return (
        f"The largest eigenvalue is {top / max(middle, 1e-300):.2g} times the median: on this axis "
        'only the largest are seen; axis="log" sees all.'
    )


def _left_out(instrument: Instrument, measure: Any) -> str:
    """What a fit on the logarithmic axis does not look at."""
    if not isinstance(instrument, LogInstrument | LogLanczosInstrument):
        return ""
    return f"On the logarithmic axis: {log_spectrum(measure, instrument.floor)}."


def _shown(instrument: Instrument) -> str:
    """A sentence where not every eigenvalue is looked at."""
    if getattr(instrument, "chosen", None) is None:
        return ""
    return f"{SHOWN} of the eigenvalues were looked at, at even distances in rank."


def _draw(instrument: Instrument, law: Law, count: int, seed: int) -> Draws:
    if count == 0:
        raise NoDraws("bootstrap = 0.")
    return instrument.draw(law, count, seed)


def _eigenvalues(draws: Draws) -> Array:
    return np.asarray(draws.coordinates * np.sqrt(draws.coordinates.shape[1]))


def _verdict(tried: Trial, distance: float, count: int) -> str:
    times = f"{distance / tried.expected:.2g} times the distance expected if it were true"
    if tried.p_value > LEVEL and tried.as_far == 0:
        return f"Undecided: {times}; none of {count} random matrices is as far, ask for 200."
    if tried.p_value > LEVEL:
        return f"Not refused (p = {tried.p_value:.2g}): {times}."
    sign = "=" if tried.as_far else "≤"
    return f"Refused (p {sign} {tried.p_value:.2g}): {times}; it departs most {tried.where}."
