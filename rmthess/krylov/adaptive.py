"""How far to go: a number of steps and probes, or until a stated precision is reached."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from rmthess import jacobi
from rmthess.measure import LanczosMeasure, check_order

_FIRST = 8  # probes before their scatter is believed: it is then known to 27 %


@dataclass(frozen=True)
class Goal:
    """At most ``steps`` and ``probes``, less once ``outliers`` and ``tolerance`` are met.

    ``outliers``: how many eigenvalues of largest modulus must have converged, in every probe.
    ``tolerance``: for ``band``.
    """

    steps: int
    probes: int
    outliers: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check_order("steps", self.steps)
        check_order("probes", self.probes)
        if self.outliers is not None:
            check_order("outliers", self.outliers)
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(
                f"tolerance must be positive, got {self.tolerance}; it is the standard error of "
                "the cdf, averaged over the range"
            )

    def has_steps(self, measured: LanczosMeasure | None, eps: float) -> bool:
        """Whether no further step is needed."""
        if self.outliers is None or measured is None:
            return False
        return min(converged(measured, eps)) >= self.outliers

    def more_probes(self, measured: LanczosMeasure | None) -> int:
        """How many to add: the scatter falls like 1/sqrt(probes), but at most as many again."""
        if measured is None:
            return self.probes if self.tolerance is None else min(_FIRST, self.probes)
        left = self.probes - measured.probes
        if left <= 0 or self.tolerance is None:
            return max(left, 0)
        excess = (band(measured) / self.tolerance) ** 2
        if not excess > 1:  # NaN for one probe
            return 0 if excess <= 1 else left
        needed = ceil(measured.probes * (excess - 1))
        return min(left, needed, measured.probes)

    def report(self, measured: LanczosMeasure, eps: float) -> dict[str, str]:
        """Why it stopped, for the provenance."""
        return {
            "steps": self._report_steps(measured, eps),
            "probes": self._report_probes(measured),
        }

    def _report_steps(self, measured: LanczosMeasure, eps: float) -> str:
        if self.outliers is None:
            return "as asked"
        reached = converged(measured, eps)
        what = f"the {self.outliers} eigenvalues of largest modulus"
        good = sum(count >= self.outliers for count in reached)
        if good == len(reached):
            return f"converged: {what} in every probe"
        if measured.steps < self.steps:
            return f"converged: {what} in the first probes, and in {good} of all {len(reached)}"
        return (
            f"limit reached: {measured.steps} steps, after which only {min(reached)} of {what} "
            "have converged in every probe"
        )

    def _report_probes(self, measured: LanczosMeasure) -> str:
        if self.tolerance is None:
            return "as asked"
        found = band(measured)
        if found <= self.tolerance:
            return f"converged: band {found:.1e} of the range"
        return (
            f"limit reached: {measured.probes} probes leave a band of {found:.1e} of the range, "
            f"above the tolerance of {self.tolerance:.1e}"
        )


def band(measured: LanczosMeasure) -> float:
    """∫ s(x) dx / range, s(x) the standard error over probes of the cdf at x; NaN for one probe.

    √(2/π) of it is the Wasserstein distance, in units of the range, to be expected between this
    average and that of infinitely many probes. Deflated eigenvalues count for neither.

    >>> round(band(LanczosMeasure([[0.0], [1.0]], [[], []], [0, 0], dim=5)), 12)
    0.5
    """
    rules = measured.bulk
    x = rules.breakpoints
    if x.size < 2:
        return 0.0
    s = rules.standard_error(lambda rule: rule.cdf(x[:-1]))
    return float(np.diff(x) @ s / (x[-1] - x[0]))


def converged(measured: LanczosMeasure, eps: float) -> list[int]:
    """How many Ritz values, counted from the largest modulus down, have converged in each probe.

    Converged: its residual is at most sqrt(eps) of the largest, so that its error, about
    residual²/gap, is rounding. A chain that has broken down has all it can have: counted as dim.
    """
    found = []
    for a, b, last in zip(
        measured.diagonals, measured.off_diagonals, measured.residuals, strict=True
    ):
        nodes, _, residuals = jacobi.ritz(a, b, last)
        order = np.argsort(-np.abs(nodes))
        poor = np.flatnonzero(residuals[order] > np.sqrt(eps) * np.abs(nodes[order[0]]))
        found.append(int(poor[0]) if poor.size else measured.dim if last == 0 else nodes.size)
    return found
