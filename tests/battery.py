"""The law battery: what every law must satisfy. Adding a law is one line in ``LAWS``.

Each check takes one law and holds it against a witness that shares no line with it: Gauss–Legendre
quadrature, 40 digits of mpmath, a sympy identity, non-crossing partitions, a dense random matrix,
or the generic definition in ``Law`` where the law overrides it. Parameters are never 1: there
errors of scale cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import pairwise
from math import prod
from typing import Any

import mpmath
import numpy as np
import sympy

import rmthess as rm
from rmthess.laws.compression import Compression
from rmthess.laws.cumulants import free_cumulants_from_moments, moments_from_free_cumulants
from rmthess.laws.deformed_wigner import DeformedWigner
from rmthess.laws.free_compound_poisson import FreeCompoundPoisson, FreeLevy
from rmthess.laws.kernel_law import KernelLaw
from rmthess.laws.law import AffineLaw, Law
from rmthess.laws.mixture import Mixture
from rmthess.laws.sample_covariance import SampleCovariance

atoms = rm.DiscreteMeasure

LAWS: dict[str, Law] = {
    "semicircle": rm.Semicircle(1.7, 0.43),
    "centred_semicircle": rm.Semicircle(0.43),
    "marchenko_pastur": rm.MarchenkoPastur(0.43, 1.7),
    "marchenko_pastur_with_atom": rm.MarchenkoPastur(1.7, 0.43),
    "marchenko_pastur_hard_edge": rm.MarchenkoPastur(1, 1.7),
    "dilated_semicircle": rm.Semicircle(0.43, 1.7).dilate(-1.7),
    "shifted_marchenko_pastur": rm.MarchenkoPastur(0.43, 1.7).shift(-0.43),
    "reflected_marchenko_pastur": rm.MarchenkoPastur(0.43, 1.7).dilate(-0.43),
    "reflected_marchenko_pastur_with_atom": rm.MarchenkoPastur(1.7, 0.43).dilate(-1.7).shift(0.43),
    "dilated_hard_edge": rm.MarchenkoPastur(1, 1.7).shift(0.43).dilate(1.7),
    "uniform": rm.Uniform(-0.43, 1.7),
    "arcsine": rm.Arcsine(-0.43, 1.7),
    "centred_arcsine": rm.Arcsine(-1.7, 1.7),
    "fuss_catalan": rm.FussCatalan(2),
    "fuss_catalan_of_real_order": rm.FussCatalan(1.7),
    "wachter": rm.Wachter(0.43, 0.17),
    "wachter_with_atoms": rm.Wachter(1.7, 1.43),
    "wachter_hard_edge": rm.Wachter(1, 0.43),
    "kesten_mckay": rm.KestenMcKay(3),
    "kesten_mckay_of_real_degree": rm.KestenMcKay(4.3),
    "mixture": rm.mixture([rm.Semicircle(0.43), rm.MarchenkoPastur(0.17, 6.1)], [0.3, 0.7]),
    "overlapping_mixture_with_atoms": rm.mixture(
        [
            rm.Semicircle(0.43, 0.43),
            rm.MarchenkoPastur(1.7, 0.43),
            rm.DiscreteMeasure([0.0, 2.9], [0.3, 0.7]),
        ],
        [0.43, 0.4, 0.17],
    ),
    "sample_covariance_with_gaps": SampleCovariance(0.1, atoms([1, 3, 10], [0.3, 0.3, 0.4])),
    "sample_covariance_with_atom": SampleCovariance(1.7, atoms([0, 0.43, 1.7], [0.3, 0.3, 0.4])),
    "sample_covariance_of_a_law": SampleCovariance(1.7, rm.MarchenkoPastur(0.43)),
    "free_compound_poisson": FreeCompoundPoisson(0.43, atoms([-1.7, 0.43, 1], [0.2, 0.3, 0.5])),
    "free_levy": FreeLevy(-0.43, atoms([-0.43, 0, 1.7], [0.2, 0.5, 0.3]), 1.7),
    "wishart_plus_wigner": rm.WishartPlusWigner(0.43, 0.17),
    "deformed_wigner_with_gaps": DeformedWigner(atoms([-1.7, 0.43, 1.7], [0.3, 0.3, 0.4]), 0.1),
    "compression_with_atom": Compression(atoms([-1.7, 0.43, 1.7], [0.15, 0.65, 0.2]), 0.7),
}

Check = Callable[[Law], None]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


# ---------------------------------------------------------------------------- witnesses


def pieces(law: Law) -> list[tuple[float, float]]:
    """The intervals of the support, cut where the density is not smooth (a sum of two bulks)."""
    cuts = law.breakpoints
    return [
        (float(a), float(b))
        for left, right in law.support
        for a, b in pairwise(cuts)
        if left <= a and b <= right
    ]


def left_edge_power(law: Law) -> float:
    """n such that the density is x^{1/n - 1} times a smooth function of x^{1/n} at its left end."""
    return float(law.order) + 1 if isinstance(law, rm.FussCatalan) else 1.0


def has_a_cosine_series(law: Law) -> bool:
    """True where every edge is like √x or 1/√x, which the generic cdf and quadrature ask for."""
    return not isinstance(law, rm.Uniform | rm.FussCatalan | Mixture)


def quadrature(law: Law, upto: float = np.inf, nodes: int = 200) -> tuple[Any, Any]:
    """Nodes and weights for ∫_{x <= upto} f dμ: Gauss–Legendre in t, x = left + width sin² t.

    The substitution makes edges like √x and like 1/√x analytic; a steeper one takes x = left +
    width sin^{2n} t.
    """
    t, w = np.polynomial.legendre.leggauss(nodes)
    xs, ws = [np.array([])], [np.array([])]
    power = left_edge_power(law)
    for left, right in pieces(law):
        width = right - left
        end = np.arcsin(np.clip((upto - left) / width, 0, 1) ** (0.5 / power))
        if end == 0:
            continue
        angle = end * (t + 1) / 2
        x = left + width * np.sin(angle) ** (2 * power)
        slope = 2 * power * np.sin(angle) ** (2 * power - 1) * np.cos(angle)
        xs.append(x)
        ws.append(end / 2 * w * width * slope * law.density(x))
    for location, mass in law.atoms:
        if location <= upto:
            xs.append([float(location)])
            ws.append([float(mass)])
    return np.concatenate(xs), np.concatenate(ws)


def sums_over_poles(law: Law) -> bool:
    """Kernel laws: BLAS adds the poles in an order that depends on the shape of the batch."""
    return isinstance(law, KernelLaw)


def digits(law: Law) -> float:
    """What ``quadrature`` keeps: x near a hard edge other than 0 loses half its digits."""
    return 5e-12 if isinstance(law, rm.Arcsine) else 1e-12


def ends(law: Law) -> tuple[float, float]:
    return float(law.breakpoints[0]), float(law.breakpoints[-1])


def width(law: Law) -> float:
    left, right = ends(law)
    return right - left


def inner_points(law: Law, count: int = 7) -> Any:
    """Points inside each interval, some within 1e-6 of its length from the edges."""
    fraction = np.concatenate([[1e-6, 1e-3], np.linspace(0.03, 0.97, count), [1 - 1e-3, 1 - 1e-6]])
    return np.concatenate([float(a) + (float(b) - float(a)) * fraction for a, b in law.support])


def middle_points(law: Law) -> Any:
    """Points inside each interval, away from the edges."""
    fraction = np.linspace(0.03, 0.97, 7)
    return np.concatenate([float(a) + (float(b) - float(a)) * fraction for a, b in law.support])


def outer_points(law: Law) -> Any:
    """Points outside the support that are no atoms."""
    left, right = ends(law)
    gaps = [(left - width(law), left), (right, right + width(law))]
    gaps += [(float(a), float(b)) for a, b in zip(law.breakpoints[:-1], law.breakpoints[1:])]
    middles = [(a + b) / 2 for a, b in gaps]
    return np.array([x for x in middles if not any(a < x < b for a, b in law.support)])


def off_axis(law: Law) -> Any:
    """Points in the upper half-plane, from a fifth of the width to a hundred widths away."""
    left, right = ends(law)
    directions = np.exp(1j * np.array([0.3, 1.2, 2.9]))
    near = left + (right - left) * (np.array([0.1, 0.5, 0.8]) + 0.2j)
    far = (left + right) / 2 + width(law) * np.outer([1.5, 100.0], directions).ravel()
    return np.concatenate([near, far])


def rebuilt(law: Law, number: Callable[[str, Any], Any]) -> Law:
    """The same law with every parameter p of name n replaced by number(n, p)."""
    parts = {f.name: getattr(law, f.name) for f in fields(law) if f.init}  # type: ignore[arg-type]
    return type(law)(**{n: _rebuilt_part(n, part, number) for n, part in parts.items()})


def _rebuilt_part(name: str, part: Any, number: Callable[[str, Any], Any]) -> Any:
    if isinstance(part, Law):
        return rebuilt(part, number)
    return number(name, part) if isinstance(part, int | float) else part


def symbolic(law: Law) -> Law:
    """The law with a positive symbol for each parameter (a reflection becomes a dilation)."""
    return rebuilt(law, lambda name, _: sympy.Symbol(name, positive=True))


def forty_digits(law: Law) -> Law:
    return rebuilt(law, lambda _, value: mpmath.mpf(str(value)))


def has_equation(law: Law) -> bool:
    """True where the law states a polynomial."""
    try:
        law.equation(0.3 + 0.4j, 0.5)
    except NotImplementedError:
        return False
    return True


def has_formula(law: Law) -> bool:
    """True where the transform is a formula of z, and so takes every arithmetic."""
    if not has_equation(law):
        return False
    try:
        law.stieltjes(sympy.Symbol("z"))
    except (TypeError, NotImplementedError):
        return False
    return True


def takes_symbols(law: Law) -> bool:
    """True where every parameter is a number, and symbols for them give symbolic moments."""
    parts = [getattr(law, f.name) for f in fields(law) if f.init]  # type: ignore[arg-type]
    if not all(isinstance(part, Law | int | float) for part in parts):
        return False
    if not all(takes_symbols(part) for part in parts if isinstance(part, Law)):
        return False
    try:
        symbolic(law).moment(2)
    except (TypeError, NotImplementedError):
        return False
    return True


def vanishes(expression: Any) -> bool:
    """True where a sympy expression is identically 0."""
    return bool(sympy.simplify(sympy.numer(sympy.together(expression))) == 0)


def close(found: Any, wanted: Any, tolerance: float) -> None:
    """|found - wanted| <= tolerance max(1, |wanted|) everywhere, and the same shape."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"shape {found.shape}, expected {wanted.shape}"
    error = np.abs(found - wanted) / np.maximum(1, np.abs(wanted))
    assert np.all(error <= tolerance), f"error {np.max(error):.2e}: {found} is not {wanted}"


