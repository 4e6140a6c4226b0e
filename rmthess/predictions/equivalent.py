"""The deterministic equivalent of (1/n) Σ g x xᵀ, its bulk and its outliers (theory/glm.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from rmthess.free.boxtimes import boxtimes
from rmthess.free.convolution import FreeProduct
from rmthess.laws.free_compound_poisson import FreeCompoundPoisson
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.measure import DiscreteMeasure
from rmthess.predictions.features import CurvatureLaw
from rmthess.spikes import Spike

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """An interval outside the support, in a coordinate that grows with z.

    ``arc`` None: x lies beyond the population, and the coordinate is u = -cE[t]/δ. Else x lies
    between these two atoms of the population; then δ may vanish, and is the coordinate itself.
    """

    left: float
    right: float
    arc: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Equivalent:
    """Q⁻¹(z) = E[g x xᵀ/(1 + gδ)] - z = φ C + W M Wᵀ - z,  δ = tr CQ/n,  φ = E[g/(1 + gδ)].

    In an eigenbasis of C: ``spectrum`` (d,) its eigenvalues, ``columns`` W (d, r + 1); ``law`` is
    that of g, ``white_bulk`` the bulk of white inputs, of the variance of the spectrum where its
    positive part is constant, else 1. For a constant spectrum the basis may be one of the span of
    W. All is said on the range of C, ``ratio`` c = rank C/samples and ``bulk``; of the matrix that
    is the fraction ``range``, and the rest has eigenvalue 0. A last 0 in the spectrum stands for
    the one direction beyond the range in which W has a part.

    With x = z/φ: c A(x) = δφ, A = ∫ t/(t - x) dν over the population ν. Outside the support δ is
    real and grows with z; it determines φ, then x because A increases, then z.
    """

    law: CurvatureLaw
    ratio: float
    spectrum: Array
    columns: Array
    white_bulk: FreeCompoundPoisson
    range: float = 1.0

    @cached_property
    def population(self) -> DiscreteMeasure:
        nodes, counts = np.unique(self.spectrum[self.spectrum > 0], return_counts=True)
        return DiscreteMeasure(nodes, counts / counts.sum())

    @cached_property
    def white(self) -> bool:
        return self.population.nodes.size == 1

    @cached_property
    def _curvature(self) -> tuple[Array, Array]:
        """g and its weights as the bulk has them."""
        jumps = self.white_bulk.jumps
        assert isinstance(jumps, DiscreteMeasure)
        variance = float(self.population.nodes[0]) if self.white else 1.0
        return jumps.nodes / (self.ratio * variance), jumps.weights

    @cached_property
    def bulk(self) -> Law:
        """The law of C^(1/2) (Zᵀ D Z/n) C^(1/2), D = diag(g): a free product."""
        if self.white:
            return self.white_bulk
        g = self._curvature[0]
        if g.size > 1:
            return FreeProduct(self.population, self.white_bulk)
        found = boxtimes(self.population, MarchenkoPastur(self.ratio, abs(float(g[0]))))
        assert isinstance(found, Law)
        return found if g[0] > 0 else found.dilate(-1.0)

    @cached_property
    def _outside(self) -> list[Gap]:
        """The complement of the support, the outer two reaching to infinity."""
        if self.white:
            cuts = [-np.inf, *map(float, self.white_bulk.kernel.turning_points), np.inf]
            return [Gap(*pair) for pair in zip(cuts[::2], cuts[1::2], strict=True)]
        edges = [self._edge(float(z)) for pair in self.bulk.support for z in pair]
        first, last = (self._coordinate(delta, None) for delta, _ in (edges[0], edges[-1]))
        inner = [
            Gap(self._coordinate(a, arc), self._coordinate(b, arc), arc)
            for (a, x), (b, _) in zip(edges[1::2], edges[2::2])
            for arc in [self._arc(x)]
        ]
        return [Gap(-np.inf, first), *inner, Gap(last, np.inf)]

    @cached_property
    def poles(self) -> list[float]:
        """u at z = 0 outside the support where Q has a pole there.

        That is at an atom of the bulk, where u = 0, or where W reaches beyond the range of C.
        """
        whole = [gap for gap in self._outside if gap.arc is None]
        inside = [0.0 for gap in whole if gap.left < 0 < gap.right]
        beyond = not inside and bool((self.spectrum == 0).any())
        return inside + [u for gap in whole if beyond for u in self._zeros(gap)]

    def _zeros(self, gap: Gap) -> list[float]:
        """u where z = 0 in a gap of u of one sign: z grows with u, to ±∞ where the gap does."""
        near, far = (gap.right, gap.left) if gap.right <= 0 else (gap.left, gap.right)
        if near == 0:  # the bulk ends there
            return []
        if np.isinf(far):
            far = 2 * near
            while self.point(far, None)[0] * near < 0:
                far *= 2
        if self.point(near, None)[0] * self.point(far, None)[0] >= 0:
            return []
        return [float(brentq(lambda u: self.point(u, None)[0], near, far, xtol=1e-300))]

    @cached_property
    def gaps(self) -> list[Gap]:
        """Where outliers can be: outside the support, between the poles of Q."""
        found = []
        for gap in self._outside:
            cuts = [u for u in self.poles if gap.arc is None and gap.left < u < gap.right]
            found += [Gap(*pair, gap.arc) for pair in pairwise([gap.left, *cuts, gap.right])]
        return found

    def _edge(self, z: float) -> tuple[float, float]:
        """δ and x at an edge of the bulk."""
        if isinstance(self.bulk, FreeProduct):
            w1, w2 = self.bulk.subordination.solve(z)
            m = self.bulk.subordination.transform(w1, w2, z)
            return self.ratio * float(np.real(z * m / w2)), float(np.real(w1))
        share = self.ratio * (1 + z * float(np.real(self.bulk.stieltjes(z))))
        g = float(self._curvature[0][0])
        return share / (g * (1 - share)), z / (g * (1 - share))

    def _coordinate(self, delta: float, arc: tuple[float, float] | None) -> float:
        """u from δ, and δ from u."""
        if arc is not None:
            return delta
        return -self.ratio * float(self.population.moment(1)) / delta

    def _arc(self, x: float) -> tuple[float, float] | None:
        nodes = self.population.nodes
        k = int(np.searchsorted(nodes, x))
        return None if k in (0, nodes.size) else (float(nodes[k - 1]), float(nodes[k]))

    def _position(self, level: float, arc: tuple[float, float] | None) -> float:
        """x with A(x) = level, between bounds from one atom and from all atoms at one place."""
        t, w = self.population.nodes, self.population.weights
        mass = w * t

        def excess(x: float) -> float:
            return float(mass @ (1 / (t - x))) - level

        if arc is not None:
            low, high = arc[0] * (1 + 1e-15), arc[1] * (1 - 1e-15)
        elif level < 0:
            low = max(t[0] - mass.sum() / level, t[-1] - mass[-1] / level)
            high = t[-1] - mass.sum() / level
        else:
            low = t[0] - mass.sum() / level
            high = min(t[-1] - mass.sum() / level, t[0] - mass[0] / level)
        if not (excess(low) < 0 < excess(high)):  # up to rounding at an end
            return float(low if abs(excess(low)) <= abs(excess(high)) else high)
        return float(brentq(excess, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps))

    def point(self, u: float, arc: tuple[float, float] | None) -> tuple[float, float, float, float]:
        """z, δ, φ and dz/dδ."""
        g, p = self._curvature
        t, w = self.population.nodes, self.population.weights
        delta = self._coordinate(u, arc)
        f = g / (1 + g * delta)
        phi, fall = float(p @ f), -float(p @ f**2)  # φ and its derivative in δ
        x = self._position(delta * phi / self.ratio, arc)
        rise = (phi + delta * fall) / (self.ratio * float((w * t) @ (1 / (t - x) ** 2)))
        return x * phi, delta, phi, rise * phi + x * fall

    def strength(self, u: float, gap: Gap) -> float:
        """-1/m, m = ∫ dν/(φt - z) and the share of the zeros: 0 at an atom of the bulk."""
        if u == 0 and gap.arc is None:
            return 0.0
        z, _, phi, _ = self.point(u, gap.arc)
        m = float(self.population.weights @ (1 / (phi * self.population.nodes - z)))
        return -1 / m if self.range == 1 else -z / (self.range * z * m - (1 - self.range))

    def secular(self, u: float, gap: Gap) -> tuple[Array, Array, Array]:
        """e, E and the symmetric matrix -1/e - EᵀTE that is singular at an outlier.

        M = E diag(e) Eᵀ without its zeros, T = Wᵀ(φC - z)⁻¹W.
        """
        z, delta, phi, _ = self.point(u, gap.arc)
        g = self.law.values
        _, M = self.law.moments(g / (1 + g * delta))
        e, E = np.linalg.eigh(M)
        kept = np.abs(e) > 1e-13 * np.abs(e).max(initial=0.0)
        e, E = e[kept], E[:, kept]
        projected = self.columns @ E
        T = (projected / (phi * self.spectrum - z)[:, None]).T @ projected
        return e, E, -np.diag(1 / e) - T

    def count(self, u: float, gap: Gap) -> int:
        """Falls by one at each outlier as u grows in the gap, and is 0 beyond all outliers.

        The number of positive eigenvalues of Q⁻¹ less that of φC - z, by Haynsworth's rule. The
        first falls with z because Q is the transform of a positive measure, the second is constant
        in a gap.
        """
        e, _, S = self.secular(u, gap)
        return int((np.linalg.eigvalsh(S) > 0).sum()) - int((e < 0).sum()) if e.size else 0


def outliers(model: Equivalent, left: bool = True, right: bool = True) -> list[tuple[Spike, Array]]:
    """Each outlier, ascending, with the unit vector (d,) that its eigenvector correlates with.

    ``left`` and ``right`` say whether to look beyond the ends of the bulk. Gaps within it count
    where both are edges: in a tail that was cut a gap may be one between two points of the grid.
    """
    found = []
    for gap in model.gaps:
        outer = np.isinf([gap.left, gap.right])
        if not ((left or outer[1]) and (right or outer[0])):
            continue
        for u, multiplicity in _roots(model, gap):
            found += _spikes(model, u, multiplicity, gap)
    return found


def _roots(model: Equivalent, gap: Gap) -> list[tuple[float, int]]:
    """Outliers in a gap by bisection of ``count``: none is missed, and multiplicity shows.

    Beside a pole of Q, and where δ is infinite, the search keeps a distance.
    """
    width = model.gaps[-1].left - model.gaps[0].right
    low, high = gap.left, gap.right
    low += 1e-10 * width if low in (0.0, *model.poles) else 0.0
    high -= 1e-10 * width if high in (0.0, *model.poles) else 0.0
    if np.isinf(low):
        low = _far(model, gap, high, -width)
    if np.isinf(high):
        high = _far(model, gap, low, width)
    least = 1e-14 * (high - low)
    todo = [(low, model.count(low, gap), high, model.count(high, gap))]
    roots: list[tuple[float, int]] = []
    while todo:
        low, above, high, below = todo.pop()
        if above <= below:
            continue
        middle = (low + high) / 2
        if high - low <= least or middle in (low, high):
            roots.append((middle, above - below))
            continue
        here = model.count(middle, gap)
        todo += [(low, above, middle, here), (middle, here, high, below)]
    return sorted(roots)


def _far(model: Equivalent, gap: Gap, edge: float, step: float) -> float:
    """A point beyond all outliers on the side of ``step``."""
    while model.count(edge + step, gap) != 0:
        step *= 2
    return edge + step


def _spikes(model: Equivalent, u: float, multiplicity: int, gap: Gap) -> list[tuple[Spike, Array]]:
    """The null vectors of Q⁻¹: q = (φC - z)⁻¹ W E y of unit length, overlap 1/(-q·(Q⁻¹)'q).

    The strength is that of a rank one that adds an eigenvalue to the bulk at this place: -1/m.
    """
    z, delta, phi, rise = model.point(u, gap.arc)
    slope = 1 / rise
    edge = gap.left if u - gap.left < gap.right - u else gap.right
    _, E, S = model.secular(u, gap)
    values, vectors = np.linalg.eigh(S)
    f = model.law.values / (1 + model.law.values * delta)
    total, M = model.law.moments(f**2)
    strength, threshold = (model.strength(v, gap) for v in (u, edge))
    found = []
    for k in np.argsort(np.abs(values))[:multiplicity]:
        q = (model.columns @ (E @ vectors[:, k])) / (phi * model.spectrum - z)
        q /= np.linalg.norm(q)
        seen = q @ model.columns
        across = float(q**2 @ model.spectrum)
        square = total * across + float(seen @ M @ seen)  # E[f² (q·x)²]
        overlap = 1 / (1 + slope * square)
        spread = overlap * _fluctuation(model, seen, f, slope, square, across)
        found.append((Spike(strength, z, overlap, threshold, spread), q))
    return found


def _fluctuation(
    model: Equivalent, seen: Array, f: Array, slope: float, square: float, across: float
) -> float:
    """√dim times the standard deviation of q·Q⁻¹q where C is t times 1 on its range, else NaN.

    ``seen`` Wᵀq, ``square`` E[f² (q·x)²], ``across`` q·Cq.

    With ψ = f (q·x)² + t δ' E[f² (q·x)²] f its variance is (Var ψ + 2 t δ' E[f² (q·x)²]²)/n: the
    sampling of g and x in the direction q, the answer of δ to it, the noise of the others.
    """
    if not model.white:
        return float("nan")
    t = float(model.population.nodes[0])
    middle = model.law.points @ seen[:-1] + seen[-1]  # mean of q·x given s
    rest = across - float((seen[:-1] ** 2).sum())  # and its variance
    second, fourth = middle**2 + rest, middle**4 + 6 * middle**2 * rest + 3 * rest**2
    shift = t * slope * square
    weights = model.law.weights
    mean = float(weights @ (f * (second + shift)))
    variance = float(weights @ (f**2 * (fourth + 2 * shift * second + shift**2))) - mean**2
    ratio = model.ratio / model.range
    return float(np.sqrt(ratio * (variance + 2 * t * slope * square**2)))
