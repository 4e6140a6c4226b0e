"""Families of laws by name: what a fit can look for.

Any callable of named parameters that returns a law is a family. A :class:`Family` also knows its
name, the ranges of its parameters and where to begin. ``with_zeros`` and ``with_noise`` make new
families of old ones; outliers are no part of a family: leave them out by ``window=``, or deflate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from rmthess.free.boxplus import boxplus
from rmthess.laws.arcsine import Arcsine
from rmthess.laws.deformed_wigner import DeformedWigner
from rmthess.laws.fuss_catalan import FussCatalan
from rmthess.laws.kesten_mckay import KestenMcKay
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.laws.mixture import mixture
from rmthess.laws.sample_covariance import SampleCovariance
from rmthess.laws.semicircle import Semicircle
from rmthess.laws.uniform import Uniform
from rmthess.laws.wachter import Wachter
from rmthess.laws.wishart_plus_wigner import WishartPlusWigner
from rmthess.log_axis import without_zeros
from rmthess.measure import DiscreteMeasure, SpectralMeasure, check_order

Array = NDArray[np.float64]
Box = Mapping[str, tuple[float, float]]
Parameters = Mapping[str, float]

SIDE = 1000  # a population of unbounded support ends where a matrix of this side would
CELLS = 80  # of a population; what Lanczos shows of 40 is off by up to a third of a fit's distance
_START = 0.4  # the ratio that a search for a heavy tail begins at
_SINGULAR = 0.02  # unless more than this share of the spectrum cannot be told from 0


@dataclass(frozen=True)
class Family:
    """law(**parameters) -> Law, with the open ``bounds`` of each parameter.

    A fit begins at ``moment_estimate(measure)``, a closed form, or at ``cut_estimate(measure)``,
    for a measure whose low end was not seen, whichever law is nearer; or it searches
    ``box(measure)``, the ranges that are worth looking at. ``ordered`` gives one of several equal
    sets of parameters a canonical form: the atoms of a population ascend. ``rank_parameter`` names
    the one that is dim/rank where a matrix is singular: all its eigenvalues tell it, by counting.
    ``scale_parameter`` names one of which every law is a multiple.

    >>> FAMILIES["marchenko_pastur"](ratio=0.5, variance=2.0)
    MarchenkoPastur(ratio=0.5, variance=2.0)
    """

    name: str
    law: Callable[..., Law]
    bounds: Box
    moment_estimate: Callable[[SpectralMeasure], Parameters] | None = None
    box: Callable[[SpectralMeasure], Box] | None = None
    ordered: Callable[[Parameters], Parameters] = dict
    likelihood_estimate: Callable[[Array], Parameters] | None = None
    rank_parameter: str | None = None
    scale_parameter: str | None = None
    cut_estimate: Callable[[SpectralMeasure], Parameters] | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.bounds)

    def __call__(self, **parameters: float) -> Law:
        return self.law(**parameters)


def family(name: str) -> Family:
    """The family of that name; ``ValueError`` with the known names for another.

    >>> family("semicircle").parameters
    ('variance', 'mean')
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown law {name!r}; the laws that can be fitted are {_known()}")
    return FAMILIES[name]


def _known() -> str:
    return ", ".join(FAMILIES)


# ---------------------------------------------------------------------------- populations


def lognormal_population(
    scale: float, spread: float, side: int = SIDE, cells: int = CELLS
) -> DiscreteMeasure:
    """scale exp(spread Z), Z standard normal, as a matrix of that ``side`` has it.

    ``scale`` the median, ``spread`` the standard deviation of the natural logarithm. The least and
    the largest eigenvalue are atoms of mass 1/side; between them ``cells`` of equal width in Z.
    """
    least = float(ndtri(1 / side))
    levels = ndtr(np.linspace(least, -least, cells + 1))
    return _cut(levels, lambda p: scale * np.exp(spread * ndtri(p)))


def power_law_population(
    scale: float, exponent: float, side: int = SIDE, cells: int = CELLS
) -> DiscreteMeasure:
    """P(t > x) = (scale/x)^exponent for x > scale, as a matrix of that ``side`` has it.

    t = scale exp(E/exponent), E exponential. The largest eigenvalue is an atom of mass 1/side; the
    rest ``cells`` of equal width in E.
    """
    levels = 1 - np.exp(-np.linspace(0, np.log(side), cells + 1))
    return _cut(levels, lambda p: scale * np.exp(-np.log1p(-p) / exponent))


