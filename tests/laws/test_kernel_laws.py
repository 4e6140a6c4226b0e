"""Laws on the rational kernel: their reductions, exact moments and masses, matrices, thirty digits.

``test_battery`` holds each of them against generic definitions; here are the witnesses that are
particular to them.
"""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
from scipy.special import ndtri
from scipy.stats import lognorm, pareto

import rmthess as rm
from rmthess.free.boxplus import boxplus
from rmthess.free.boxtimes import boxtimes
from rmthess.free.compress import compress
from rmthess.laws.compression import Compression
from rmthess.laws.cumulants import free_cumulants_from_moments, moments_from_free_cumulants
from rmthess.laws.deformed_wigner import DeformedWigner
from rmthess.laws.free_compound_poisson import FreeCompoundPoisson, FreeLevy
from rmthess.laws.law import AffineLaw, Law
from rmthess.laws.sample_covariance import SampleCovariance

THREE = rm.DiscreteMeasure([1.0, 3.0, 10.0], np.full(3, 1 / 3))
SIGNED = rm.DiscreteMeasure([-1.7, 0.43, 1.1], [0.2, 0.3, 0.5])
COIN = rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5])
UNIT = rm.DiscreteMeasure([1.0], [1.0])


def same(found, wanted, tolerance=1e-13):
    """The same law: support, atoms, density, transform, cdf."""
    np.testing.assert_allclose(np.ravel(found.support), np.ravel(wanted.support), atol=tolerance)
    np.testing.assert_allclose(found.atoms, wanted.atoms, atol=tolerance)
    left, right = wanted.breakpoints[[0, -1]]
    z = left + (right - left) * (np.linspace(-0.3, 1.3, 17) + 0.1j)
    np.testing.assert_allclose(found.stieltjes(z), wanted.stieltjes(z), atol=tolerance)
    for a, b in wanted.support:
        x = a + (b - a) * np.linspace(0.01, 0.99, 23)
        scale = 1 + np.max(wanted.density(x))
        np.testing.assert_allclose(found.density(x), wanted.density(x), atol=tolerance * scale)
        np.testing.assert_allclose(found.cdf(x), wanted.cdf(x), atol=tolerance)


# ---------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("ratio", [0.2, 0.9, 1.7])
def test_a_population_of_one_eigenvalue_is_marchenko_pastur(ratio):
    population = rm.DiscreteMeasure([1.7], [1.0])
    same(SampleCovariance(ratio, population), rm.MarchenkoPastur(ratio, 1.7))


def test_one_jump_is_marchenko_pastur():
    """κ_n = rate tⁿ = q^(n-1) vⁿ: rate 1/q, jump q v."""
    for q in (0.2, 1.7):
        jumps = rm.DiscreteMeasure([q * 1.7], [1.0])
        same(FreeCompoundPoisson(1 / q, jumps), rm.MarchenkoPastur(q, 1.7))


def test_a_point_plus_wigner_is_the_semicircle():
    deformed = DeformedWigner(rm.DiscreteMeasure([0.43], [1.0]), 1.7)
    same(deformed, rm.Semicircle(1.7, 0.43))
    same(FreeLevy(0.43, rm.DiscreteMeasure([0.0], [1.0]), 1.7), rm.Semicircle(1.7, 0.43))


def test_the_hard_edge_of_a_population_of_one_eigenvalue():
    """q = 1: the density is 1/√x at 0."""
    law, wanted = SampleCovariance(1.0, UNIT), rm.MarchenkoPastur(1.0)
    x = np.array([1e-8, 1e-4, 0.3, 2.0, 3.999])
    # K(ω) is a sum of terms of size 4 that cancel down to x
    assert np.all(np.abs(law.density(x) / wanted.density(x) - 1) <= 1e-15 / x + 1e-12)
    np.testing.assert_allclose(law.cdf(x), wanted.cdf(x), atol=1e-12)