def partitions(items: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """All set partitions."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for part in partitions(rest):
        yield [(first,), *part]
        for k, block in enumerate(part):
            yield [*part[:k], (first, *block), *part[k + 1 :]]


def crosses(p: tuple[int, ...], q: tuple[int, ...]) -> bool:
    return any(a < b < c < d for a in p for c in p for b in q for d in q)


def non_crossing(order: int) -> list[list[tuple[int, ...]]]:
    return [
        part
        for part in partitions(tuple(range(order)))
        if not any(crosses(p, q) for p in part for q in part if p is not q)
    ]


def moment_over_non_crossing_partitions(cumulants: list[Any], order: int) -> Any:
    """m_n = Σ over non-crossing partitions of Π κ_|block|: the definition of free cumulants."""
    return sum(prod(cumulants[len(block) - 1] for block in p) for p in non_crossing(order))


def dense_eigenvalues(law: Law, dim: int, rng: np.random.Generator) -> Any:
    """Eigenvalues of a matrix built entry by entry, of the ensemble that the law names."""
    if isinstance(law, AffineLaw):
        return law.scale * dense_eigenvalues(law.base, dim, rng) + law.offset
    if law.ensemble == "GOE":
        x = rng.normal(size=(dim, dim))
        matrix = law.mean * np.eye(dim) + np.sqrt(law.variance / (2 * dim)) * (x + x.T)
    elif law.ensemble == "Wishart":
        samples = round(dim / law.ratio)
        x = np.sqrt(law.variance) * rng.normal(size=(samples, dim))
        matrix = x.T @ x / samples
    else:
        raise NotImplementedError(f"build a matrix of ensemble {law.ensemble!r} here")
    return np.linalg.eigvalsh(matrix)


def distance_to_sample(law: Law, values: Any) -> float:
    return rm.wasserstein(law, rm.DiscreteMeasure.from_eigenvalues(values))


# ---------------------------------------------------------------------------- measure


@check
def the_mass_with_atoms_is_one(law: Law) -> None:
    _, weights = quadrature(law)
    close(weights.sum(), 1.0, 1e-12)  # near a shifted hard edge, x keeps fewer digits
    assert np.all(weights >= 0)
    close(law.integrate(np.ones_like), 1.0, 1e-12)


@check
def the_density_lives_on_the_support(law: Law) -> None:
    assert np.all(law.density(inner_points(law)) > 0)
    assert np.all(law.density(outer_points(law)) == 0)
    assert list(law.breakpoints) == sorted(set(law.breakpoints))


@check
def the_cdf_rises_from_zero_to_one_as_the_integral_of_the_density(law: Law) -> None:
    points = np.concatenate([inner_points(law), outer_points(law), law.breakpoints])
    # near a shifted hard edge, x - edge keeps few digits: the witness, not the cdf, loses 1e-10
    close(law.cdf(points), [quadrature(law, upto=x)[1].sum() for x in points], 1e-9)
    close(law.cdf([-np.inf, np.inf]), [0.0, 1.0], 1e-15)
    fine = width(law) * np.geomspace(1e-9, 1, 3000)  # from every edge, where roundings show
    fine = np.sort(np.add.outer(law.breakpoints, np.concatenate([-fine, fine])).ravel())
    for cdf in (law.cdf, (lambda x: Law.cdf(law, x)) if has_a_cosine_series(law) else law.cdf):
        assert np.all((cdf(fine) >= 0) & (cdf(fine) <= 1))  # or quantile(cdf(x)) would refuse
        roundings = 4e-15 if sums_over_poles(law) else 2e-15  # a few, of numbers near 1
        assert np.all(np.diff(cdf(fine)) >= -roundings)


@check
def the_quantile_is_the_generalised_inverse_of_the_cdf(law: Law) -> None:
    """cdf(quantile(p)) >= p, and cdf < p anywhere left of it."""
    p = np.concatenate([[1e-9, 1e-4], np.linspace(0.01, 0.99, 41), [1 - 1e-4, 1 - 1e-9]])
    x = law.quantile(p)
    assert np.all(np.diff(x) >= 0)
    # 4e-16 width is the resolution of x; next to a hard edge the cdf moves by its root there
    assert np.all(law.cdf(x + 1e-15 * width(law)) >= p - 1e-14)
    assert np.all(law.cdf(x - 1e-9 * width(law)) < p)
    for location, mass in law.atoms:
        below = law.cdf(location) - mass
        inside = below + mass * np.array([0.01, 0.5, 0.99])
        close(law.quantile(inside), np.full(3, location), 1e-15)
    close(law.quantile([0.0, 1.0]), ends(law), 1e-15)


@check
def the_cdf_is_undone_by_the_quantile(law: Law) -> None:
    x = np.concatenate([inner_points(law)[2:-2], law.breakpoints])
    x = x[[not any(abs(x_ - a) < 1e-9 for a, _ in law.atoms) for x_ in x]]
    # an edge beside a gap that an atom bounds from below has the atom's cdf: the atom comes first
    x = x[[law.cdf(x_) - law.cdf(x_ - 1e-6 * width(law)) > 0 or x_ == ends(law)[0] for x_ in x]]
    close(law.quantile(law.cdf(x)), x, 1e-9)  # an edge with density √x keeps (1e-16)^(2/3)


@check
def moments_are_integrals_of_powers(law: Law) -> None:
    x, w = quadrature(law)
    for order in range(9):
        size = np.abs(x) ** order @ w
        assert abs(law.moment(order) - x**order @ w) <= digits(law) * size
        assert abs(law.integrate(lambda t, k=order: t**k) - x**order @ w) <= digits(law) * size


@check
def jacobi_coefficients_reproduce_the_moments(law: Law) -> None:
    """(T^k)_00 = m_k for k <= 2 steps - 1."""
    a, b = law.jacobi(6)
    T = np.diag(a) + np.diag(b, 1) + np.diag(b, -1)
    x, w = quadrature(law)
    for order in range(12):
        found = np.linalg.matrix_power(T, order)[0, 0]
        assert abs(found - x**order @ w) <= digits(law) * (np.abs(x) ** order @ w)
    a, b = law.jacobi(1)
    close(a, [law.moment(1)], 1e-13)
    assert b.shape == (0,)


# ---------------------------------------------------------------------------- transforms


@check
def the_stieltjes_transform_is_the_cauchy_integral(law: Law) -> None:
    x, w = quadrature(law)
    z = off_axis(law)
    wanted = (1 / (x - z[:, None])) @ w
    close(law.stieltjes(z) / wanted, np.ones(z.shape), 1e-12)
    outside = outer_points(law)
    close(law.stieltjes(outside), (1 / (x - outside[:, None])) @ w, 1e-11)


@check
def the_slope_of_the_transform_is_its_derivative(law: Law) -> None:
    """m'(z) = ∮ m(ζ)/(ζ - z)² dζ/(2πi) on a circle of half the distance: error 2^-64."""
    x = np.linspace(*ends(law), 5)
    z = (x + 1j * width(law) * np.array([0.01, 0.3, 10.0])[:, None]).ravel()
    m, slope = law.stieltjes_and_slope(z)
    close(m, law.stieltjes(z), 1e-15)
    step = z.imag[:, None] / 2 * np.exp(2j * np.pi * np.arange(64) / 64)
    wanted = np.mean(law.stieltjes(z[:, None] + step) / step, axis=1)
    # the generic slope is a difference quotient
    close(slope / wanted, np.ones(z.size), 1e-9)


@check
def the_stieltjes_transform_keeps_its_digits_at_infinity(law: Law) -> None:
    """m(z) = -Σ m_k/z^{k+1}: no cancellation at |z| = 1e4 and 1e12."""
    z = width(law) * np.outer([1e4, 1e12], np.exp(1j * np.array([0.2, 1.6, 3.0])))
    series = -sum(law.moment(k) / z ** (k + 1) for k in range(5))
    close(law.stieltjes(z) / series, np.ones(z.shape), 1e-14)


@check
def a_real_argument_means_the_limit_from_above(law: Law) -> None:
    x = np.concatenate([inner_points(law), outer_points(law)])
    close(law.stieltjes(x).imag / np.pi, law.density(x), 1e-13)
    # Im m moves by O(√(height/distance to the edge)): 1e-12 of the width at 1e-3 of it
    x = inner_points(law)[1:-1]
    close(law.stieltjes(x + 1e-13j * width(law)), law.stieltjes(x), 1e-8)


@check
def the_stieltjes_transform_maps_each_half_plane_to_itself(law: Law) -> None:
    z = off_axis(law)
    m = law.stieltjes(z)
    assert np.all(m.imag > 0)
    close(law.stieltjes(z.conj()), m.conj(), 1e-15)


@check
def the_stieltjes_transform_solves_its_equation(law: Law) -> None:
    if not has_equation(law):
        return
    z = np.concatenate([off_axis(law), inner_points(law), outer_points(law)])
    m = law.stieltjes(z)
    # the size of its terms: the polynomial at points of the same modulus that are no roots
    size = np.max([np.abs(law.equation(m * np.exp(1j * turn), z)) for turn in (1, 2, 3)], axis=0)
    assert np.all(np.abs(law.equation(m, z)) <= 1e-13 * size)


@check
def the_r_transform_inverts_the_stieltjes_transform(law: Law) -> None:
    """R(w) + 1/w = z where w = -m(z)."""
    left, right = ends(law)
    z = (left + right) / 2 + width(law) * np.exp(1j * np.array([0.3, 1.2, 2.0, 2.9]))
    w = -law.stieltjes(z)
    close(law.r_transform(w) + 1 / w, z, 1e-13)


def small_arguments_of_s(law: Law) -> Any:
    """Within a fifth of the branch point w = -mean²/(4 variance) of a semicircle."""
    variance = law.moment(2) - law.moment(1) ** 2
    return np.array([-0.05, -0.01, 0.0, 0.05]) * law.moment(1) ** 2 / variance


@check
def the_s_transform_follows_from_the_r_transform(law: Law) -> None:
    """u R(u) = w where u = w S(w), near w = 0."""
    if law.moment(1) == 0:
        return
    w = small_arguments_of_s(law)
    s = law.s_transform(w)
    close((w * s * law.r_transform(w * s)).real, w, 1e-12)
    close(s[2], 1 / law.moment(1), 1e-13)
    close(law.dilate(1.7).s_transform(w), s / 1.7, 1e-11)


@check
def the_r_transform_generates_the_free_cumulants(law: Law) -> None:
    """κ_n = ∮ R(w) w^{-n} dw/(2πi): the trapezoidal rule on a circle inside the domain of R."""
    radius = 0.2 / np.sqrt(law.moment(2))
    w = radius * np.exp(2j * np.pi * np.arange(128) / 128)
    values = law.r_transform(w)
    for n, cumulant in enumerate(law.free_cumulants(6), start=1):
        found = np.mean(values * w ** (1 - n)).real
        assert abs(found - cumulant) <= 1e-14 * np.abs(values).max() * radius ** (1 - n)


@check
def moments_are_sums_over_non_crossing_partitions(law: Law) -> None:
    x, w = quadrature(law)
    cumulants = law.free_cumulants(6)
    recursion = moments_from_free_cumulants(cumulants)
    for order in range(1, 7):
        brute_force = moment_over_non_crossing_partitions(cumulants, order)
        size = np.abs(x) ** order @ w
        assert abs(brute_force - x**order @ w) <= digits(law) * size
        assert abs(recursion[order - 1] - brute_force) <= 1e-14 * size
    back = free_cumulants_from_moments(recursion)
    assert np.allclose(np.array(back, float), cumulants, rtol=1e-11, atol=1e-11 * size)


# ---------------------------------------------------------------------------- overrides


def _method(name: str, *arguments: Any, tolerance: float = 1e-12) -> tuple[str, tuple, float]:
    return name, arguments, tolerance


@check
def every_closed_form_equals_its_generic_definition(law: Law) -> None:
    x = np.concatenate([inner_points(law), outer_points(law)])
    calls = [
        _method("density", x),
        _method("cdf", np.concatenate([x, law.breakpoints])),
        _method("quantile", np.linspace(0.003, 0.997, 29), tolerance=1e-11),
        _method("free_cumulants", 7, tolerance=1e-9),
        _method("jacobi", 12),
        *(_method("moment", k) for k in range(8)),
    ]
    if law.moment(1) != 0:
        calls.append(_method("s_transform", small_arguments_of_s(law)))
    for name, arguments, tolerance in calls:
        if getattr(type(law), name) is getattr(Law, name):
            continue
        if name == "cdf" and not has_a_cosine_series(law):
            continue
        found, generic = getattr(law, name)(*arguments), getattr(Law, name)(law, *arguments)
        if name == "jacobi":
            found, generic = np.concatenate(found), np.concatenate(generic)
        close(found, generic, tolerance)


@check
def the_density_is_right_on_ten_thousand_points(law: Law) -> None:
    """Every point, the nearest at 1e-7 of the width from an edge: no lone wrong root."""
    for left, right in law.support:
        t = (np.arange(10_000) + 0.5) / 10_000
        x = float(left) + float(right - left) * np.sin(np.pi * t / 2) ** 2
        density, generic = law.density(x), Law.density(law, x)
        # x itself is known to 1e-16, and √(distance to the edge) amplifies that by 1e4
        assert np.all(np.abs(density - generic) <= 1e-11 * (1 + density))


@check
def shift_and_dilate_act_as_the_affine_map(law: Law) -> None:
    x, w = quadrature(law)
    for scale, offset in ((1.7, 0.0), (-0.43, 0.0), (1.0, -0.43), (-1.7, 0.43)):
        moved = law if scale == 1 else law.dilate(scale)
        moved = moved if offset == 0 else moved.shift(offset)
        generic = AffineLaw(law, scale, offset)
        edge = sorted(scale * e + offset for interval in law.support for e in interval)
        close([e for interval in moved.support for e in interval], edge, 1e-14)
        close(sorted(moved.atoms), sorted((scale * a + offset, m) for a, m in law.atoms), 1e-14)
        y = scale * inner_points(law) + offset
        close(moved.density(y), law.density(inner_points(law)) / abs(scale), 1e-10)
        for order in range(1, 6):
            size = np.abs(scale * x + offset) ** order @ w
            wanted = (scale * x + offset) ** order @ w
            assert abs(moved.moment(order) - wanted) <= digits(law) * size
        z, p = off_axis(moved), np.linspace(0.01, 0.99, 9)
        close(moved.stieltjes(z), generic.stieltjes(z), 1e-13)
        close(moved.cdf(y), generic.cdf(y), 1e-13)
        close(moved.quantile(p), generic.quantile(p), 1e-12)
        near = (0.05 + 0.02j) * min(1, 3 / width(moved))
        close(moved.r_transform(near), generic.r_transform(near), 1e-13)
        close(np.concatenate(moved.jacobi(5)), np.concatenate(generic.jacobi(5)), 1e-13)
        if has_equation(law):
            assert abs(moved.equation(moved.stieltjes(z[0]), z[0])) <= 1e-11 * (1 + abs(z[0])) ** 2
    twice = law.dilate(-1.7).dilate(-1 / 1.7).shift(0.43).shift(-0.43)
    close(twice.density(inner_points(law)), law.density(inner_points(law)), 1e-9)


# ---------------------------------------------------------------------------- shapes


@check
def shapes_are_preserved_and_scalars_stay_scalars(law: Law) -> None:
    methods = [law.density, law.cdf, law.stieltjes, law.r_transform]
    points = {law.quantile: np.array([[0.1, 0.2], [0.5, 0.9], [0.0, 1.0]])}
    points |= {method: 0.05 * np.arange(6.0).reshape(3, 2) + 0.013 for method in methods}
    points[law.r_transform] *= min(1, 3 / width(law))  # up to 0.8/width: real R has an end
    if law.moment(1) != 0:
        points[law.s_transform] = 1e-3 * points[law.r_transform]
    for method, x in points.items():
        whole = method(x)
        assert whole.shape == x.shape
        assert whole.dtype == (complex if method == law.stieltjes else whole.dtype)
        one = method(float(x[1, 1]))
        assert np.ndim(one) == 0
        assert not isinstance(one, np.ndarray)
        close(one, whole[1, 1], 1e-14 if sums_over_poles(law) else 1e-15)
        assert method(np.array([])).shape == (0,)
        assert method(x[:, :0]).shape == (3, 0)


@check
def integers_are_numbers_like_any_other(law: Law) -> None:
    """law.density(np.arange(5)) is a float array: nothing is rounded to the type of the grid."""
    grid = np.arange(-2, 6)
    methods = (law.density, law.cdf, law.stieltjes)
    for method in methods:
        wanted = method(grid.astype(float))
        for found in (method(grid), method(list(grid)), [method(int(k)) for k in grid]):
            # sums over atoms are rounded in an order that depends on the number of points
            loose = 4e-15 if sums_over_poles(law) else 0.0
            np.testing.assert_allclose(found, wanted, rtol=loose, atol=loose / 4)
    close(law.quantile(np.array([0, 1])), ends(law), 1e-15)


@check
def nan_in_is_nan_out(law: Law) -> None:
    x = np.array([np.nan, *inner_points(law)[3:5], np.nan])
    for method in (law.density, law.cdf, law.stieltjes):
        np.testing.assert_array_equal(np.isnan(method(x)), np.isnan(x))
        assert np.isnan(method(np.nan))


@check
def inputs_are_left_as_they_were(law: Law) -> None:
    for method in (law.density, law.cdf, law.stieltjes):
        x = inner_points(law)
        kept = x.copy()
        x.flags.writeable = False
        method(x)
        np.testing.assert_array_equal(x, kept)


# ---------------------------------------------------------------------------- three arithmetics


@check
def sympy_proves_the_equation(law: Law) -> None:
    if not has_formula(law):
        return
    z, w = sympy.symbols("z w")
    formula = symbolic(law)
    assert vanishes(formula.equation(formula.stieltjes(z), z))
    # R + 1/w inverts G = -m, so (-w, R + 1/w) lies on the curve P(m, z) = 0
    assert vanishes(formula.equation(-w, formula.r_transform(w) + 1 / w))


@check
def sympy_proves_the_s_transform(law: Law) -> None:
    if type(law).s_transform is Law.s_transform or law.moment(1) == 0:
        return
    if not takes_symbols(law):
        return
    formula = symbolic(law)
    w = sympy.Symbol("w", positive=True)
    u = w * formula.s_transform(w)
    if has_equation(law):  # u R(u) = w says that (-u, (1 + w)/u) lies on the curve
        assert vanishes(formula.equation(-u, (1 + w) / u))
    else:
        assert vanishes(u * formula.r_transform(u) - w)


@check
def sympy_proves_moments_from_free_cumulants(law: Law) -> None:
    if type(law).moment is Law.moment or type(law).free_cumulants is Law.free_cumulants:
        return
    if not takes_symbols(law):
        return
    formula = symbolic(law)
    moments = [formula.moment(k) for k in range(1, 8)]
    cumulants = formula.free_cumulants(7)
    recursion = moments_from_free_cumulants(cumulants)
    assert all(sympy.expand(p - q) == 0 for p, q in zip(moments, recursion, strict=True))
    brute_force = moment_over_non_crossing_partitions(cumulants, 5)
    assert sympy.expand(moments[4] - brute_force) == 0
    if isinstance(law, rm.FussCatalan):  # R has no radicals for a symbolic order
        return
    w = sympy.Symbol("w")
    series = sympy.series(formula.r_transform(w), w, 0, 5).removeO()
    assert all(sympy.simplify(series.coeff(w, n) - cumulants[n]) == 0 for n in range(5))


@check
def mpmath_solves_the_equation_in_forty_digits(law: Law) -> None:
    if not has_equation(law):
        return
    left, right = ends(law)
    with mpmath.workdps(40):
        exact = forty_digits(law)
        for z in (0.37 + 0.41j, (left + right) / 2 + 1e-9j, right + 0.43, -1e9 + 1j):
            m = exact.stieltjes(mpmath.mpmathify(z))
            size = abs(exact.equation(m * mpmath.expj(1), mpmath.mpmathify(z)))
            assert abs(exact.equation(m, mpmath.mpmathify(z))) < mpmath.mpf("1e-37") * size


@check
def mpmath_gives_forty_digits(law: Law) -> None:
    """Transform, density and cdf in 40 digits, each against its definition."""
    if not has_formula(law):
        return
    with mpmath.workdps(40):
        exact = forty_digits(law)
        z = mpmath.mpc("0.37", "0.41")
        m = exact.stieltjes(z)
        assert abs(exact.equation(m, z)) < mpmath.mpf("1e-38")
        assert m.imag > 0
        left, right = exact.support[0]
        x = left + (right - left) * mpmath.mpf("0.37")
        assert abs(exact.stieltjes(x).imag / mpmath.pi - exact.density(x)) < mpmath.mpf("1e-38")

        def integrand(t: Any) -> Any:
            sine = mpmath.sin(t)
            point = left + (right - left) * sine**2
            return exact.density(point) * (right - left) * mpmath.sin(2 * t)

        end = mpmath.asin(mpmath.sqrt(mpmath.mpf("0.37")))
        below = sum((mass for a, mass in exact.atoms if a <= x), mpmath.mpf(0))
        integral = mpmath.quad(integrand, [0, end], method="gauss-legendre")
        assert abs(integral + below - exact.cdf(x)) < mpmath.mpf("1e-35")


@check
def doubles_agree_with_forty_digits(law: Law) -> None:
    if not has_equation(law):
        return
    x = np.concatenate([inner_points(law), outer_points(law)])
    z = off_axis(law)
    with mpmath.workdps(40):
        exact = forty_digits(law)
        for method, points, tolerance in (
            ("stieltjes", z, 1e-14),
            ("cdf", x, 1e-14),
            # at 1e-6 of the width from an edge its position is known to 1e-10
            ("density", x, 1e-9),
            ("density", middle_points(law), 1e-14),
        ):
            if method == "cdf" and not has_formula(law):
                continue
            wanted = [getattr(exact, method)(mpmath.mpmathify(p)) for p in points.tolist()]
            kind = complex if method == "stieltjes" else float
            close(getattr(law, method)(points), [kind(v) for v in wanted], tolerance)
        # an object array of mpmath numbers is served element by element
        some = np.array([mpmath.mpf("0.37"), mpmath.mpf("0.73")])
        assert [exact.density(p) for p in some] == list(exact.density(some))


# ---------------------------------------------------------------------------- random matrices


@check
def samples_approach_the_law_like_one_over_dim(law: Law) -> None:
    """W_1(law, eigenvalues) is proportional to 1/dim: from 200 to 800 it falls fourfold."""
    if law.ensemble is None:
        return
    mean = {}
    for dim in (200, 400, 800):
        draws = [law.sample(dim, np.random.default_rng([dim, seed])) for seed in range(6)]
        assert all(values.shape == (dim,) and np.all(np.diff(values) >= 0) for values in draws)
        mean[dim] = np.mean([distance_to_sample(law, values) for values in draws])
    # the spread of W_1 is near 15% a draw: 6% a mean, and 9% for a quotient of two; 4 sigma
    assert 2.6 < mean[200] / mean[800] < 6.2
    assert mean[200] > mean[400] > mean[800]
    # a matrix built entry by entry lies as near: it is the same ensemble
    dense = [
        distance_to_sample(law, dense_eigenvalues(law, 400, np.random.default_rng(seed)))
        for seed in range(3)
    ]
    assert 0.6 < np.mean(dense) / mean[400] < 1.6


@check
def the_mean_chain_is_the_mean_of_sampled_chains(law: Law) -> None:
    if law.ensemble is None:
        return
    rng = np.random.default_rng(5)
    chains = [np.concatenate(law.sample_jacobi(5, 30.5, rng), axis=1)[0] for _ in range(2000)]
    mean = np.concatenate(law.mean_jacobi(5, 30.5))
    error = np.std(chains, axis=0) / np.sqrt(2000)
    assert np.all(np.abs(np.mean(chains, axis=0) - mean) < 4 * error)
    limit = np.concatenate(law.jacobi(5))
    large = np.concatenate(law.mean_jacobi(5, 1e6))
    assert np.all(np.abs(large - limit) < 2e-5 * width(law))  # off by O(steps/dim)


@check
def the_method_of_moments_finds_the_parameters(law: Law) -> None:
    if isinstance(law, AffineLaw) or not law.bounds:
        return
    for name, value in type(law).moment_estimate(law).items():
        close(value, getattr(law, name), 1e-13)


@check
def laws_are_frozen_values(law: Law) -> None:
    assert replace(law) == law  # type: ignore[type-var]
    assert hash(replace(law)) == hash(law)  # type: ignore[type-var]
    assert law.resolution == 0