def _cut(levels: Array, quantile: Callable[[Array], Array]) -> DiscreteMeasure:
    """An atom a cell between two levels, at the cell's median."""
    ends = np.unique(np.concatenate([[0.0], levels, [1.0]]))
    return DiscreteMeasure(quantile((ends[:-1] + ends[1:]) / 2), np.diff(ends))


def free_atoms(count: int, parameters: Parameters) -> DiscreteMeasure:
    """``count`` atoms at atom1, atom2, ... of masses weight1, ..., the last what is left."""
    nodes = [parameters[f"atom{k}"] for k in range(1, count + 1)]
    weights = [parameters[f"weight{k}"] for k in range(1, count)]
    rest = 1 - sum(weights)
    if min(weights, default=0.5) < 0 or rest < 0:
        raise ValueError(f"weights must not be negative and sum to at most 1, got {weights}")
    return DiscreteMeasure(nodes, [*weights, rest])


def _ascending(count: int, parameters: Parameters) -> Parameters:
    """The same population with its atoms in ascending order; as it is where some are fixed."""
    if not set(_atom_bounds(count, 0.0)) <= set(parameters):
        return dict(parameters)
    nodes = np.array([parameters[f"atom{k}"] for k in range(1, count + 1)])
    weights = np.array([parameters[f"weight{k}"] for k in range(1, count)])
    weights = np.append(weights, 1 - weights.sum())
    order = np.argsort(nodes, kind="stable")
    named = {f"atom{k}": float(nodes[i]) for k, i in enumerate(order, 1)}
    named |= {f"weight{k}": float(weights[i]) for k, i in enumerate(order[:-1], 1)}
    return {name: named.get(name, value) for name, value in parameters.items()}


def _atom_bounds(count: int, lowest: float) -> dict[str, tuple[float, float]]:
    found = {f"atom{k}": (lowest, np.inf) for k in range(1, count + 1)}
    return found | {f"weight{k}": (0.0, 1.0) for k in range(1, count)}


# ---------------------------------------------------------------------------- where to look


def _mean_and_spread(measure: SpectralMeasure) -> tuple[float, float]:
    mean = float(measure.moment(1))
    return mean, float(np.sqrt(max(measure.integrate(lambda x: (x - mean) ** 2), 0.0)))


def _positive(measure: SpectralMeasure) -> float:
    """A positive size: the mean, or the standard deviation where the mean is not positive."""
    mean, spread = _mean_and_spread(measure)
    return mean if mean > 0 else spread


def _covariance_atoms_box(count: int, measure: SpectralMeasure) -> Box:
    size = _positive(measure)
    box = {"ratio": (0.03, 3.0)}
    box |= {f"atom{k}": (0.05 * size, 8 * size) for k in range(1, count + 1)}
    return box | {f"weight{k}": (0.0, 1.0) for k in range(1, count)}


def _wigner_atoms_box(count: int, measure: SpectralMeasure) -> Box:
    mean, spread = _mean_and_spread(measure)
    box = {f"atom{k}": (mean - 2.5 * spread, mean + 2.5 * spread) for k in range(1, count + 1)}
    box |= {f"weight{k}": (0.0, 1.0) for k in range(1, count)}
    return box | {"variance": (0.02 * spread**2, spread**2)}


def _logarithms(measure: SpectralMeasure) -> tuple[Array, Array, float]:
    """Logarithms of the positive part of a spectrum, their weights, and the ratio.

    A singular matrix tells the ratio by its zeros; else it is taken to be 0.4.
    """
    rest, share = without_zeros(measure)
    kept = rest.nodes > 1e-12 * np.abs(rest.nodes).max()
    if not kept.any():
        raise ValueError("no eigenvalue is positive, and the population of this family is")
    ratio = 1 / (1 - share) if share > _SINGULAR else _START
    return np.log(rest.nodes[kept]), rest.weights[kept] / rest.weights[kept].sum(), ratio


def _white_logarithms(ratio: float) -> tuple[float, float]:
    """Mean and variance of log λ, λ > 0, of a white Wishart matrix: what they add to those of t."""
    nodes, masses = MarchenkoPastur(ratio).quadrature(256)
    own, masses = np.log(nodes[:256]), masses[:256] / masses[:256].sum()  # the atom comes last
    shift = float(masses @ own)
    return shift, float(masses @ (own - shift) ** 2)


def _lognormal_start(measure: SpectralMeasure) -> Parameters:
    logs, weights, ratio = _logarithms(measure)
    mean = float(weights @ logs)
    return _lognormal(ratio, mean, float(weights @ (logs - mean) ** 2))