@pytest.mark.parametrize("ratio", [0.3, 2.5])
def test_the_companion_has_the_same_eigenvalues_but_for_zeros(ratio):
    """m̃ = q m - (1 - q)/z: XTXᵀ and T^(1/2) XᵀX T^(1/2)."""
    law = SampleCovariance(ratio, THREE)
    z = np.array([0.5 + 0.2j, 3 + 1e-3j, 30 - 2j, -1 + 0j])
    wanted = ratio * law.stieltjes(z) - (1 - ratio) / z
    np.testing.assert_allclose(law.companion.stieltjes(z), wanted, rtol=1e-13)
    x = np.array([0.5, 3.0, 9.0, 15.0])
    np.testing.assert_allclose(law.companion.density(x), ratio * law.density(x), rtol=1e-13)
    below = (1 - ratio) + ratio * law.cdf(x)
    np.testing.assert_allclose(law.companion.cdf(x), below, atol=1e-13)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("count", [1, 3, 500])
def test_the_mean_inverse_is_that_of_the_population_over_one_minus_the_ratio(ratio, count):
    """Inverse Wishart: m(0) = E[1/t]/(1 - q), m'(0) = E[1/t²]/(1 - q)² + q E[1/t]²/(1 - q)³."""
    population = rm.DiscreteMeasure.from_quantiles(lognorm(2.0).ppf, count)
    law = SampleCovariance(ratio, population)
    first, second = (population.integrate(lambda t, k=k: t**-k) for k in (1, 2))
    assert law.stieltjes(0.0) == pytest.approx(first / (1 - ratio), rel=1e-11)
    wanted = second / (1 - ratio) ** 2 + ratio * first**2 / (1 - ratio) ** 3
    for z in (0.0, -1e-14 * law.support[0][0]):
        slope = law.stieltjes_and_slope(np.array([z]))[1][0]
        assert slope == pytest.approx(wanted, rel=1e-9)


def test_silverstein_s_fixed_point_holds_on_and_off_the_axis():
    law = SampleCovariance(0.3, THREE)
    z = np.concatenate([np.linspace(0.35, 17, 200), np.linspace(0, 20, 50) + 0.01j])
    m = law.stieltjes(z)
    t = THREE.nodes
    factor = (1 - 0.3 - 0.3 * z * m)[:, None]
    np.testing.assert_allclose((1 / (t * factor - z[:, None])) @ THREE.weights, m, atol=1e-13)


def test_a_continuous_population_is_the_limit_of_its_quantiles():
    """MP ⊠ MP against 4000 atoms: the error of a midpoint rule in the quantiles."""
    law = SampleCovariance(0.5, rm.MarchenkoPastur(0.43))
    p = (np.arange(4000) + 0.5) / 4000
    many = rm.DiscreteMeasure(rm.MarchenkoPastur(0.43).quantile(p), np.full(4000, 1 / 4000))
    z = np.array([0.5 + 0.5j, 2 + 0.3j, -1 + 0.1j])
    coarse = SampleCovariance(0.5, many).stieltjes(z)
    np.testing.assert_allclose(law.stieltjes(z), coarse, atol=1e-6)


def test_the_product_of_two_marchenko_pastur_laws_solves_its_cubic():
    """ζ = -(1 + z m) solves z = (1 + ζ)(1 + a ζ)(1 + b ζ)/ζ, since S = 1/((1 + a w)(1 + b w))."""
    a, b = 0.5, 0.25
    law = SampleCovariance(a, rm.MarchenkoPastur(b))
    ((left, right),) = law.support
    z = np.concatenate([left + (right - left) * np.linspace(0.01, 0.99, 99), [1 + 1j, -3 + 1e-3j]])
    zeta = -(1 + z * law.stieltjes(z))
    back = (1 + zeta) * (1 + a * zeta) * (1 + b * zeta) / zeta
    np.testing.assert_allclose(back, z, rtol=1e-12)
    same(law, SampleCovariance(b, rm.MarchenkoPastur(a)), 1e-12)


# ---------------------------------------------------------------------------- exact numbers


def exact_moments(cumulants):
    return moments_from_free_cumulants(cumulants)


