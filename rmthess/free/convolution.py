"""Free sum and free product of any two measures (theory/free_convolution.md)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmthess.free.equations import ProductEquations, SumEquations
from rmthess.free.excess import excess
from rmthess.free.gaps import Edge
from rmthess.free.subordination import Subordination
from rmthess.laws.cumulants import free_cumulants_from_moments, moments_from_free_cumulants
from rmthess.laws.law import Interval, Law
from rmthess.laws.transforms import r_transform
from rmthess.measure import DiscreteMeasure, SpectralMeasure, check_order

Array = NDArray[np.float64]

_TOLERANCE = 1e-12  # of masses that add up to 1
_FINEST = 1e-6  # smallest value of a factor over its largest: gaps are told apart to 1e-7


class Convolution(Law):
    """A law given by the subordination of two measures."""

    left: Law | DiscreteMeasure
    right: Law | DiscreteMeasure

    finest: ClassVar[float] = 1e-9

    @property
    @abstractmethod
    def subordination(self) -> Subordination:
        """w₁(z), w₂(z)."""

    @cached_property
    def _touching(self) -> list[tuple[float, float]]:
        """Ends of intervals that touch: the gap between them is less than 1e-13 of the width."""
        ends = ((a[1].x, b[0].x) for a, b in pairwise(self.subordination.support))
        return [(a, b) for a, b in ends if b - a <= 1e-13 * self.subordination.width]

    @property
    def cusps(self) -> tuple[float, ...]:
        return tuple((a + b) / 2 for a, b in self._touching)

    @cached_property
    def support(self) -> tuple[Interval, ...]:
        """The intervals between the gaps; a cusp belongs to the support."""
        inner = {x for pair in self._touching for x in pair}
        ends = [edge.x for pair in self.subordination.support for edge in pair]
        kept = [x for x in ends if x not in inner]
        return tuple(zip(kept[::2], kept[1::2], strict=True))

    @property
    def _seams(self) -> tuple[float, ...]:
        """Points inside the support where the density may not be smooth."""
        return ()

    @cached_property
    def _panels(self) -> _Panels:
        """The law on intervals cut at cusps and seams, for integration."""
        cut: list[Interval] = []
        for left, right in self.subordination.support:
            inside = [x for x in self._seams if left.x < x < right.x]
            ends = [left.x, *inside, right.x]
            cut += pairwise(ends)
        return _Panels(self, tuple(cut))

    def quadrature(self, nodes: int) -> tuple[Array, Array]:
        """Chebyshev points on each interval, cut at cusps; then the atoms."""
        return Law.quadrature(self._panels, nodes)

    def cdf(self, x: Any) -> Any:
        return self._panels.cdf(x)

    def _infinite(self, z: Any) -> NDArray[np.bool_]:
        """Where the transform has a pole or an infinite limit: at atoms and at some edges."""
        places = [location for location, _ in self.atoms]
        places += [x for x, _ in self._divergences]
        return np.isin(np.asarray(z), np.array(places, complex))

    @cached_property
    def _divergences(self) -> list[tuple[float, Edge]]:
        """Edges at which the density is infinite."""
        found = []
        for pair in self.subordination.support:
            for edge in pair:
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    m = self.subordination.transform(edge.first, edge.second, edge.x)
                if not abs(m) * self.subordination.width < 1e6:
                    found.append((edge.x, edge))
        return found

    def stieltjes(self, z: Any) -> Any:
        z = np.asarray(z, complex)
        infinite = self._infinite(z)
        close = np.zeros(z.shape, bool)
        for place, _, radius, _ in self._poles:
            close |= (np.abs(z - place) < radius) & ~infinite
        m = np.asarray(self._raw_stieltjes(np.where(infinite | close, np.nan, z)))
        for place, mass, radius, rest in self._poles:
            near = close & (np.abs(z - place) < radius)
            m = np.where(near, rest - mass / np.where(near, z - place, 1), m)
        return np.where(infinite, complex(np.inf), m)[()]

    def _raw_stieltjes(self, z: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.subordination.transform(*self.subordination.solve(z), z)

    @cached_property
    def _poles(self) -> list[tuple[float, float, float, complex]]:
        """Atoms in gaps: place, mass, a small radius, and m less its pole, constant within that.

        So near to a pole w₁ and w₂ are of too few digits to be certified.
        """
        edges, found = self.subordination.edges, []
        for place, mass in self.atoms:
            room = float(np.abs(edges - place).min(initial=self.subordination.width))
            if room > 0 and np.searchsorted(edges, place) % 2 == 0:
                around = place + 1e-5 * room * np.array([-1.0, 1.0], complex)
                rest = self._raw_stieltjes(around) + mass / (around - place)
                found.append((place, mass, 1e-7 * room, complex(rest.mean().real)))
        return found

    def density(self, x: Any) -> Any:
        x = np.asarray(x, float)
        edges = self.subordination.edges
        inside = np.searchsorted(edges, x, side="right") % 2 == 1
        inside &= ~np.isin(x, edges) & np.isfinite(x)
        density = np.where(np.isnan(x), np.nan, 0.0)
        if inside.any():
            density[inside] = np.imag(self.stieltjes(x[inside])) / np.pi
        density[np.isin(x, [place for place, _ in self._divergences])] = np.inf
        return density[()]


@dataclass(frozen=True, eq=False)
class _Panels(Law):
    """A law with its support cut into panels."""

    base: Law
    panels: tuple[Interval, ...]

    @property
    def support(self) -> tuple[Interval, ...]:
        return self.panels

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        return self.base.atoms

    def stieltjes(self, z: Any) -> Any:
        return self.base.stieltjes(z)

    def density(self, x: Any) -> Any:
        return self.base.density(x)

    def r_transform(self, w: Any) -> Any:
        return self.base.r_transform(w)


@dataclass(frozen=True)
class FreeSum(Convolution):
    """μ ⊞ ν: R(w) = R_μ(w) + R_ν(w), the limit spectrum of A + U B Uᵀ with U Haar orthogonal.

    F(z) = F_μ(w₁) = F_ν(w₂) = w₁ + w₂ - z, F = 1/G, solved on the real axis itself. Any two
    measures, each of more than one atom. An atom at a + b has the mass μ{a} + ν{b} - 1 where that
    is positive. Voiculescu (1993), Biane (1998), Belinschi & Bercovici (2007).

    >>> coin = DiscreteMeasure([-1.0, 1.0], [0.5, 0.5])
    >>> FreeSum(coin, coin).moment(4)
    6.0
    """

    left: Law | DiscreteMeasure
    right: Law | DiscreteMeasure

    @cached_property
    def subordination(self) -> Subordination:
        return Subordination(SumEquations(excess(self.left), excess(self.right)))

    @cached_property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        found: dict[float, float] = {}
        for a, p in atoms_of(self.left):
            for b, q in atoms_of(self.right):
                if p + q > 1 + _TOLERANCE:
                    found[a + b] = p + q - 1
        return tuple(sorted(found.items()))

    def r_transform(self, w: Any) -> Any:
        """R_μ(w) + R_ν(w)."""
        return _r_transform(self.left, w) + _r_transform(self.right, w)

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) of A + U B Uᵀ, A and B diagonal with quantiles of μ and ν: O(dim³)."""
        a, b = levels_of(self.left, dim), levels_of(self.right, dim)
        u = haar(dim, rng)
        return np.asarray(np.linalg.eigvalsh(np.diag(a) + (u * b) @ u.T), float)

    def free_cumulants(self, order: int) -> list[Any]:
        """κ_n(μ) + κ_n(ν)."""
        pairs = zip(_cumulants(self.left, order), _cumulants(self.right, order), strict=True)
        return [p + q for p, q in pairs]

    def moment(self, order: int) -> Any:
        """From the free cumulants."""
        if check_order("order", order, least=0) == 0:
            return 1
        return moments_from_free_cumulants(self.free_cumulants(order))[-1]

    def cdf(self, x: Any) -> Any:
        """1 - Im (L_μ(w₁) + L_ν(w₂) - log F)/π of two discrete measures, L(w) = ∫ log(w - t) dμ.

        The derivative is G_μ(w₁) w₁' + G_ν(w₂) w₂' - F'/F = G. Of other measures from the density.
        """
        if not (isinstance(self.left, DiscreteMeasure) and isinstance(self.right, DiscreteMeasure)):
            return super().cdf(x)
        x = np.asarray(x, float)
        first, last = self.breakpoints[[0, -1]]
        finite = np.where(np.isnan(x), first, np.clip(x, first, last))
        for location, _ in self.atoms:  # alone in a gap, where the cdf is constant
            finite = np.where(finite == location, location + 1e-9 * (last - first), finite)
        w1, w2 = self.subordination.solve(finite)
        above = _turn(self.left, w1) + _turn(self.right, w2) - _angle(w1 + w2 - finite)
        cdf = np.clip(1 - above / np.pi, 0.0, 1.0)
        cdf = np.where(x >= last, 1.0, np.where(x < first, 0.0, cdf))
        return np.where(np.isnan(x), np.nan, cdf)[()]


