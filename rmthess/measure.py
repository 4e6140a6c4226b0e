"""Spectral measures: what theory predicts, what Lanczos returns, what a list of eigenvalues is.

A measure is a probability measure on the real line. It knows its *resolution*, the smallest width
at which it means anything: 0 for a law or for exact eigenvalues, about range/steps for Lanczos. No
bandwidth is hidden anywhere. Sign convention: m(z) = ∫ dμ(x)/(x - z).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess import jacobi

Array = NDArray[np.float64]


_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}  # float64: the default


class SpectralMeasure(ABC):
    """A probability measure on the real line."""

    resolution: float

    @abstractmethod
    def stieltjes(self, z: Any) -> Any:
        """m(z) = ∫ dμ(x)/(x - z); Im m > 0 where Im z > 0. Same shape as ``z``."""

    @abstractmethod
    def integrate(self, f: Callable[[Array], Array]) -> float:
        """∫ f dμ for a vectorised real function ``f``."""

    @abstractmethod
    def cdf(self, x: Any) -> Any:
        """μ((-∞, x]), right-continuous. Same shape as ``x``."""

    @abstractmethod
    def quantile(self, p: Any) -> Any:
        """inf{x : cdf(x) >= p} for p in [0, 1]; p = 0 gives the left end. Same shape as ``p``."""

    @property
    @abstractmethod
    def breakpoints(self) -> Array:
        """Sorted points between which the cdf is smooth: atoms and edges."""

    @abstractmethod
    def jacobi(self, steps: int) -> jacobi.Coefficients:
        """First Jacobi coefficients, diagonal (steps,) and off-diagonal (steps - 1,).

        NaN from the step where a measure of fewer atoms is used up.
        """

    def moment(self, order: int) -> Any:
        """∫ x^order dμ."""
        return self.integrate(lambda x: x ** check_order("order", order, least=0))

    def smoothed_density(self, x: ArrayLike, width: float) -> Array:
        """Im m(x + i width)/π: the measure convolved with a Cauchy density of that half-width."""
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}; it is the Cauchy half-width")
        return np.asarray(self.stieltjes(np.asarray(x, float) + 1j * width)).imag / np.pi


def check_order(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least ``least``, or a sentence that says what was given."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def check_probabilities(p: ArrayLike) -> Array:
    """``p`` as a float array within [0, 1]."""
    array = np.asarray(p, float)
    if array.size and not (np.min(array) >= 0 and np.max(array) <= 1):
        raise ValueError(f"p must lie in [0, 1], got values from {array.min()} to {array.max()}")
    return array


@dataclass(frozen=True, eq=False, init=False, repr=False)
class DiscreteMeasure(SpectralMeasure):
    """μ = Σ_i weights_i δ(nodes_i).

    ``nodes`` (n,) real, in any order (kept sorted); ``weights`` (n,) not negative, with sum 1;
    ``dim`` the side of the matrix whose spectrum this is, or None where there is no such matrix: it
    sets the size of finite-size fluctuations.

    >>> DiscreteMeasure([1.0, 3.0], [0.25, 0.75]).moment(1)
    2.5
    """

    nodes: Array
    weights: Array
    dim: int | None

    resolution = 0.0

    def __init__(self, nodes: ArrayLike, weights: ArrayLike, dim: int | None = None) -> None:
        nodes, weights = np.array(nodes, float), np.array(weights, float)
        if nodes.ndim != 1 or nodes.shape != weights.shape or nodes.size == 0:
            raise ValueError(
                "nodes and weights must be one-dimensional, of one length and not empty, "
                f"got shapes {nodes.shape} and {weights.shape}"
            )
        if not (np.isfinite(nodes).all() and np.isfinite(weights).all()):
            bad = int(
                np.count_nonzero(~np.isfinite(nodes)) + np.count_nonzero(~np.isfinite(weights))
            )
            raise ValueError(f"nodes and weights must be finite, got {bad} NaN or infinite values")
        if weights.min() < 0:
            raise ValueError(f"weights must not be negative, got {weights.min()}")
        if abs(weights.sum() - 1) > 1e-8:
            raise ValueError(
                f"weights must sum to 1, got {weights.sum()}; pass weights / weights.sum()"
            )
        object.__setattr__(self, "dim", None if dim is None else check_order("dim", dim))
        order = np.argsort(nodes, kind="stable")
        _freeze(self, nodes=nodes[order], weights=weights[order])

    def __repr__(self) -> str:
        with np.printoptions(threshold=8, edgeitems=2):
            return f"DiscreteMeasure({self.nodes!r}, {self.weights!r}, dim={self.dim})"

    @classmethod
    def from_eigenvalues(cls, eigenvalues: ArrayLike) -> DiscreteMeasure:
        """The empirical spectral measure of one matrix: weight 1/dim on each eigenvalue (dim,)."""
        values = np.asarray(eigenvalues, float)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"eigenvalues must have shape (dim,), dim > 0, got {values.shape}")
        return cls(values, np.full(values.size, 1 / values.size), dim=values.size)

    @classmethod
    def from_quantiles(cls, quantile: Callable[[Array], Array], count: int) -> DiscreteMeasure:
        """``count`` equal atoms at the quantiles (i - 1/2)/count: a population of that size.

        The way to a population of unbounded support (log-normal, power law), whose sample
        covariance has a largest eigenvalue only at a finite size: take count = dim.

        >>> DiscreteMeasure.from_quantiles(lambda p: -np.log(1 - p), 2).nodes.round(4)
        array([0.2877, 1.3863])
        """
        count = check_order("count", count)
        nodes = quantile((np.arange(count) + 0.5) / count)
        return cls(nodes, np.full(count, 1 / count))

    @cached_property
    def _cumulative(self) -> Array:
        total = np.cumsum(self.weights)
        return np.asarray(np.concatenate([[0.0], total]) / total[-1])

    @property
    def breakpoints(self) -> Array:
        return np.unique(self.nodes)

    def stieltjes(self, z: Any) -> Any:
        point = np.asarray(z, complex)
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((1 / (self.nodes - point[..., None])) @ self.weights)[()]

    def integrate(self, f: Callable[[Array], Array]) -> float:
        return float(np.asarray(f(self.nodes)) @ self.weights)

    def cdf(self, x: Any) -> Any:
        x = np.asarray(x, float)
        below = self._cumulative[np.searchsorted(self.nodes, x, side="right")]
        return np.where(np.isnan(x), np.nan, below)[()]

    def quantile(self, p: Any) -> Any:
        index = np.searchsorted(self._cumulative[1:], check_probabilities(p), side="left")
        return self.nodes[np.minimum(index, self.nodes.size - 1)][()]

    def jacobi(self, steps: int) -> jacobi.Coefficients:
        return jacobi.from_quadrature(self.nodes, self.weights, check_order("steps", steps))

    def restrict(self, window: tuple[float, float]) -> DiscreteMeasure:
        """The measure conditioned on window[0] <= x <= window[1]; ``dim`` shrinks with the mass."""
        left, right = window
        inside = (self.nodes >= left) & (self.nodes <= right)
        mass = self.weights[inside].sum()
        if not mass > 0:
            raise ValueError(
                f"window {left:g} to {right:g} holds no mass; "
                f"the measure lies on {self.nodes[0]:g} to {self.nodes[-1]:g}"
            )
        dim = None if self.dim is None else max(1, round(self.dim * mass))
        return DiscreteMeasure(self.nodes[inside], self.weights[inside] / mass, dim)


@dataclass(frozen=True, eq=False, init=False)
class LanczosMeasure(SpectralMeasure):
    """The average over probes of the Gauss rules that Lanczos found.

    ``diagonals`` (probes, steps) and ``off_diagonals`` (probes, steps - 1) hold one tridiagonal
    matrix T a probe, ``residuals`` (probes,) the off-diagonal entry that would have followed (0
    after a breakdown, which makes the rule exact); entries after a breakdown are NaN. ``dim`` is
    the side of the operator, ``provenance`` says how it was measured (JSON values only).

    ``deflated`` (d,): eigenvalues that were known, and taken out before the run. The rules, and
    all arrays of shape (probes, ...), then speak of the dim - d others, as does :attr:`bulk`;
    whatever is a functional of the measure speaks of all: each deflated eigenvalue has the weight
    1/dim, exactly, and a rule (dim - d)/dim.

    >>> LanczosMeasure([[0.0, 0.0]], [[1.0]], [0.5], dim=9).nodes
    array([[-1.,  1.]])
    >>> LanczosMeasure([[0.0]], [[]], [0.5], dim=4, deflated=[8.0]).moment(1)
    2.0
    """

    diagonals: Array
    off_diagonals: Array
    residuals: Array
    dim: int
    provenance: Mapping[str, Any]
    deflated: Array

    def __init__(
        self,
        diagonals: ArrayLike,
        off_diagonals: ArrayLike,
        residuals: ArrayLike,
        dim: int,
        provenance: Mapping[str, Any] | None = None,
        deflated: ArrayLike = (),
    ) -> None:
        a, b = np.array(diagonals, float), np.array(off_diagonals, float)
        r, known = np.array(residuals, float), np.array(deflated, float)
        if a.ndim != 2 or 0 in a.shape or b.shape != (a.shape[0], a.shape[1] - 1):
            raise ValueError(
                "diagonals must have shape (probes, steps) and off_diagonals (probes, steps - 1), "
                f"got {a.shape} and {b.shape}"
            )
        if r.shape != a.shape[:1] or not np.isfinite(r).all() or (r < 0).any():
            raise ValueError(
                f"residuals must be {a.shape[0]} finite numbers that are not negative, got {r}"
            )
        for probe, (diagonal, off_diagonal) in enumerate(zip(a, b, strict=True)):
            head, _ = jacobi.leading_block(diagonal, off_diagonal)
            stopped = np.isnan(diagonal[head.size :]).all()
            stopped &= np.isnan(off_diagonal[head.size - 1 :]).all()
            if not (np.isfinite(head).all() and stopped):
                raise ValueError(
                    f"probe {probe} has coefficients that are not finite or not positive off the "
                    f"diagonal before step {head.size}; only the rest after a breakdown may be NaN"
                )
        object.__setattr__(self, "dim", check_order("dim", dim))
        if known.ndim != 1 or not np.isfinite(known).all() or known.size >= self.dim:
            raise ValueError(
                f"deflated must be a list of fewer than dim = {self.dim} finite eigenvalues, "
                f"got {known.size} of shape {known.shape}: {known}"
            )
        object.__setattr__(self, "provenance", dict(provenance or {}))
        _freeze(self, diagonals=a, off_diagonals=b, residuals=r, deflated=np.sort(known))

    @property
    def probes(self) -> int:
        return int(self.diagonals.shape[0])

    @property
    def steps(self) -> int:
        return int(self.diagonals.shape[1])

    @cached_property
    def _ritz(self) -> tuple[Array, Array, Array]:
        nodes, weights, errors = (np.full(self.diagonals.shape, np.nan) for _ in range(3))
        for k in range(self.probes):
            found = jacobi.ritz(self.diagonals[k], self.off_diagonals[k], self.residuals[k])
            rounding = self._rounding(found[0])
            for target, values in zip(
                (nodes, weights, errors), (*found[:2], found[2] + rounding), strict=True
            ):
                target[k, : values.size] = values
                target.flags.writeable = k + 1 < self.probes
        return nodes, weights, errors

    def _rounding(self, nodes: Array) -> float:
        """eps sqrt(dim) |A| for products in the operator's dtype; |A| as the nodes show it.

        A product with the complement of deflated eigenvalues is rounded as one with the whole.
        """
        epsilon = _EPSILON.get(str(self.provenance.get("dtype")), float(np.finfo(float).eps))
        removed = np.asarray(self.provenance.get("removed", ()), float)
        largest = np.abs(np.concatenate([nodes, self.deflated, removed])).max()
        return float(epsilon * np.sqrt(self.dim) * largest)

    @property
    def nodes(self) -> Array:
        """Ritz values (probes, steps), ascending in each probe; NaN after a breakdown."""
        return self._ritz[0]

    @property
    def weights(self) -> Array:
        """Gauss weights (probes, steps): each probe's sum to 1; NaN after a breakdown."""
        return self._ritz[1]

    @property
    def errors(self) -> Array:
        """Bound (probes, steps) on the distance of each Ritz value to the nearest eigenvalue.

        The residual of the Ritz pair, plus the rounding of products in the operator's dtype.
        """
        return self._ritz[2]

    @cached_property
    def bulk(self) -> LanczosMeasure:
        """The measure of the dim - d eigenvalues that were not deflated: of the rules alone.

        What was taken out stays in its provenance as "removed", because it sets the rounding.
        """
        if self.deflated.size == 0:
            return self
        return LanczosMeasure(
            self.diagonals,
            self.off_diagonals,
            self.residuals,
            self.dim - self.deflated.size,
            {**self.provenance, "removed": self.deflated.tolist()},
        )

    def quadratures(self) -> list[DiscreteMeasure]:
        """One Gauss rule a probe, each with the deflated eigenvalues beside it."""
        return [self._beside_deflated(*rule) for rule in self._rules()]

    @cached_property
    def pooled(self) -> DiscreteMeasure:
        """All Gauss rules as one measure: probes * steps nodes, weights divided by probes."""
        nodes, weights = zip(*self._rules(), strict=True)
        return self._beside_deflated(np.concatenate(nodes), np.concatenate(weights) / self.probes)

    def _rules(self) -> Iterator[tuple[Array, Array]]:
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            kept = np.isfinite(nodes)
            yield nodes[kept], weights[kept] / weights[kept].sum()

    def _beside_deflated(self, nodes: Array, weights: Array) -> DiscreteMeasure:
        known = self.deflated.size
        return DiscreteMeasure(
            np.concatenate([nodes, self.deflated]),
            np.concatenate([weights * (1 - known / self.dim), np.full(known, 1 / self.dim)]),
            self.dim,
        )

    def standard_error(self, functional: Callable[[DiscreteMeasure], Any]) -> Any:
        """Standard error over probes of the mean of ``functional(quadrature)``; NaN for one probe.

        >>> two = LanczosMeasure([[0.0], [2.0]], [[], []], [0, 0], dim=5)
        >>> float(two.standard_error(lambda rule: rule.moment(1)))
        1.0
        """
        values = np.asarray([functional(rule) for rule in self.quadratures()], float)
        if self.probes < 2:
            return np.full(values.shape[1:], np.nan)[()]
        return (values.std(axis=0, ddof=1) / np.sqrt(self.probes))[()]

    @property
    def resolution(self) -> float:  # type: ignore[override]
        """Range of the Ritz values divided by the number of steps; deflated outliers are no part.

        That of the whole, because deflated eigenvalues are known exactly.
        """
        return float(np.nanmax(self.nodes) - np.nanmin(self.nodes)) / self.steps

    @property
    def breakpoints(self) -> Array:
        return self.pooled.breakpoints

    def stieltjes(self, z: Any) -> Any:
        return self.pooled.stieltjes(z)

    def integrate(self, f: Callable[[Array], Array]) -> float:
        return self.pooled.integrate(f)

    def moment(self, order: int) -> Any:
        """∫ x^order dμ for order < 2 steps, where that of each probe's own measure is exact.

        Refused beyond, where the rules fall short, unless every probe ended in a breakdown;
        ``pooled.moment(order)`` is the rules' own.
        """
        ended = np.isnan(self.diagonals[:, -1]) | (self.residuals == 0)
        if check_order("order", order, least=0) >= 2 * self.steps and not ended.all():
            raise ValueError(
                f"{self.steps} steps know moments up to order {2 * self.steps - 1}, got {order}; "
                "measure more steps"
            )
        return self.pooled.moment(order)

    def cdf(self, x: Any) -> Any:
        return self.pooled.cdf(x)

    def cdf_bounds(self, x: Any) -> tuple[Any, Any]:
        """Lower and upper bound of the cdf at ``x`` that these steps prove; both of its shape.

        Each probe's own spectral measure μ_q has μ_q(-∞, x] between the masses that the
        Gauss–Radau rule with a node at x has left of x and up to x: at every x, and as tight as
        its coefficients allow. The bounds are averages over the probes, with x moved outwards by
        the rounding of products. Deflated eigenvalues count exactly.

        The bounds hold for the average of the μ_q. The eigenvalue distribution is their mean over
        random starts, so that the noise of the probes comes on top:
        ``standard_error(lambda rule: rule.cdf(x))``.

        >>> LanczosMeasure([[0.0, 0.0]], [[1.0]], [0.5], dim=9).cdf_bounds([0.0])
        (array([0.4]), array([0.6]))
        """
        x = np.asarray(x, float)
        slack = self._rounding(self.nodes[np.isfinite(self.nodes)])
        below, up_to = np.zeros((2, *x.shape))
        for chain in zip(self.diagonals, self.off_diagonals, self.residuals, strict=True):
            below += jacobi.markov_stieltjes(*chain, x - slack)[0] / self.probes
            up_to += jacobi.markov_stieltjes(*chain, x + slack)[1] / self.probes
        known, rest = self.deflated, self.dim - self.deflated.size
        lower = (np.searchsorted(known, x - slack, "right") + rest * below) / self.dim
        upper = (np.searchsorted(known, x + slack, "right") + rest * up_to) / self.dim
        return lower[()], upper[()]

    def quantile(self, p: Any) -> Any:
        return self.pooled.quantile(p)

    def restrict(self, window: tuple[float, float]) -> DiscreteMeasure:
        """The pooled measure conditioned on window[0] <= x <= window[1]."""
        return self.pooled.restrict(window)

    def tail(self, tolerance: float = 0.05) -> jacobi.Tail:
        """Limits of the coefficients, and so the edges, of a one-cut bulk; see ``jacobi.tail``.

        Read from the rules' coefficients, averaged over probes up to the first breakdown.

        >>> LanczosMeasure([[0.1] * 9], [[0.5] * 8], [0.5], dim=99).tail().edges
        (-0.9, 1.1)
        """
        chains = zip(self.diagonals, self.off_diagonals, strict=True)
        steps = min(jacobi.leading_block(*chain)[0].size for chain in chains)
        a, b = self.diagonals[:, :steps], self.off_diagonals[:, : steps - 1]
        return jacobi.tail(a.mean(axis=0), b.mean(axis=0), tolerance)

    def jacobi(self, steps: int | None = None) -> jacobi.Coefficients:
        """Coefficients of the probe average: its Gauss rule has the average's first moments."""
        return self.pooled.jacobi(self.steps if steps is None else steps)

    def truncate(self, steps: int) -> LanczosMeasure:
        """What the first ``steps`` steps alone would have returned."""
        if check_order("steps", steps) > self.steps:
            raise ValueError(f"steps must be at most {self.steps}, got {steps}; measure more steps")
        if steps == self.steps:
            return self
        cut = self.off_diagonals[:, steps - 1]
        return LanczosMeasure(
            self.diagonals[:, :steps],
            self.off_diagonals[:, : steps - 1],
            np.where(np.isnan(cut), 0.0, cut),
            self.dim,
            {**self.provenance, "steps": steps},
            self.deflated,
        )


def _freeze(target: Any, **arrays: Array) -> None:
    for name, array in arrays.items():
        array.flags.writeable = False
        object.__setattr__(target, name, array)