def test_moments_equal_an_exact_rational_recursion():
    """Free cumulants in fractions, then moments by the non-crossing recursion."""
    third, q, rate = Fraction(1, 3), Fraction(3, 10), Fraction(43, 100)
    levels, n = (1, 3, 10), range(1, 9)
    companion = exact_moments([q * third * sum(Fraction(t) ** k for t in levels) for k in n])
    covariance = [m / q for m in companion]
    jumps = ((Fraction(-17, 10), Fraction(1, 5)), (Fraction(43, 100), Fraction(3, 10)),
             (Fraction(11, 10), Fraction(1, 2)))  # fmt: skip
    poisson = exact_moments([rate * sum(p * t**k for t, p in jumps) for k in n])
    plain = [sum(p * t**k for t, p in jumps) for k in n]
    cumulants = free_cumulants_from_moments(plain)
    wigner = exact_moments([kappa + (k == 2) * Fraction(1, 2) for k, kappa in zip(n, cumulants)])
    half = exact_moments([kappa * Fraction(1, 2) ** (k - 1) for k, kappa in zip(n, cumulants)])
    for law, wanted in (
        (SampleCovariance(0.3, THREE), covariance),
        (FreeCompoundPoisson(0.43, SIGNED), poisson),
        (DeformedWigner(SIGNED, 0.5), wigner),
        (Compression(SIGNED, 0.5), half),
    ):
        x, w = law.quadrature(512)
        for order, value in zip(n, wanted, strict=True):
            size = np.abs(x) ** order @ w
            assert abs(law.moment(order) - float(value)) <= 1e-13 * size
            assert abs(x**order @ w - float(value)) <= 1e-12 * size  # and of the density itself


@pytest.mark.parametrize(
    ("law", "masses"),
    [
        (SampleCovariance(0.3, THREE), [Fraction(1, 3)] * 3),
        (SampleCovariance(0.1, rm.DiscreteMeasure([0, 1, 8], [0.25, 0.25, 0.5])), [0.25, 0.5]),
        (DeformedWigner(rm.DiscreteMeasure([-1, 0.3, 5], [0.5, 0.25, 0.25]), 0.05),
         [0.5, 0.25, 0.25]),
        (FreeCompoundPoisson(0.3, rm.DiscreteMeasure([-2, 1], [1 / 3, 2 / 3])), [0.1, 0.2]),
        # atom (1/2 - 1/10)/(9/10) = 4/9 at 0, 1/6 each at ±2 as (1/4 - 1/10)/(9/10)
        (Compression(rm.DiscreteMeasure([-2, 0, 2], [0.25, 0.5, 0.25]), 0.9), [Fraction(1, 9)] * 2),
    ],
    ids=["three_atoms", "atom_at_zero", "deformed_wigner", "free_compound_poisson", "compression"],
)  # fmt: skip
def test_interval_masses_are_exact_rationals(law, masses):
    """Between two gaps lies the share of the population whose atoms lie there."""
    assert len(law.support) == len(masses)
    for (left, right), mass in zip(law.support, masses, strict=True):
        step = 1e-9 * (right - left)
        inside = law.cdf(right + step) - law.cdf(left - step)
        inside -= sum(m for x, m in law.atoms if left < x < right)
        assert inside == pytest.approx(float(mass), abs=1e-14)


@pytest.mark.parametrize(
    ("law", "mass"),
    [
        (SampleCovariance(0.5, rm.DiscreteMeasure([0, 1], [0.7, 0.3])), 0.7),
        (SampleCovariance(2.5, rm.DiscreteMeasure([0, 1], [0.25, 0.75])), 0.6),
        (FreeCompoundPoisson(0.43, SIGNED), 0.57),
        (FreeCompoundPoisson(1.5, rm.DiscreteMeasure([0, 1], [0.6, 0.4])), 0.4),
    ],
)
def test_atoms_are_what_the_ranks_leave(law, mass):
    assert law.atoms == ((0.0, pytest.approx(mass, abs=1e-14)),)
    assert law.cdf(0.0) - law.cdf(-1e-9) == pytest.approx(mass, abs=1e-7)
    assert np.isinf(law.stieltjes(0.0).real)


def test_an_atom_of_a_free_levy_law_follows_its_drift():
    poisson = FreeCompoundPoisson(0.43, SIGNED)
    ((location, mass),) = poisson.shift(1.7).atoms
    assert location == pytest.approx(1.7, abs=1e-14)
    assert mass == pytest.approx(0.57, abs=1e-14)


# ---------------------------------------------------------------------------- three arithmetics

ALGEBRAIC = {
    "sample_covariance": SampleCovariance(0.3, THREE),
    "free_compound_poisson": FreeCompoundPoisson(0.43, SIGNED),
    "free_levy": FreeLevy(-0.43, rm.DiscreteMeasure([0, 1.7], [0.6, 0.4]), 0.9),
    "deformed_wigner": DeformedWigner(SIGNED, 0.25),
    "compression": Compression(SIGNED, 0.5),
    "compressed_wigner": Compression(DeformedWigner(SIGNED, 0.25), 0.5),
}
each_algebraic = pytest.mark.parametrize("law", ALGEBRAIC.values(), ids=ALGEBRAIC)