@dataclass(frozen=True)
class FreeProduct(Convolution):
    """μ ⊠ ν: S(w) = S_μ(w) S_ν(w), the limit spectrum of A^(1/2) U B Uᵀ A^(1/2), U Haar orthogonal.

    E(z) = E_μ(w₁) = E_ν(w₂) = w₁ w₂/z, E = zG/(zG - 1), solved on the real axis itself. One of the
    measures lives on [0, ∞), the other anywhere; each has more than one atom. An atom at a b != 0
    has the mass μ{a} + ν{b} - 1 where that is positive, one at 0 the mass max(μ{0}, ν{0}).
    Voiculescu (1987), Bercovici & Voiculescu (1993), Belinschi & Bercovici (2007).

    >>> FreeProduct(DiscreteMeasure([1, 2], [0.5, 0.5]), DiscreteMeasure([0, 2], [0.5, 0.5])).atoms
    ((0.0, 0.5),)
    """

    left: Law | DiscreteMeasure
    right: Law | DiscreteMeasure

    def __post_init__(self) -> None:
        try:
            lowest = [float(m.breakpoints[0]) for m in (self.left, self.right)]
        except TypeError:  # symbols: nothing to check
            return
        if max(lowest) < 0:
            raise ValueError(
                "one of the two measures must live on [0, ∞), else A^(1/2) is not real; "
                f"they begin at {lowest[0]:g} and {lowest[1]:g}"
            )
        for measure in (self.left, self.right):
            _check_scales(measure)

    @cached_property
    def subordination(self) -> Subordination:
        one, two = self.left, self.right
        if float(one.breakpoints[0]) < 0:
            one, two = two, one
        signed = bool(float(two.breakpoints[0]) < 0)
        return Subordination(ProductEquations(excess(one), excess(two), signed=signed))

    @property
    def _seams(self) -> tuple[float, ...]:
        edges = self.subordination.edges
        inside = np.searchsorted(edges, 0.0, side="right") % 2 == 1
        return (0.0,) if inside and 0.0 not in edges and np.isinf(self._at_zero) else ()

    @cached_property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        found: dict[float, float] = {}
        ours, theirs = atoms_of(self.left), atoms_of(self.right)
        zero = max([mass for place, mass in [*ours, *theirs] if place == 0], default=0.0)
        if zero > 0:
            found[0.0] = zero
        for a, p in ours:
            for b, q in theirs:
                if a * b != 0 and p + q > 1 + _TOLERANCE:
                    found[a * b] = p + q - 1
        return tuple(sorted(found.items()))

    def r_transform(self, w: Any) -> Any:
        """From the Stieltjes transform: R has no closed form in R_μ and R_ν."""
        return r_transform(self, w)

    def s_transform(self, w: Any) -> Any:
        """S_μ(w) S_ν(w)."""
        return s_transform(self.left, w) * s_transform(self.right, w)

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) of A^(1/2) U B Uᵀ A^(1/2), A of the measure on [0, ∞): O(dim³)."""
        a, b = levels_of(self.left, dim), levels_of(self.right, dim)
        if a[0] < 0:
            a, b = b, a
        u = np.sqrt(a)[:, None] * haar(dim, rng)
        return np.asarray(np.linalg.eigvalsh((u * b) @ u.T), float)

    def stieltjes(self, z: Any) -> Any:
        z = np.asarray(z, complex)
        m = np.asarray(super().stieltjes(z))
        hole = (z == 0) & np.isnan(m)  # w₁ w₂/z is 0/0 there
        return np.where(hole, self._at_zero, m)[()] if hole.any() else m[()]

    def density(self, x: Any) -> Any:
        """Next to an atom at 0 inside the support by a cubic: m there is -mass/z and a remainder.

        The remainder, in which the density is smooth, has lost the digits of the quotient.
        """
        density = np.asarray(super().density(x))
        around = [pair for pair in self.support if pair[0] < 0 < pair[1]]
        if not around or 0.0 not in dict(self.atoms) or np.isinf(self._at_zero):
            return density[()]
        h = 1e-4 * min(-around[0][0], around[0][1])
        nodes = h * np.array([-2.0, -1.0, 1.0, 2.0])
        cubic = np.polyfit(nodes / h, super().density(nodes), 3)
        return np.where(np.abs(x) < h, np.polyval(cubic, np.asarray(x) / h), density)[()]

    @cached_property
    def _at_zero(self) -> complex:
        """m(0) by symmetric differences, or infinite where m grows towards 0."""
        step = 1e-5 * self.subordination.width
        far, near = (
            np.mean(self._raw_stieltjes(h * np.array([-1.0, 1.0], complex)))
            for h in (step, step / 8)
        )
        if not abs(near) < 1.1 * abs(far) + 1e-6 / self.subordination.width:
            return complex(np.inf)
        return complex((64 * near - far) / 63)

    def moment(self, order: int) -> Any:
        """From 1/w₁ = t B_ν(1/w₂), 1/w₂ = t B_μ(1/w₁) as power series in t = 1/z; see below."""
        if check_order("order", order, least=0) == 0:
            return 1
        return product_moments(_moments(self.left, order), _moments(self.right, order))[-1]

    def free_cumulants(self, order: int) -> list[Any]:
        ours, theirs = (_moments(m, check_order("order", order)) for m in (self.left, self.right))
        return free_cumulants_from_moments(product_moments(ours, theirs))


def _check_scales(measure: SpectralMeasure) -> None:
    """Refuse mass so near to 0 that the interval which it makes in a product would be lost."""
    places = [(float(x), float(x)) for x, _ in atoms_of(measure)]
    places += [(float(a), float(b)) for a, b in getattr(measure, "support", ())]
    sizes = np.abs(np.array(places)).max(axis=1)
    small = sizes[(sizes > 0) & (sizes < _FINEST * sizes.max())]
    if small.size:
        raise ValueError(
            f"a measure has mass at {small.max():.2g}, below {_FINEST:g} of its largest value "
            f"{sizes.max():.2g}: the product has an interval there that is too narrow to be "
            "resolved; put that mass at 0, which moves no eigenvalue by more"
        )


def levels_of(measure: SpectralMeasure, dim: int) -> Array:
    """The quantiles (i - 1/2)/dim: eigenvalues of a matrix that has the measure for its law."""
    side = check_order("dim", dim)
    return np.asarray(measure.quantile((np.arange(side) + 0.5) / side), float)


def haar(dim: int, rng: np.random.Generator) -> Array:
    """A uniformly random orthogonal matrix (dim, dim).

    Mezzadri, Notices AMS 54 (2007): QR of a Gaussian matrix, R with a positive diagonal.
    """
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return np.asarray(q * np.sign(np.diag(r)))


def product_moments(first: list[Any], second: list[Any]) -> list[Any]:
    """Moments 1..n of μ ⊠ ν from those of μ and ν, in any arithmetic; means may be 0.

    With η = ψ/(1 + ψ), ψ(u) = Σ m_n uⁿ, and B(u) = η(u)/u = -H(1/u), the subordination functions
    u_i = 1/w_i at t = 1/z are power series with u₁ = t B_ν(u₂), u₂ = t B_μ(u₁), and
    η(t) = u₁ u₂/t. Each round fixes one more order.

    >>> product_moments([1, 2, 5], [1, 2, 5])
    [1, 3, 12]
    """
    order = len(first)
    ours, theirs = _boolean(first), _boolean(second)
    one: list[Any] = [0] * (order + 1)
    two: list[Any] = [0] * (order + 1)
    for _ in range(order):
        one, two = [0, *_compose(theirs, two)[:-1]], [0, *_compose(ours, one)[:-1]]
    eta = _times([*one[1:], 0], two)
    psi = list(eta)
    for n in range(1, order + 1):  # ψ = η (1 + ψ)
        psi[n] = eta[n] + sum(eta[k] * psi[n - k] for k in range(1, n))
    return psi[1:]


def _boolean(moments: list[Any]) -> list[Any]:
    """B = η/u up to the power n, from m_1..m_n; the last coefficient is not used."""
    found: list[Any] = []
    for n in range(len(moments)):
        found.append(moments[n] - sum(found[k] * moments[n - 1 - k] for k in range(n)))
    return [*found, 0]


def _times(p: list[Any], q: list[Any]) -> list[Any]:
    return [sum(p[k] * q[n - k] for k in range(n + 1)) for n in range(len(p))]


def _compose(outer: list[Any], inner: list[Any]) -> list[Any]:
    """outer(inner(t)) by Horner's rule, inner without constant term."""
    total: list[Any] = [0] * len(inner)
    for coefficient in outer[::-1]:
        total = _times(total, inner)
        total[0] = total[0] + coefficient
    return total


