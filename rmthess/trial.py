"""The data beside random matrices of the law that fits them best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmthess.instrument import Draws, Instrument
from rmthess.nearest import Inverse, Nearest, Problem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """What the draws say: ``refits`` (draws, parameters) and the departure of the data.

    ``expected`` the mean distance of a draw to its own best fit; ``as_far`` the number of draws
    that depart at least as much as the data; ``where`` the departure of the data is largest.
    """

    refits: Array
    expected: float
    as_far: int
    p_value: float
    where: str


def trial(
    task: Problem,
    instrument: Instrument,
    best: Nearest,
    drawn: Nearest,
    draws: Draws,
    inverse: Inverse,
    centred: bool,
) -> Trial:
    """One linearised step refits each draw; what it leaves are the draw's own distance and moments.

    The departure of a matrix is the largest of: its distance, and the sums of its first 1, 2, ...
    squared moments, each standardised. So a smooth departure shows in few moments and a rough one
    in the distance; how far a true law departs is read off the draws themselves. Every matrix is
    measured against all others, the data among them: one more draw would be treated no differently.
    ``drawn`` is the fit whose law was drawn, ``best`` the one to be judged. ``centred``: the mean
    of the n draws was taken off. It scatters too, nearer to each of them by a variance of 1/n and
    as much farther from the data: so their distances count √((n + 1)/(n - 1)) times.
    """
    deviations = draws.coordinates - instrument.expect(best.law)
    steps = deviations @ inverse.matrix.T
    distances = np.linalg.norm(deviations - steps @ best.jacobian.T, axis=1)
    if centred:
        distances *= np.sqrt((len(distances) + 1) / (len(distances) - 1))
    refits, reference = best.values + steps, drawn.law
    slopes = _moment_slopes(task, instrument, drawn)
    moments = draws.moments - (refits - drawn.values) @ slopes
    seen = instrument.observed_moments(reference) - (best.values - drawn.values) @ slopes
    far = 1e100 * moments.std(axis=0)
    together = np.vstack([moments, np.clip(seen, moments[0] - far, moments[0] + far)])
    squares = np.cumsum(_standardised(together) ** 2, axis=1)
    away = np.append(distances, best.distance) ** 2
    table = _standardised(np.column_stack([away, squares]))
    *departures, own = table.max(axis=1)
    largest = int(np.argmax(table[-1]))
    as_far = int(np.count_nonzero(departures >= own))
    return Trial(
        refits=refits,
        expected=float(distances.mean()),
        as_far=as_far,
        p_value=(1 + as_far) / (1 + len(distances)),
        where="in the distance" if largest == 0 else f"in the moments up to degree {largest}",
    )


def _standardised(table: Array) -> Array:
    """Each row by the mean and the standard deviation, column by column, of all the others.

    x - mean(others) is N/(N - 1) of d = x - mean(all), and the squares of the others add up to
    those of all less d² N/(N - 1).
    """
    share = len(table) / (len(table) - 1)
    off = table - table.mean(axis=0)
    whole = np.square(off).sum(axis=0)
    others = np.maximum(whole - share * off**2, np.finfo(float).eps * whole)
    return np.asarray(share * off / np.sqrt(np.where(whole > 0, others, 1.0) / (len(table) - 1)))


def _moment_slopes(task: Problem, instrument: Instrument, best: Nearest) -> Array:
    """How the expected moments move with each free parameter, (parameters, moments)."""
    here = instrument.expected_moments(best.law, best.law)
    slopes = []
    for k, value in enumerate(best.values):
        size = 1e-5 * (abs(value) or 1.0)
        for step in (size, -size):
            values = best.values
            values[k] += step
            try:
                there = instrument.expected_moments(task.law(values), best.law)
            except ValueError:  # out of the family's range: look to the other side
                continue
            slopes.append((there - here) / step)
            break
        else:
            slopes.append(np.zeros_like(here))
    return np.array(slopes)