@each_algebraic
def test_thirty_digits_solve_the_equation_to_thirty_digits(law):
    (left, right), *_ = law.support
    with mpmath.workdps(30):
        for z in (mpmath.mpf(left + 0.3 * (right - left)), mpmath.mpc("0.3", "1e-9"),
                  mpmath.mpc(3, -2), mpmath.mpf(1000)):  # fmt: skip
            m = law.stieltjes(z)
            size = abs(law.equation(m * mpmath.expj(1), z))
            assert abs(law.equation(m, z)) <= mpmath.mpf(10) ** -28 * size
            assert abs(complex(m) - law.stieltjes(complex(z))) <= 1e-14 * (1 + abs(m))


@each_algebraic
def test_the_equation_is_a_polynomial_with_rational_coefficients(law):
    m, z = sympy.symbols("m z")
    polynomial = sympy.Poly(sympy.expand(law.equation(m, z)), m, z)
    assert all(c.is_rational for c in polynomial.coeffs())
    point = 0.7 + 0.3j
    value = polynomial.as_expr().subs({m: law.stieltjes(point), z: point})
    assert abs(complex(sympy.expand(value))) < 1e-13 * sum(
        abs(float(c)) for c in polynomial.coeffs()
    )


def test_the_equation_of_one_third_has_thirds():
    m, z = sympy.symbols("m z")
    third = sympy.Rational(1, 3)
    q = sympy.Rational(3, 10)
    factor = 1 - q - q * z * m
    wanted = m - third * sum(1 / (t * factor - z) for t in (1, 3, 10))
    quotient = SampleCovariance(0.3, THREE).equation(m, z) / wanted
    assert sympy.simplify(quotient - sympy.prod([t * factor - z for t in (1, 3, 10)])) == 0


def test_a_continuous_population_has_no_polynomial_and_a_symbol_no_formula():
    with pytest.raises(NotImplementedError, match="give the population as a DiscreteMeasure"):
        SampleCovariance(0.3, rm.MarchenkoPastur(0.43)).equation(0, 0)
    with pytest.raises(TypeError, match=r"no closed formula in z; its polynomial is \.equation"):
        SampleCovariance(0.3, THREE).stieltjes(sympy.Symbol("z"))


def test_r_transforms_keep_their_digits_at_tiny_arguments():
    """R(w) = z - 1/w would lose them all at w = 1e-15."""
    for law in (*ALGEBRAIC.values(), SampleCovariance(1.7, rm.MarchenkoPastur(0.43))):
        kappa = law.free_cumulants(3)
        w = np.array([-1e-6, 1e-15, 0.0, 1e-9, 1e-6j])
        wanted = kappa[0] + kappa[1] * w + kappa[2] * w**2
        np.testing.assert_allclose(law.r_transform(w), wanted, rtol=1e-13)


@pytest.mark.parametrize("ratio", [0.3, 2.5])
def test_the_r_transform_of_a_sample_covariance_law_reaches_its_edges_and_no_further(ratio):
    """R(G(z)) + 1/G(z) = z up to 1e-6 of an edge; beyond G there: NaN and a warning."""
    law = SampleCovariance(ratio, THREE)
    left, right = law.breakpoints[[0, -1]]
    z = np.concatenate([left - 10.0 ** np.arange(-6, 3), right + 10.0 ** np.arange(-6, 3)])
    w = -law.stieltjes(z).real
    np.testing.assert_allclose(law.r_transform(w) + 1 / w, z, rtol=1e-13, atol=1e-14)
    z = right * np.array([0.5 + 1j, 2 + 0.3j, -1 + 0.1j])
    w = -law.stieltjes(z)
    np.testing.assert_allclose(law.r_transform(w) + 1 / w, z, rtol=1e-13)
    beyond = -law.stieltjes(right).real * 1.01
    with pytest.warns(UserWarning, match="no value at 1 of 2 points"):
        found = law.r_transform([beyond, 0.5 * beyond])
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


