"""Numbers read off a spectral measure, each with its error and with what it cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.measure import DiscreteMeasure, LanczosMeasure
from rmthess.ranks.numerical import numerical_rank

Array = NDArray[np.float64]

ISOLATION = 10.0  # the next Ritz value is that many times farther from zero than the one at zero
NEGLIGIBLE = 0.01  # of an eigenvalue: a Ritz value of less weight is on its way between two others
HALF = 0.5  # of an eigenvalue: an undecided count below it changes no integer


@dataclass(frozen=True)
class Inertia:
    """How many eigenvalues are negative, null and positive; None where that cannot be decided.

    ``errors`` holds the standard errors of the three, over probes, and what of a count the rule
    leaves open.  ``resolution``: eigenvalues within ± that count as null, 0 where none do.
    ``most_null`` is at least the null count, within the error over probes, also where nothing is
    decided.
    """

    negative: float | None
    null: float | None
    positive: float | None
    errors: tuple[float, float, float]
    resolution: float
    most_null: float
    dim: int
    doubt: str = ""

    def __str__(self) -> str:
        if self.null is None:
            return (
                f"inertia of {self.dim} eigenvalues cannot be decided at this resolution: "
                f"{self.doubt}"
            )
        counts = (
            f"{value:.1f} ± {error:.1f} {name}" if error else f"{value:.0f} {name}"
            for name, value, error in zip(
                ("negative", "null", "positive"),
                (self.negative, self.null, self.positive),
                self.errors,
                strict=True,
            )
        )
        null = f"null is within ± {self.resolution:.1e}" if self.resolution else "null is exactly 0"
        return f"{', '.join(counts)} of {self.dim}; {null}"


def inertia(measure: LanczosMeasure | DiscreteMeasure) -> Inertia:
    """Counts of negative, null and positive eigenvalues of the matrix behind a measure.

    All eigenvalues known: counted, where ``numerical_rank`` sees a gap.  Lanczos: the Gauss–Radau
    rule with a node at x brackets each probe's measure (Chebyshev, Markov, Stieltjes)::

        Σ_{θ < x} w  ≤  μ(-∞, x)  ≤  μ(-∞, x]  ≤  Σ_{θ ≤ x} w

    and the weight ρ(x) between the two is the most that can sit at x.  The counts are decided

    * if dim · ρ(0) is below half an eigenvalue: nothing is null; or
    * if each probe has one Ritz value at zero, known to within a tenth of the distance of the next
      one, and ρ(± δ), δ between the two, leaves less open than the probes scatter.

    Otherwise there may be small eigenvalues where these steps see zeros, and the answer is that it
    cannot be decided: more steps, or a null space that is known and projected out, would help.

    >>> print(inertia(DiscreteMeasure.from_eigenvalues([-2.0, 1e-17, 1.0, 3.0])))
    1 negative, 1 null, 2 positive of 4; null is within ± 5.2e-08
    """
    if isinstance(measure, LanczosMeasure):
        return _with_deflated(_of_probes(measure.bulk), measure.deflated)
    if isinstance(measure, DiscreteMeasure):
        return _of_eigenvalues(measure)
    raise TypeError(
        f"inertia counts eigenvalues of a measured spectrum, got {type(measure).__name__}; "
        "a law has masses: law.cdf(0) and law.atoms"
    )


def _with_deflated(found: Inertia, deflated: Array) -> Inertia:
    """The counts of a deflated run and of what was taken out of it."""
    dim = found.dim + deflated.size
    if found.negative is None or found.null is None or found.positive is None:
        return replace(found, dim=dim, most_null=found.most_null + np.count_nonzero(deflated == 0))
    null = int(np.count_nonzero(np.abs(deflated) <= found.resolution))
    negative = int(np.count_nonzero(deflated < -found.resolution))
    return replace(
        found,
        negative=found.negative + negative,
        null=found.null + null,
        positive=found.positive + deflated.size - null - negative,
        most_null=found.most_null + null,
        dim=dim,
    )


def _of_eigenvalues(measure: DiscreteMeasure) -> Inertia:
    dim, nodes = measure.dim, measure.nodes
    if dim != nodes.size or np.ptp(measure.weights) > 1e-12:
        raise ValueError(
            f"a measure of {nodes.size} weighted nodes has no eigenvalues to count; "
            "DiscreteMeasure.from_eigenvalues makes one that has"
        )
    rank = numerical_rank(nodes)
    if rank.value is None:
        return _undecided(dim, float(np.count_nonzero(np.abs(nodes) <= rank.threshold)), rank.doubt)
    order = np.argsort(-np.abs(nodes), kind="stable")
    seen = nodes[order[: rank.value]]
    negative = int(np.count_nonzero(seen < 0))
    return Inertia(
        negative=negative,
        null=dim - rank.value,
        positive=rank.value - negative,
        errors=(0.0, 0.0, 0.0),
        resolution=rank.threshold,
        most_null=dim - rank.value,
        dim=dim,
    )


def _of_probes(measure: LanczosMeasure) -> Inertia:
    dim = measure.dim
    at_zero = [_bracket(measure, probe, 0.0) for probe in range(measure.probes)]
    most_null = dim * float(np.mean([open_ for _, open_ in at_zero]))
    if most_null < HALF:
        return _counted(measure, at_zero, at_zero, 0.0, most_null)
    near, next_ = _nearest_to_zero(measure)
    if not ISOLATION * near < next_:
        return _undecided(
            dim,
            most_null,
            f"the Ritz values nearest to zero lie within {near:.1e} and {next_:.1e} of it and do "
            f"not stand apart after {measure.steps} steps; at most {most_null:.1f} eigenvalues are "
            "null. Take more steps, or project a null space out that is known",
        )
    width = float(np.sqrt(near * next_))
    below = [_bracket(measure, probe, -width) for probe in range(measure.probes)]
    above = [_bracket(measure, probe, width) for probe in range(measure.probes)]
    found = _counted(measure, below, above, near, most_null)
    left_open = dim * float(np.mean([pair[1] for pair in below + above]))
    if left_open > max(HALF, *found.errors):
        return _undecided(
            dim,
            most_null,
            f"up to {left_open:.1f} eigenvalues between {near:.1e} and {next_:.1e} are not told "
            f"from zero after {measure.steps} steps; take more",
        )
    return found


def _counted(
    measure: LanczosMeasure,
    below: list[tuple[float, float]],
    above: list[tuple[float, float]],
    resolution: float,
    most_null: float,
) -> Inertia:
    dim = measure.dim
    low, high = (np.array([mass + open_ / 2 for mass, open_ in end]) for end in (below, above))
    open_low, open_high = (float(np.mean([o for _, o in end])) for end in (below, above))
    counts = np.array([low, high - low, 1 - high]) * dim
    left_open = dim / 2 * np.array([open_low, open_low + open_high, open_high])
    if below is above:
        left_open[1] = counts[1].mean() + most_null
    scatter = (
        counts.std(axis=1, ddof=1) / np.sqrt(measure.probes)
        if measure.probes > 1
        else np.full(3, np.nan)
    )
    errors = np.hypot(scatter, left_open)
    return Inertia(
        negative=float(counts[0].mean()),
        null=float(counts[1].mean()),
        positive=float(counts[2].mean()),
        errors=(float(errors[0]), float(errors[1]), float(errors[2])),
        resolution=resolution,
        most_null=most_null,
        dim=dim,
    )


def _undecided(dim: int, most_null: float, doubt: str) -> Inertia:
    return Inertia(None, None, None, (np.nan,) * 3, np.nan, most_null, dim, doubt)


def _nearest_to_zero(measure: LanczosMeasure) -> tuple[float, float]:
    """How far, over all probes, the Ritz values at zero may be from it, and how near the next are.

    At zero: the nearest one, and copies of it that rounding made.  Those of no weight are left out:
    what they stand for is in ρ(± δ).
    """
    near, next_ = 0.0, np.inf
    for nodes, weights, errors in zip(measure.nodes, measure.weights, measure.errors, strict=True):
        kept = measure.dim * weights > NEGLIGIBLE
        order = np.argsort(np.abs(nodes[kept]))
        distances, reach = np.abs(nodes[kept])[order], (np.abs(nodes) + errors)[kept][order]
        rounding = measure.dim * np.finfo(float).eps * distances[-1] + 2 * np.nanmin(errors)
        copies = max(1, int(np.count_nonzero(distances <= rounding)))
        near = max(near, float(reach[:copies].max()))
        next_ = min(next_, float(distances[copies]) if copies < distances.size else np.inf)
    top = float(np.nanmax(np.abs(measure.nodes)))
    return near, min(next_, top)


def _bracket(measure: LanczosMeasure, probe: int, x: float) -> tuple[float, float]:
    """Mass below x of the Gauss–Radau rule with a node at x, and the weight of that node."""
    a, b = jacobi.leading_block(measure.diagonals[probe], measure.off_diagonals[probe])
    residual = float(measure.residuals[probe])
    if residual == 0 or a.size < measure.steps:  # a breakdown: the rule is the measure itself
        nodes, weights, _ = jacobi.ritz(a, b, residual)
        at = np.abs(nodes - x) <= measure.errors[probe][: nodes.size]
        return float(weights[(nodes < x) & ~at].sum()), float(weights[at].sum())
    below, up_to = jacobi.markov_stieltjes(a, b, residual, x)
    return float(below), float(up_to - below)