def _lognormal_cut(measure: SpectralMeasure) -> Parameters:
    """By the mean and variance of a normal distribution that is cut at the least logarithm.

    Above a cut at α deviations, with h = φ(α)/(1 - Φ(α)), variance/(mean - cut)² is
    (1 + α h - h²)/(h - α)²: Cohen, Ann. Math. Stat. 21 (1950).
    """
    logs, weights, ratio = _logarithms(measure)
    mean, cut = float(weights @ logs), float(logs[0])
    share = float(weights @ (logs - mean) ** 2) / max(mean - cut, 1e-300) ** 2
    alpha = np.linspace(-8.0, 1.0, 901)
    hazard = np.exp(-(alpha**2) / 2) / np.sqrt(2 * np.pi) / ndtr(-alpha)
    place = float(np.interp(share, (1 + alpha * hazard - hazard**2) / (hazard - alpha) ** 2, alpha))
    deviation = (mean - cut) / (float(np.interp(place, alpha, hazard)) - place)
    return _lognormal(ratio, cut - place * deviation, deviation**2)


def _lognormal(ratio: float, mean: float, variance: float) -> Parameters:
    """Of a population behind a spectrum whose logarithms have this mean and variance."""
    shift, added = _white_logarithms(ratio)
    spread = float(np.sqrt(max(variance - added, 0.04)))
    return {"ratio": ratio, "scale": float(np.exp(mean - shift)), "spread": spread}


def _power_law_start(measure: SpectralMeasure) -> Parameters:
    logs, weights, ratio = _logarithms(measure)
    shift, added = _white_logarithms(ratio)
    mean = float(weights @ logs)
    spread = float(np.sqrt(max(float(weights @ (logs - mean) ** 2) - added, 0.04)))
    return {"ratio": ratio, "scale": float(np.exp(mean - shift - spread)), "exponent": 1 / spread}


# ---------------------------------------------------------------------------- families


def _of_class(name: str, law: type[Law]) -> Family:
    return Family(
        name, law, law.bounds, law.moment_estimate,
        likelihood_estimate=getattr(law, "likelihood_estimate", None),
        rank_parameter="ratio" if law is MarchenkoPastur else None,
    )  # fmt: skip


_COVARIANCE: Box = {"ratio": (0.0, np.inf), "scale": (0.0, np.inf)}


def lognormal_covariance(side: int = SIDE) -> Family:
    """Sample covariance of a log-normal population: ratio, scale (median), spread.

    ``side``: where the population ends, see ``lognormal_population``; the side of the matrix.
    """
    count = check_order("side", side, least=2)

    def law(ratio: float, scale: float, spread: float) -> Law:
        return SampleCovariance(ratio, lognormal_population(scale, spread, count))

    bounds = {**_COVARIANCE, "spread": (0.0, np.inf)}
    return Family(
        "lognormal_covariance", law, bounds, _lognormal_start, rank_parameter="ratio",
        scale_parameter="scale", cut_estimate=_lognormal_cut,
    )  # fmt: skip


def power_law_covariance(side: int = SIDE) -> Family:
    """Sample covariance of a power-law population: ratio, scale (least value), exponent."""
    count = check_order("side", side, least=2)

    def law(ratio: float, scale: float, exponent: float) -> Law:
        return SampleCovariance(ratio, power_law_population(scale, exponent, count))

    bounds = {**_COVARIANCE, "exponent": (0.0, np.inf)}
    return Family(
        "power_law_covariance", law, bounds, _power_law_start, rank_parameter="ratio",
        scale_parameter="scale",
    )  # fmt: skip


def discrete_covariance(atoms: int = 2) -> Family:
    """Sample covariance of ``atoms`` free atoms: the inverse problem for a population spectrum."""
    count = check_order("atoms", atoms)

    def law(ratio: float, **population: float) -> Law:
        return SampleCovariance(ratio, free_atoms(count, population))

    return Family(
        f"discrete_covariance_{count}", law, {"ratio": (0.0, np.inf), **_atom_bounds(count, 0.0)},
        box=partial(_covariance_atoms_box, count), ordered=partial(_ascending, count),
        rank_parameter="ratio",
    )  # fmt: skip


def discrete_wigner(atoms: int = 2) -> Family:
    """A Wigner matrix on ``atoms`` free atoms: semicircle of ``variance`` ⊞ the atoms."""
    count = check_order("atoms", atoms)

    def law(variance: float, **population: float) -> Law:
        return DeformedWigner(free_atoms(count, population), variance)

    return Family(
        f"discrete_wigner_{count}", law,
        {**_atom_bounds(count, -np.inf), "variance": (0.0, np.inf)},
        box=partial(_wigner_atoms_box, count), ordered=partial(_ascending, count),
    )  # fmt: skip