def test_a_real_root_next_to_a_cusp_is_not_taken_for_the_density():
    """Against the Cardano root of ω³ - x ω² + (v - 1) ω + x = 0, v next to 1."""
    x = np.concatenate([np.linspace(-1e-5, 1e-5, 2001), np.linspace(-2.5, 2.5, 2001)])
    for epsilon in (1e-3, 1e-5, 1e-7, -1e-7):
        v = 1 + epsilon
        law = DeformedWigner(COIN, v)
        roots = np.array([np.roots([1, -p, v - 1, p]) for p in x])
        # a triple root is good to the third root of the rounding
        np.testing.assert_allclose(law.density(x), roots.imag.max(axis=1) / np.pi / v, atol=1e-5)


def test_just_above_the_axis_the_transform_is_that_of_the_axis():
    for law in ALGEBRAIC.values():
        x = law.breakpoints[[0, -1]] + np.array([-1.0, 1.0])
        for height in (1e-8, 1e-12, 1e-16, 1e-30):
            m = law.stieltjes(x + 1j * height)
            np.testing.assert_allclose(m.real, law.stieltjes(x).real, rtol=1e-13)
            assert np.all(m.imag > 0)


# ---------------------------------------------------------------------------- matrices


@pytest.mark.parametrize(
    "law",
    [
        SampleCovariance(0.3, THREE),
        SampleCovariance(2.5, THREE),
        SampleCovariance(0.5, rm.MarchenkoPastur(0.43)),
        DeformedWigner(THREE, 1.7),
    ],
    ids=["three_atoms", "with_atom", "mp_boxtimes_mp", "deformed_wigner"],
)
def test_a_matrix_of_side_a_thousand_lies_within_its_finite_size(law):
    """W_1 is of order width/dim: 1000 W_1 stays what it is at side 250."""
    distance = {}
    for dim in (250, 1000):
        values = law.sample(dim, np.random.default_rng([dim, 7]))
        assert values.shape == (dim,)
        distance[dim] = rm.wasserstein(law, rm.DiscreteMeasure.from_eigenvalues(values))
    width = law.breakpoints[-1] - law.breakpoints[0]
    assert distance[1000] < 2 * width / 1000
    assert distance[1000] < distance[250] / 2


def test_a_sum_of_random_rank_one_matrices_is_free_compound_poisson():
    dim, rng = 1000, np.random.default_rng(5)
    counts = np.round(0.43 * dim * SIGNED.weights).astype(int)
    t = np.repeat(SIGNED.nodes, counts)
    x = rng.standard_normal((dim, t.size)) / np.sqrt(dim)
    seen = rm.DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh((x * t) @ x.T))
    law = FreeCompoundPoisson(0.43, SIGNED)
    assert rm.wasserstein(law, seen) < 5 / dim
    assert abs(np.mean(np.abs(seen.nodes) < 1e-9) - 0.57) < 2e-3


def test_the_corner_of_a_rotated_matrix_is_the_compression():
    dim, rng = 1000, np.random.default_rng(6)
    t = SIGNED.quantile((np.arange(dim) + 0.5) / dim)
    U, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    corner = U[:700] @ (t[:, None] * U[:700].T)
    seen = rm.DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(corner))
    law = Compression(SIGNED, 0.7)
    assert rm.wasserstein(law, seen) < 5 / dim
    ((location, mass),) = law.atoms
    assert abs(np.mean(np.abs(seen.nodes - location) < 1e-9) - mass) < 3e-3


# ---------------------------------------------------------------------------- dispatch


def test_boxplus_of_semicircles_adds_variances_and_means():
    found = boxplus(rm.Semicircle(0.43, 1.7), rm.Semicircle(1.7, -1.0))
    same(found, rm.Semicircle(2.13, 0.7))
    assert isinstance(found, rm.Semicircle)


def test_boxplus_of_marchenko_pastur_laws_adds_cumulants():
    mu, nu = rm.MarchenkoPastur(0.5, 1.0), rm.MarchenkoPastur(0.2, 2.0)
    for one, other in ((mu, nu), (mu, nu.dilate(-1)), (mu.shift(0.3), nu.dilate(0.7))):
        law = boxplus(one, other)
        assert isinstance(law, FreeLevy)
        wanted = np.add(one.free_cumulants(8), other.free_cumulants(8))
        # from the moments of a shifted law the sums come back with eight digits
        np.testing.assert_allclose(law.free_cumulants(8), wanted, rtol=1e-8)
        w = np.array([-0.05, 0.02, 0.03 + 0.04j])
        np.testing.assert_allclose(
            law.r_transform(w), one.r_transform(w) + other.r_transform(w), rtol=1e-13
        )


