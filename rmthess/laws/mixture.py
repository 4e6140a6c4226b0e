"""Mixtures of measures: a bulk beside another bulk, an atom under a bulk (theory/mixture.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import arithmetic
from rmthess.laws.law import Interval, Law
from rmthess.laws.transforms import r_transform
from rmthess.measure import DiscreteMeasure, SpectralMeasure, check_order

Array = NDArray[np.float64]


def mixture(measures: Sequence[SpectralMeasure], weights: Sequence[Any]) -> SpectralMeasure:
    """Σ_i weights_i measures_i: m(z) = Σ_i weights_i m_i(z).

    ``measures`` are laws and discrete measures, ``weights`` as many numbers >= 0 of sum 1. Without
    a law among them the result is a :class:`DiscreteMeasure`, else a :class:`Mixture`. This is the
    spectrum of a block-diagonal matrix, not a free sum.

    >>> from rmthess import Semicircle
    >>> mixture([Semicircle(), DiscreteMeasure([0.0], [1.0])], [0.25, 0.75]).atoms
    ((0.0, 0.75),)
    """
    _check(measures, weights)
    parts: list[tuple[SpectralMeasure, Any]] = []
    for measure, weight in zip(measures, weights, strict=True):
        if isinstance(measure, Mixture):
            inner = zip(measure.measures, measure.weights, strict=True)
            parts += [(part, weight * share) for part, share in inner]
        elif weight != 0:
            parts.append((measure, weight))
    discrete = [(p, w) for p, w in parts if isinstance(p, DiscreteMeasure)]
    if len(discrete) == len(parts):
        nodes = np.concatenate([part.nodes for part, _ in discrete])
        return DiscreteMeasure(
            nodes, np.concatenate([float(w) * part.weights for part, w in discrete])
        )
    kept = tuple(part for part, _ in parts if isinstance(part, Law | DiscreteMeasure))
    return Mixture(kept, tuple(weight for _, weight in parts))


def _check(measures: Sequence[SpectralMeasure], weights: Sequence[Any]) -> None:
    if len(measures) == 0 or len(measures) != len(weights):
        raise ValueError(
            f"a mixture needs one weight a measure, got {len(measures)} measures and "
            f"{len(weights)} weights"
        )
    for measure in measures:
        if not isinstance(measure, Law | DiscreteMeasure):
            raise TypeError(
                f"a mixture takes laws and discrete measures, got {type(measure).__name__}; "
                "of a Lanczos measure take .pooled"
            )
    values = np.array([float(weight) for weight in weights])
    if not (np.isfinite(values).all() and values.min() >= 0):
        raise ValueError(f"weights must be finite and not negative, got {list(weights)}")
    if abs(values.sum() - 1) > 1e-8:
        raise ValueError(f"weights must sum to 1, got {values.sum()}; divide them by their sum")


@dataclass(frozen=True)
class Mixture(Law):
    """ρ = Σ_i weights_i ρ_i,  m(z) = Σ_i weights_i m_i(z); made by :func:`mixture`.

    ``measures`` laws and discrete measures with at least one law, ``weights`` positive of sum 1.

    >>> from rmthess import Uniform
    >>> Mixture((Uniform(0, 2), Uniform(1, 3), Uniform(5, 6)), (0.5, 0.25, 0.25)).support
    ((0, 3), (5, 6))
    """

    measures: tuple[Law | DiscreteMeasure, ...]
    weights: tuple[Any, ...]

    def __post_init__(self) -> None:
        _check(self.measures, self.weights)
        if not self._laws:
            raise ValueError("a Mixture needs a law among its measures; use mixture(...)")

    @property
    def finest(self) -> float:  # type: ignore[override]
        return max(law.finest for law, _ in self._laws)

    @property
    def _laws(self) -> list[tuple[Law, Any]]:
        pairs = zip(self.measures, self.weights, strict=True)
        return [(part, weight) for part, weight in pairs if isinstance(part, Law)]

    @property
    def _points(self) -> list[tuple[Any, Any]]:
        """Location and mass of the nodes of the discrete measures."""
        return [
            (float(x), weight * float(w))
            for part, weight in zip(self.measures, self.weights, strict=True)
            if isinstance(part, DiscreteMeasure)
            for x, w in zip(part.nodes, part.weights, strict=True)
        ]

    @property
    def support(self) -> tuple[Interval, ...]:
        merged: list[Interval] = []
        for left, right in sorted(i for law, _ in self._laws for i in law.support):
            if merged and left <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(right, merged[-1][1]))
            else:
                merged.append((left, right))
        return tuple(merged)

    @property
    def cusps(self) -> tuple[float, ...]:
        """Those of a part where no other part has a density."""
        found: list[float] = []
        for law, _ in self._laws:
            rest = [i for other, _ in self._laws if other is not law for i in other.support]
            found += [x for x in law.cusps if not any(a <= x <= b for a, b in rest)]
        return tuple(sorted(found))

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        found: dict[Any, Any] = {}
        of_laws = [(x, w * mass) for law, w in self._laws for x, mass in law.atoms]
        for location, mass in [*of_laws, *self._points]:
            if mass != 0:
                found[location] = found.get(location, 0) + mass
        return tuple(sorted(found.items()))

    @property
    def breakpoints(self) -> Array:
        """The edges of every law, also inside another's bulk, and the atoms."""
        return np.unique(np.concatenate([part.breakpoints for part in self.measures]))

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, *self.weights)
        point = xp.point(z)
        if not xp.exact:
            with np.errstate(invalid="ignore"):  # at an atom m is infinite
                pairs = zip(self.measures, self.weights, strict=True)
                return sum(float(weight) * part.stieltjes(point) for part, weight in pairs)
        total = sum(weight * law.stieltjes(point) for law, weight in self._laws)
        return sum((xp.quotient(mass, x - point) for x, mass in self._points), start=total)

    def density(self, x: Any) -> Any:
        return sum(weight * law.density(x) for law, weight in self._laws)

    def cdf(self, x: Any) -> Any:
        xp = arithmetic(x, *self.weights)
        x = xp.real(x)
        total = sum(weight * law.cdf(x) for law, weight in self._laws)
        if xp.exact:
            total = sum((mass * xp.step(x - point) for point, mass in self._points), start=total)
            return xp.clip(total, 0, 1)
        for part, weight in zip(self.measures, self.weights, strict=True):
            if isinstance(part, DiscreteMeasure):
                total = total + weight * part.cdf(x)
        return np.clip(total, 0.0, 1.0)[()]

    def quantile(self, p: Any) -> Any:
        x, p = super().quantile(p), np.asarray(p, float)
        if not self.atoms:
            return x
        at = np.array([float(location) for location, _ in self.atoms])
        low, top = self.cdf(np.nextafter(at, -np.inf)), self.cdf(at)
        k = np.minimum(np.searchsorted(top, p), at.size - 1)  # bisection stops just beside an atom
        return np.where((p > low[k]) & (p <= top[k]), at[k], x)[()]

    def moment(self, order: int) -> Any:
        """Σ_i weights_i m_k(i)."""
        k = check_order("order", order, least=0)
        pairs = zip(self.measures, self.weights, strict=True)
        return sum(weight * part.moment(k) for part, weight in pairs)

    def r_transform(self, w: Any) -> Any:
        """R(w) = z - 1/w where -m(z) = w."""
        return r_transform(self, w)

    def quadrature(self, nodes: int) -> tuple[Array, Array]:
        """The rules of the parts, side by side."""
        rules = [(law.quadrature(nodes), float(weight)) for law, weight in self._laws]
        x = [rule[0] for rule, _ in rules] + [np.array([x for x, _ in self._points])]
        w = [weight * rule[1] for rule, weight in rules]
        w.append(np.array([float(mass) for _, mass in self._points]))
        return np.concatenate(x), np.concatenate(w)

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) of a block-diagonal matrix, sides weights * dim rounded in turn.

        A discrete part is its quantiles.
        """
        ends = np.rint(np.cumsum(np.array(self.weights, float)) * check_order("dim", dim))
        sides = np.diff(ends.astype(int), prepend=0)
        sides[-1] += dim - sides.sum()
        blocks = [
            part.sample(side, rng)
            if isinstance(part, Law)
            else np.asarray(part.quantile((np.arange(side) + 0.5) / side), float)
            for part, side in zip(self.measures, sides.tolist(), strict=True)
            if side > 0
        ]
        return np.sort(np.concatenate(blocks))

    def shift(self, c: Any) -> Law:
        return self._mapped(lambda law: law.shift(c), lambda nodes: nodes + float(c))

    def dilate(self, c: Any) -> Law:
        return self._mapped(lambda law: law.dilate(c), lambda nodes: float(c) * nodes)

    def _mapped(self, of_law: Any, of_nodes: Any) -> Mixture:
        images = tuple(
            of_law(part)
            if isinstance(part, Law)
            else DiscreteMeasure(of_nodes(part.nodes), part.weights)
            for part in self.measures
        )
        return Mixture(images, self.weights)
