"""Tracy–Widom laws against determinants in 30 digits, the Airy kernel and simulated edges."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import eigh_tridiagonal
from scipy.special import airy
from scipy.stats import kstest

import rmthess as rm
from rmthess import jacobi

LAWS = {beta: rm.tracy_widom(beta) for beta in (1, 2, 4)}
betas = pytest.mark.parametrize("beta", LAWS)
POINTS = np.linspace(-5.5, 4.5, 41)


def determinants(s, nodes=36):
    """det(1 ∓ Ai(x + y + s)) on [0, 14 - s] by Gauss–Legendre quadrature in 30 digits."""
    with mpmath.workdps(30):
        start = np.polynomial.legendre.leggauss(nodes)[0]
        points = [mpmath.findroot(lambda t: mpmath.legendre(nodes, t), float(t)) for t in start]
        slopes = [nodes * mpmath.legendre(nodes - 1, t) / (1 - t**2) for t in points]
        length = 14 - mpmath.mpf(s)
        x = [length * (t + 1) / 2 for t in points]
        root = [
            mpmath.sqrt(length / ((1 - t**2) * d**2)) for t, d in zip(points, slopes, strict=True)
        ]
        kernel = mpmath.matrix(nodes, nodes)
        for i in range(nodes):
            for j in range(i + 1):
                value = root[i] * root[j] * mpmath.airyai(x[i] + x[j] + s)
                kernel[i, j] = kernel[j, i] = value
        return mpmath.det(mpmath.eye(nodes) - kernel), mpmath.det(mpmath.eye(nodes) + kernel)


@pytest.mark.parametrize("s", ["-3.31", "-1.27", "0.58"])
def test_cdfs_agree_with_thirty_digit_determinants(s):
    """F_1 = D₋, F_2 = D₋ D₊, F_4(s/√2) = (D₋ + D₊)/2, off every grid point of the module."""
    lower, upper = determinants(mpmath.mpf(s))
    assert LAWS[1].cdf(float(s)) == pytest.approx(float(lower), abs=4e-15)
    assert LAWS[2].cdf(float(s)) == pytest.approx(float(lower * upper), abs=4e-15)
    assert LAWS[4].cdf(float(s) / np.sqrt(2)) == pytest.approx(
        float((lower + upper) / 2), abs=4e-15
    )


def test_f2_is_the_determinant_of_the_airy_kernel():
    """det(1 - K), K(x,y) = (Ai(x)Ai'(y) - Ai'(x)Ai(y))/(x-y) on (s, ∞): another formula for F_2."""
    t, w = np.polynomial.legendre.leggauss(64)
    for s in POINTS[::5]:
        x, root = s + (16 - s) * (t + 1) / 2, np.sqrt((16 - s) * w / 2)
        ai, slope = airy(x)[:2]
        difference = x[:, None] - x + np.eye(64)
        kernel = (ai[:, None] * slope - slope[:, None] * ai) / difference
        np.fill_diagonal(kernel, slope**2 - x * ai**2)
        wanted = np.linalg.det(np.eye(64) - root[:, None] * kernel * root)
        assert LAWS[2].cdf(s) == pytest.approx(wanted, abs=3e-14)


def test_published_values():
    """Bornemann (2010), tables 1 and 7, in his scale for beta = 4."""
    assert LAWS[1].cdf(0.0) == pytest.approx(0.83190806620295, abs=2e-14)
    assert LAWS[2].cdf(0.0) == pytest.approx(0.96937282835526, abs=2e-14)
    means = {1: -1.2065335745820, 2: -1.7710868074112, 4: -2.3068848932410}
    variances = {1: 1.6077810345810, 2: 0.8131947928329, 4: 0.5177237207726}
    for beta, law in LAWS.items():
        assert law.mean == pytest.approx(means[beta], abs=1e-12)
        assert law.variance == pytest.approx(variances[beta], abs=1e-12)


@betas
def test_the_pdf_is_the_derivative_of_the_cdf(beta):
    law, h = LAWS[beta], 1e-4
    # five points: error h⁴ plus 1e-14/h
    around = [law.cdf(POINTS + k * h) for k in (-2, -1, 1, 2)]
    slope = (around[0] - 8 * around[1] + 8 * around[2] - around[3]) / (12 * h)
    np.testing.assert_allclose(law.pdf(POINTS), slope, atol=1e-9)
    assert np.all(law.pdf(np.linspace(-15, 20, 500)) >= 0)


@betas
def test_mass_mean_and_variance_are_integrals_of_the_pdf(beta):
    law = LAWS[beta]
    moments = [
        quad(lambda s, k=k: s**k * law.pdf(s), -10, 18, epsabs=1e-12, limit=200)[0]
        for k in range(3)
    ]
    assert moments[0] == pytest.approx(1, abs=1e-11)
    assert moments[1] == pytest.approx(law.mean, abs=1e-10)
    assert moments[2] - moments[1] ** 2 == pytest.approx(law.variance, abs=1e-10)


@betas
def test_the_quantile_inverts_the_cdf(beta):
    law = LAWS[beta]
    p = np.linspace(0.001, 0.999, 99)
    np.testing.assert_allclose(law.cdf(law.quantile(p)), p, atol=1e-14)
    # the cdf is known to 1e-14 and its slope is above 1e-4 there
    s = np.linspace(-3.9, 1.5, 30) / (np.sqrt(2) if beta == 4 else 1)
    np.testing.assert_allclose(law.quantile(law.cdf(s)), s, atol=1e-10)
    np.testing.assert_array_equal(law.quantile([0, 1]), [-np.inf, np.inf])


@betas
def test_the_cdf_is_a_cdf_on_the_whole_line(beta):
    law = LAWS[beta]
    s = np.linspace(-40, 60, 4001)
    values = law.cdf(s)
    assert np.all((values >= 0) & (values <= 1))
    assert np.all(np.diff(values) >= -1e-15)
    np.testing.assert_array_equal(law.cdf([-np.inf, -40, 60, np.inf]), [0, 0, 1, 1])
    assert np.isnan(law.cdf(np.nan))
    assert law.cdf(np.zeros((2, 0))).shape == (2, 0)
    assert np.ndim(law.cdf(0)) == np.ndim(law.pdf(0)) == np.ndim(law.quantile(0.5)) == 0


def largest(chain):
    a, b = chain[0][0], chain[1][0]
    last = a.size - 1
    return eigh_tridiagonal(a, b, eigvals_only=True, select="i", select_range=(last, last))[0]


def simulated_goe(rng):
    """The top of a GOE matrix of side 1e6 lives on the first 10 dim^{1/3} rows of its chain."""
    return (largest(jacobi.hermite_chains(1000, 1e6, rng)) - 2) * 1e6 ** (2 / 3)


def simulated_wishart(rng):
    """Johnstone (2001): centred at (√(n-1) + √p)², scaled by its root times (...)^{1/3}."""
    p, n = 4e5, 1e6
    root = np.sqrt(n - 1) + np.sqrt(p)
    scale = root * (1 / np.sqrt(n - 1) + 1 / np.sqrt(p)) ** (1 / 3)
    return (n * largest(jacobi.laguerre_chains(800, p, n, rng)) - root**2) / scale


@pytest.mark.parametrize("simulated", [simulated_goe, simulated_wishart])
def test_the_edge_of_large_random_matrices_is_tracy_widom_one(simulated):
    """400 draws: a wrong beta or scale is refused at once (F_2 has p = 1e-20); shift 1e6^{-1/3}."""
    rng = np.random.default_rng(6)
    draws = np.array([simulated(rng) for _ in range(400)])
    assert kstest(draws, LAWS[1].cdf).pvalue > 0.01
    assert kstest(draws, LAWS[2].cdf).pvalue < 1e-9
    error = np.sqrt(LAWS[1].variance / 400)
    assert abs(draws.mean() - LAWS[1].mean) < 3.5 * error


@pytest.mark.parametrize("beta", [0, 3, -1, 1.5, "1", None])
def test_beta_is_one_two_or_four(beta):
    with pytest.raises(ValueError, match="beta must be 1, 2 or 4, got"):
        rm.tracy_widom(beta)


@betas
@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan])
def test_a_probability_lies_between_zero_and_one(beta, p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        LAWS[beta].quantile(p)