def test_boxminus_of_equal_marchenko_pastur_laws_is_even():
    mu = rm.MarchenkoPastur(0.5)
    law = boxplus(mu, mu.dilate(-1))
    x = np.linspace(0.01, 2, 40)
    np.testing.assert_allclose(law.density(x), law.density(-x), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(x) + law.cdf(-x), 1, rtol=1e-13)


def test_boxplus_with_a_point_mass_shifts():
    point = rm.DiscreteMeasure([1.7, 1.7], [0.5, 0.5])
    same(boxplus(rm.MarchenkoPastur(0.43), point), rm.MarchenkoPastur(0.43).shift(1.7))
    np.testing.assert_array_equal(boxplus(point, COIN).nodes, [0.7, 2.7])


def test_a_semicircle_deforms_anything_and_deformations_add():
    law = boxplus(boxplus(COIN, rm.Semicircle(0.25, 0.4)), rm.Semicircle(0.5))
    wanted = DeformedWigner(rm.DiscreteMeasure([-0.6, 1.4], [0.5, 0.5]), 0.75)
    same(law, wanted)
    both = boxplus(rm.Semicircle(0.25), rm.MarchenkoPastur(0.25))
    same(both, DeformedWigner(rm.MarchenkoPastur(0.25), 0.25), 1e-12)  # two kernels of one law


def test_a_shifted_or_dilated_kernel_law_stays_one():
    law = FreeCompoundPoisson(0.43, SIGNED)
    same(law.dilate(-1.7), AffineLaw(law, -1.7, 0.0))
    same(law.shift(0.3), AffineLaw(law, 1.0, 0.3))
    assert isinstance(law.dilate(-1.7), FreeCompoundPoisson)
    assert isinstance(law.shift(0.3).dilate(2.0), FreeLevy)


def test_boxtimes_with_marchenko_pastur_is_sample_covariance():
    law = boxtimes(THREE, rm.MarchenkoPastur(0.3, 2.0))
    doubled = rm.DiscreteMeasure(2 * THREE.nodes, THREE.weights)
    same(law, SampleCovariance(0.3, doubled))
    same(boxtimes(rm.MarchenkoPastur(0.5), rm.MarchenkoPastur(0.25)),
         SampleCovariance(0.25, rm.MarchenkoPastur(0.5)), 1e-12)  # fmt: skip


def test_boxtimes_with_a_point_mass_dilates():
    same(boxtimes(rm.MarchenkoPastur(0.43), rm.DiscreteMeasure([1.7], [1.0])),
         rm.MarchenkoPastur(0.43, 1.7))  # fmt: skip
    np.testing.assert_array_equal(
        boxtimes(THREE, rm.DiscreteMeasure([2.0], [1.0])).nodes, [2, 6, 20]
    )


def test_boxtimes_of_two_signed_measures_is_refused():
    with pytest.raises(ValueError, match=r"must live on \[0, ∞\).*begin at -1.7 and -1"):
        boxtimes(SIGNED, COIN)


def test_compressing_a_fair_coin_by_half_gives_the_arcsine_law():
    """cdf 1/2 + arcsin(x)/π on ±1."""
    law = compress(COIN, 0.5)
    x = np.linspace(-0.99, 0.99, 41)
    np.testing.assert_allclose(law.density(x), 1 / (np.pi * np.sqrt(1 - x**2)), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(x), 0.5 + np.arcsin(x) / np.pi, atol=1e-13)
    assert law.atoms == ()
    np.testing.assert_allclose(law.support, [(-1, 1)], atol=1e-14)


def test_compressing_a_semicircle_scales_its_variance():
    assert compress(rm.Semicircle(2.0, 0.43), 0.25) == rm.Semicircle(0.5, 0.43)


def test_compression_by_half_is_half_the_sum_of_two_free_copies():
    """κ_n 2^(1-n) both ways."""
    mu = rm.MarchenkoPastur(0.5, 1.7)
    same(boxplus(mu, mu).dilate(0.5), compress(mu, 0.5), 1e-12)