def atoms_of(measure: SpectralMeasure) -> list[tuple[float, float]]:
    """Pairs (location, mass)."""
    if isinstance(measure, DiscreteMeasure):
        places, index = np.unique(measure.nodes, return_inverse=True)
        masses = np.bincount(index, measure.weights)
        return [(float(x), float(p)) for x, p in zip(places, masses, strict=True) if p > 0]
    return [(float(x), float(p)) for x, p in getattr(measure, "atoms", ())]


def _moments(measure: SpectralMeasure, order: int) -> list[Any]:
    return [measure.moment(k) for k in range(1, order + 1)]


def _cumulants(measure: SpectralMeasure, order: int) -> list[Any]:
    if isinstance(measure, Law):
        return measure.free_cumulants(order)
    return free_cumulants_from_moments(_moments(measure, check_order("order", order)))


def _r_transform(measure: SpectralMeasure, w: Any) -> Any:
    return measure.r_transform(w) if isinstance(measure, Law) else r_transform(measure, w)


def s_transform(measure: SpectralMeasure, w: Any) -> Any:
    """S(w) = u/w where u R(u) = w: of a law its own, of atoms N(z) where z N(z) = (1 + w)/w."""
    if isinstance(measure, Law):
        return measure.s_transform(w)
    return _AtomicS(measure).s_transform(w)


@dataclass(frozen=True, eq=False)
class _AtomicS(Law):
    """A discrete measure as a law, for the generic S-transform."""

    measure: SpectralMeasure

    @property
    def support(self) -> tuple[Interval, ...]:
        return ()

    def stieltjes(self, z: Any) -> Any:
        return self.measure.stieltjes(z)

    def moment(self, order: int) -> Any:
        return self.measure.moment(order)

    def r_transform(self, w: Any) -> Any:
        return r_transform(self.measure, w)


def _turn(measure: DiscreteMeasure, w: Any) -> Any:
    """Im ∫ log(w - t) dμ(t), at real w the limit from above."""
    return _angle(np.asarray(w)[..., None] - measure.nodes) @ measure.weights


def _angle(w: Any) -> Any:
    """The argument in [0, π], of rounding errors below the axis that of the axis."""
    return np.arctan2(np.maximum(np.imag(w), 0.0), np.real(w))
