"""A prediction: the spectrum that a matrix should have, said before it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, SpectralMeasure, check_order
from rmthess.ranks.network import RankBound
from rmthess.spikes import Spike

Array = NDArray[np.float64]

STATUSES = ("theorem", "asymptotic", "heuristic")

_MOST_ATOMS = 4096


@dataclass(frozen=True)
class Prediction:
    """A bulk of dim - k eigenvalues and k outliers, one for each spike that has a location.

    ``dim`` is the side of the matrix, ``bulk`` the law of all its other eigenvalues (a
    DiscreteMeasure where they are known one by one), ``spikes`` one item an outlier: a multiple
    outlier stands there as often. ``rank`` is what is known of the rank, or None. ``assumptions``
    are the clauses of the sentence "Assumes ...", and ``status`` is that of the theory's page:
    theorem, asymptotic or heuristic.

    >>> from rmthess import Semicircle
    >>> from rmthess.spikes import additive
    >>> spike = additive(Semicircle(), 2.0)
    >>> print(Prediction(100, Semicircle(), (spike,), None, ("a spike of random direction",),
    ...       "asymptotic"))
    side 100, bulk -2 to 2
    outlier at 2.5 ± 0.122, overlap 0.7500
    Assumes a spike of random direction (asymptotic).
    """

    dim: int
    bulk: SpectralMeasure
    spikes: tuple[Spike, ...]
    rank: RankBound | None
    assumptions: tuple[str, ...]
    status: str

    def __post_init__(self) -> None:
        check_order("dim", self.dim)
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        if isinstance(self.assumptions, str):
            raise TypeError(f"assumptions must be a tuple of clauses, got {self.assumptions!r}")
        if self.locations.size >= self.dim:
            raise ValueError(
                f"{self.locations.size} outliers leave no bulk of a matrix of side {self.dim}"
            )

    @property
    def locations(self) -> Array:
        """The outliers, ascending; spikes that the bulk absorbs have none."""
        return np.sort([float(s.location) for s in self.spikes if s.location is not None])

    def eigenvalues(self) -> Array:
        """(dim,): the outliers, and the quantiles (i - 1/2)/(dim - k) of the bulk, ascending."""
        return np.sort(np.concatenate([self._quantiles(self.dim), self.locations]))

    def measure(self) -> DiscreteMeasure:
        """The spectral measure of one such matrix: weight 1/dim on each outlier, rest on the bulk.

        The bulk stands there as equal atoms at its quantiles: dim - k of them, or 4096 where that
        is fewer.
        """
        atoms = self._quantiles(_MOST_ATOMS)
        outliers = self.locations
        share = (1 - outliers.size / self.dim) / atoms.size
        weights = np.append(np.full(atoms.size, share), np.full(outliers.size, 1 / self.dim))
        return DiscreteMeasure(np.append(atoms, outliers), weights, self.dim)

    def _quantiles(self, most: int) -> Array:
        count = min(self.dim - self.locations.size, most)
        return np.asarray(self.bulk.quantile((np.arange(count) + 0.5) / count), float)

    def __str__(self) -> str:
        lines = [f"side {self.dim}, bulk {_intervals(self.bulk)}"]
        for spike in sorted(self.spikes, key=lambda s: (s.location is None, s.location or 0.0)):
            if spike.location is None:
                lines.append(str(spike))
                continue
            spread = spike.std(self.dim)
            more = f" ± {spread:.3g}" if np.isfinite(spread) else ""
            overlap = f", overlap {spike.overlap:.4f}" if np.isfinite(spike.overlap) else ""
            lines.append(f"outlier at {spike.location:.6g}{more}{overlap}")
        if self.rank is not None:
            lines.append(str(self.rank))
        return "\n".join([*lines, f"Assumes {'; '.join(self.assumptions)} ({self.status})."])


def transition(
    predict: Callable[[float], Prediction], low: float, high: float, tolerance: float = 1e-6
) -> float:
    """The parameter at which ``predict`` gains or loses an outlier, bisected to ``tolerance``.

    Near it the outlier is as far from the edge as the square of the distance in the parameter:
    much below 1e-6 the two are one double.

    >>> from rmthess import glm
    >>> def predict(length):
    ...     return glm("logistic", np.eye(1, 100).ravel() * length, samples=1000)
    >>> round(transition(predict, 1.0, 2.0), 4)
    1.2579
    """
    first, last = (predict(x).locations.size for x in (low, high))
    if first == last:
        raise ValueError(
            f"{first} outliers at {low:g} and at {high:g}: no transition is known between them"
        )
    while abs(high - low) > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if predict(middle).locations.size == first else (low, middle)
    return (low + high) / 2


def _intervals(bulk: SpectralMeasure) -> str:
    """Edges and atoms of a law; the ends of any other measure."""
    if not isinstance(bulk, Law):
        left, right = bulk.breakpoints[[0, -1]]
        return f"{left:.6g} to {right:.6g}"
    parts = [f"{float(left):.6g} to {float(right):.6g}" for left, right in bulk.support]
    if len(parts) > 4:
        ends = bulk.support[0][0], bulk.support[-1][1]
        parts = [f"{float(ends[0]):.6g} to {float(ends[1]):.6g} in {len(parts)} intervals"]
    parts += [f"{float(mass):.4g} of it at {float(x):.6g}" for x, mass in bulk.atoms]
    return " and ".join(parts)