def test_compressing_twice_is_compressing_once():
    twice = compress(compress(rm.MarchenkoPastur(0.43), 0.5), 0.6)
    same(twice, compress(rm.MarchenkoPastur(0.43), 0.3), 1e-12)


def test_compressing_by_one_or_a_point_changes_nothing():
    point = rm.DiscreteMeasure([1.7], [1.0])
    assert compress(point, 0.3) is point
    assert compress(COIN, 1.0) is COIN


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SampleCovariance(0, THREE), "ratio must be a positive finite number, got 0"),
        (lambda: FreeCompoundPoisson(-1, THREE), "rate must be a positive finite number, got -1"),
        (lambda: DeformedWigner(THREE, 0), "variance must be a positive finite number, got 0"),
        (lambda: FreeLevy(np.nan, THREE, 1.0), "drift must be a finite number, got nan"),
        (lambda: Compression(THREE, 1.5), r"fraction must lie in \(0, 1\], got 1.5"),
        (lambda: compress(THREE, 0), r"fraction must lie in \(0, 1\], got 0"),
        (lambda: FreeCompoundPoisson(1.0, rm.DiscreteMeasure([0.0], [1.0])).support,
         "jumps must not all be 0"),
        (lambda: FreeCompoundPoisson(1.0, THREE).dilate(0), "c must not be 0"),
        (lambda: SampleCovariance(0.3, COIN).sample(9, np.random.default_rng(0)),
         "needs a population that is not negative, got -1"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_refused_with_its_name_and_value(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_list_of_numbers_is_no_measure():
    with pytest.raises(TypeError, match=r"use DiscreteMeasure\.from_eigenvalues"):
        boxplus(COIN, [1.0, 2.0])
    with pytest.raises(TypeError, match="a population is a law or a measure, got list"):
        _ = SampleCovariance(0.3, [1.0, 2.0]).support


def test_a_change_of_unit_by_150_decades_changes_nothing():
    for unit in (1e-150, 1e150):
        law = SampleCovariance(0.3, rm.DiscreteMeasure(unit * THREE.nodes, THREE.weights))
        base = SampleCovariance(0.3, THREE)
        x = np.array([0.4, 2.0, 9.0])
        np.testing.assert_allclose(law.density(unit * x) * unit, base.density(x), rtol=1e-12)
        np.testing.assert_allclose(law.cdf(unit * x), base.cdf(x), rtol=1e-12)
        np.testing.assert_allclose(law.quantile([0.1, 0.5]) / unit, base.quantile([0.1, 0.5]))


@pytest.mark.parametrize("family", [lognorm(0.8), pareto(2.5)], ids=["log-normal", "power law"])
def test_an_unbounded_population_is_that_of_its_quantiles(family):
    """A matrix whose T has the quantiles as eigenvalues, side 600: W1 at the finite-size rate."""
    side, ratio = 600, 0.43
    population = rm.DiscreteMeasure.from_quantiles(family.ppf, side)
    law = SampleCovariance(ratio, population)
    samples = round(side / ratio)
    data = np.random.default_rng(29).standard_normal((samples, side)) * np.sqrt(population.nodes)
    found = rm.DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(data.T @ data / samples))
    width = law.support[-1][1] - law.support[0][0]
    assert rm.wasserstein(found, law) < 3 * width / side
    total = sum(law.cdf(b) - law.cdf(a) for a, b in law.support)
    assert total == pytest.approx(1, abs=1e-12)


def test_many_samples_are_drawn_by_their_triangle():
    """E tr S/p = E t and E tr S²/p = E t² + q((E t)² + E t²/p) for real Wishart S, q = p/n."""
    side, ratio = 12, 1 / 40
    law = SampleCovariance(ratio, rm.DiscreteMeasure([1.0, 3.0], [0.5, 0.5]))
    rng = np.random.default_rng(0)
    spectra = np.array([law.sample(side, rng) for _ in range(4000)])
    means, squares = spectra.mean(axis=1), (spectra**2).mean(axis=1)
    assert means.mean() == pytest.approx(2, abs=4 * means.std() / 63)
    wanted = 5 + ratio * (4 + 5 / side)
    assert squares.mean() == pytest.approx(wanted, abs=4 * squares.std() / 63)
    few = SampleCovariance(1e-9, rm.DiscreteMeasure([1.0, 3.0], [0.5, 0.5]))  # 251 TiB of numbers
    np.testing.assert_allclose(few.sample(4, rng), [1, 1, 3, 3], atol=1e-3)


def test_a_cdf_at_a_tiny_ratio_keeps_its_digits():
    """160 narrow intervals, a ratio of 1e-9: roundings of ω were 1e-8 of the cdf. Forty digits."""
    t = np.exp(2 * ndtri((np.arange(160) + 0.5) / 160))
    law = SampleCovariance(1e-9, rm.DiscreteMeasure(t, np.full(160, 1 / 160)))
    left, right = law.support[80]
    x = np.array([left + share * (right - left) for share in (0.1, 0.45, 0.8)])
    with mpmath.workdps(40):
        for point, found in zip(x, law.cdf(x), strict=True):
            omega = mpmath.mpmathify(complex(law.kernel.solve(point)))
            poles, weights = [mpmath.mpf(a) for a in t], mpmath.mpf(1) / 160
            q = mpmath.mpf(law.ratio)
            for _ in range(8):
                value = omega * (1 + q * weights * mpmath.fsum(a / (omega - a) for a in poles))
                slope = 1 - q * weights * mpmath.fsum(a**2 / (omega - a) ** 2 for a in poles)
                omega -= (value - mpmath.mpf(point)) / slope
            total = mpmath.arg(omega) * (1 - q) / q + weights * mpmath.fsum(
                mpmath.arg(omega - a) + a * mpmath.im(1 / (omega - a)) for a in poles
            )
            assert abs(float(1 - total / mpmath.pi - mpmath.mpf(found))) < 1e-11


QUANTILES = {
    "hard edge": SampleCovariance(1.0, rm.DiscreteMeasure([1.0, 3.0], [0.4, 0.6])),
    "nearly a hard edge": SampleCovariance(0.999999, rm.DiscreteMeasure([1.0, 3.0], [0.4, 0.6])),
    "zeros below": SampleCovariance(2.5, rm.DiscreteMeasure([1.0, 3.0], [0.4, 0.6])),
    "a level in a gap": SampleCovariance(0.1, rm.DiscreteMeasure([0.0, 1.0, 9.0], [0.2, 0.3, 0.5])),
    "cusp": DeformedWigner(rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5]), 1.0),
    "narrow intervals": DeformedWigner(rm.DiscreteMeasure([-1.0, 0.0, 5.0], [0.5, 0.3, 0.2]), 1e-6),
    "an atom in the middle": FreeCompoundPoisson(
        0.7, rm.DiscreteMeasure([-1.0, 1.0, 2.0], [0.5, 0.3, 0.2])
    ),
    "tiny": SampleCovariance(0.4, rm.DiscreteMeasure([1e-150, 3e-150], [0.4, 0.6])),
}