def fuss_catalan(order: int = 2) -> Family:
    """Squared singular values of a product of ``order`` square matrices, times ``scale``."""
    base = FussCatalan(check_order("order", order))
    return Family(
        f"fuss_catalan_{order}", lambda scale: base.dilate(scale), {"scale": (0.0, np.inf)},
        lambda measure: {"scale": _positive(measure)},
    )  # fmt: skip


def kesten_mckay(degree: int = 3) -> Family:
    """Random regular graphs of that ``degree``, times ``scale``: m_2 = degree scale²."""
    base = KestenMcKay(check_order("degree", degree, least=2))

    def estimate(measure: SpectralMeasure) -> Parameters:
        return {"scale": float(np.sqrt(measure.moment(2) / degree))}

    return Family(
        f"kesten_mckay_{degree}", lambda scale: base.dilate(scale), {"scale": (0.0, np.inf)},
        estimate,
    )  # fmt: skip


def with_zeros(base: Family) -> Family:
    """zeros δ(0) + (1 - zeros) bulk: a share ``zeros`` of the eigenvalues is exactly 0."""

    def law(zeros: float, **bulk: float) -> Law:
        parts = [DiscreteMeasure([0.0], [1.0]), base(**bulk)]
        found = mixture(parts, [zeros, 1 - zeros])
        assert isinstance(found, Law)
        return found

    def box(measure: SpectralMeasure) -> Box:
        bulk, share = without_zeros(measure)
        share = min(max(share, 1e-3), 0.999)
        return {"zeros": (0.9 * share, min(1.1 * share, 0.999)), **_box_of(base, bulk)}

    return Family(
        f"{base.name}_with_zeros", law, {"zeros": (0.0, 1.0), **base.bounds}, box=box,
        ordered=lambda p: {"zeros": p["zeros"], **base.ordered(_without(p, "zeros"))}
        if "zeros" in p else base.ordered(p),
    )  # fmt: skip


def with_noise(base: Family) -> Family:
    """bulk ⊞ semicircle of variance ``noise``: a Wigner matrix added to a matrix of the bulk."""

    def law(noise: float, **bulk: float) -> Law:
        found = boxplus(base(**bulk), Semicircle(noise))
        assert isinstance(found, Law)
        return found

    def box(measure: SpectralMeasure) -> Box:
        variance = _mean_and_spread(measure)[1] ** 2
        return {"noise": (0.01 * variance, 0.9 * variance), **_box_of(base, measure)}

    return Family(
        f"{base.name}_with_noise", law, {"noise": (0.0, np.inf), **base.bounds}, box=box,
        ordered=lambda p: {"noise": p["noise"], **base.ordered(_without(p, "noise"))}
        if "noise" in p else base.ordered(p),
    )  # fmt: skip


def _without(parameters: Parameters, name: str) -> dict[str, float]:
    return {key: value for key, value in parameters.items() if key != name}


def _box_of(base: Family, measure: SpectralMeasure) -> Box:
    """A search box: the family's own, or from a third to three times its moment estimate."""
    if base.box is not None:
        return base.box(measure)
    assert base.moment_estimate is not None
    spread = _mean_and_spread(measure)[1]
    found: dict[str, tuple[float, float]] = {}
    for name, value in base.moment_estimate(measure).items():
        low, high = base.bounds[name]
        if low >= 0:
            found[name] = (max(value / 3, low), min(3 * value, high))
        else:
            found[name] = (value - spread, value + spread)
    return found


def _registry(*families: Family) -> dict[str, Family]:
    return {each.name: each for each in families}


_MP = _of_class("marchenko_pastur", MarchenkoPastur)

FAMILIES: Mapping[str, Family] = _registry(
    _of_class("semicircle", Semicircle),
    _MP,
    with_zeros(_MP),
    with_noise(_MP),
    lognormal_covariance(),
    power_law_covariance(),
    discrete_covariance(2),
    discrete_covariance(3),
    discrete_wigner(2),
    discrete_wigner(3),
    _of_class("wishart_plus_wigner", WishartPlusWigner),
    _of_class("uniform", Uniform),
    with_noise(_of_class("uniform", Uniform)),
    _of_class("arcsine", Arcsine),
    _of_class("wachter", Wachter),
    kesten_mckay(3),
    fuss_catalan(2),
    fuss_catalan(3),
)