@pytest.mark.parametrize("law", QUANTILES.values(), ids=QUANTILES)
def test_quantiles_along_the_curve_are_those_of_the_cdf(law):
    """Against bracketing and Newton's method in x, which knows nothing of ω."""
    p = np.concatenate([np.linspace(0.013, 0.987, 23), [0.0, 1e-7, 1 - 1e-7, 1.0]])
    if law is QUANTILES["cusp"]:
        p = p[np.abs(p - 0.5) > 1e-3]  # there the density vanishes
    found, scale = law.quantile(p), np.ptp(law.breakpoints)
    np.testing.assert_allclose(found, Law.quantile(law, p), rtol=1e-8, atol=1e-12 * scale)
    assert law.quantile(1.0) == law.breakpoints[-1]
    reached, below = law.cdf(found), law.cdf(found - 1e-9 * scale)
    assert np.all(reached >= p - 1e-12)
    assert np.all(below <= p + 1e-12)


def test_small_quantiles_at_a_hard_edge_keep_their_digits():
    """Against the closed form of Marchenko–Pastur at ratio 1: x ~ (π p/2)²."""
    law, p = (
        SampleCovariance(1.0, rm.DiscreteMeasure([1.0], [1.0])),
        np.array([1e-9, 1e-7, 1e-5, 1e-3]),
    )
    wanted = (np.pi * p / 2) ** 2
    found = law.quantile(p)
    assert np.abs(found / wanted - 1)[0] < 1e-6  # the cdf is known to 1e-16
    np.testing.assert_allclose(found[1:], rm.MarchenkoPastur(1.0).quantile(p)[1:], rtol=1e-8)
