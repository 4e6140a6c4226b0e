"""Every check of the battery on every law, and the refusals of the laws of today."""

from __future__ import annotations

import fractions

import numpy as np
import pytest
import sympy
from battery import CHECKS, LAWS, moment_over_non_crossing_partitions, non_crossing

import rmthess as rm
from rmthess.laws.cumulants import free_cumulants_from_moments, moments_from_free_cumulants
from rmthess.laws.law import AffineLaw, Law


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_law(check, law):
    check(law)


def test_non_crossing_partitions_are_counted_by_the_catalan_numbers():
    assert [len(non_crossing(n)) for n in range(1, 8)] == [1, 2, 5, 14, 42, 132, 429]


def test_free_cumulants_of_a_fair_coin_are_signed_catalan_numbers_exactly():
    """±1 with probability 1/2: κ_2n = (-1)^{n-1} C_{n-1}."""
    moments = [fractions.Fraction(1 - k % 2) for k in range(1, 11)]
    cumulants = free_cumulants_from_moments(moments)
    assert cumulants == [0, 1, 0, -1, 0, 2, 0, -5, 0, 14]
    assert moments_from_free_cumulants(cumulants) == moments
    assert moment_over_non_crossing_partitions(cumulants, 8) == 1


def test_moments_and_free_cumulants_of_symbols_are_inverse():
    moments = list(sympy.symbols("m1:6"))
    back = moments_from_free_cumulants(free_cumulants_from_moments(moments))
    assert all(sympy.expand(p - q) == 0 for p, q in zip(moments, back, strict=True))
    fourth = free_cumulants_from_moments(moments[:4])[3]
    m1, m2, m3, m4 = moments[:4]
    wanted = m4 - 4 * m1 * m3 - 2 * m2**2 + 10 * m1**2 * m2 - 5 * m1**4  # Nica & Speicher, 11.4
    assert sympy.expand(fourth - wanted) == 0


def test_a_pole_of_the_transform_is_infinite_without_a_warning():
    for law in (rm.MarchenkoPastur(1.7, 0.43), rm.MarchenkoPastur(1, 1.7)):
        assert np.isinf(law.stieltjes(0).real)
    assert rm.MarchenkoPastur(1, 1.7).density(0) == np.inf


def test_a_quantile_between_an_atom_and_the_bulk_belongs_to_whichever_comes_first():
    law = rm.MarchenkoPastur(1.7, 0.43)
    left, _ = law.support[0]
    assert law.quantile(law.cdf(left / 2)) == 0
    reflected = law.dilate(-1)
    assert reflected.quantile(reflected.cdf(-left / 2)) == pytest.approx(-left, rel=1e-9)


def test_a_symbolic_ratio_is_read_as_at_most_one():
    q = sympy.Symbol("q", positive=True)
    assert rm.MarchenkoPastur(q).atoms == ()
    assert rm.MarchenkoPastur(sympy.Rational(5, 2)).atoms == ((0, sympy.Rational(3, 5)),)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rm.Semicircle(0), "variance must be a positive finite number, got 0"),
        (lambda: rm.Semicircle(-1.7), "variance must be a positive finite number, got -1.7"),
        (lambda: rm.Semicircle(np.nan), "variance must be a positive finite number, got nan"),
        (lambda: rm.Semicircle("1"), "variance must be a positive finite number, got '1'"),
        (lambda: rm.Semicircle(1.7, np.inf), "mean must be a finite number, got inf"),
        (lambda: rm.Semicircle(1.7, None), "mean must be a finite number, got None"),
        (lambda: rm.MarchenkoPastur(0), "ratio must be a positive finite number, got 0"),
        (lambda: rm.MarchenkoPastur(np.inf), "ratio .* it is dim / samples"),
        (lambda: rm.MarchenkoPastur(0.43, -2), "variance .* the variance of a data entry"),
        (lambda: rm.MarchenkoPastur(0.43).dilate(0), "scale must not be 0"),
        (lambda: rm.MarchenkoPastur(0.43).shift(np.nan), "offset must be a finite number"),
        (lambda: rm.Semicircle(1.7).s_transform(0.1), "needs a law with non-zero mean"),
        (lambda: rm.Semicircle(1.7).quantile(1.1), r"p must lie in \[0, 1\], got values from 1.1"),
        (lambda: rm.Semicircle(1.7).quantile([np.nan]), r"p must lie in \[0, 1\], got .* nan"),
        (lambda: rm.Semicircle(1.7).moment(-1), "order must be an integer of at least 0, got -1"),
        (lambda: rm.Semicircle(1.7).moment(1.5), "order must be an integer .* got 1.5"),
        (lambda: rm.Semicircle(1.7).free_cumulants(0), "order must be an integer of at least 1"),
        (lambda: rm.MarchenkoPastur(0.43).jacobi(0), "steps must be an integer of at least 1"),
        (lambda: rm.Semicircle(1.7).sample(0, np.random.default_rng()), "dim must be an integer"),
        (lambda: rm.Semicircle(1.7).smoothed_density(0, 0), "width must be positive, got 0"),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


class Gegenbauer(Law):
    """ρ(x) = 8(1 - x²)^{3/2}/(3π) on ±1: a law that states its transform and support, no more."""

    @property
    def support(self):
        return ((-1.0, 1.0),)

    def stieltjes(self, z):
        z = np.asarray(z, complex)
        return 8 / 3 * ((1 - z**2) * (np.sqrt(z - 1) * np.sqrt(z + 1) - z) - z / 2)

    def r_transform(self, w):
        raise NotImplementedError


def test_a_law_that_states_only_transform_and_support_gets_all_the_rest():
    law = Gegenbauer()
    x = np.linspace(-0.95, 0.95, 21)
    root = np.sqrt(1 - x**2)
    np.testing.assert_allclose(law.density(x), 8 * root**3 / (3 * np.pi), atol=1e-14)
    cdf = 0.5 + (x * (5 - 2 * x**2) * root + 3 * np.arcsin(x)) / (3 * np.pi)
    np.testing.assert_allclose(law.cdf(x), cdf, atol=1e-14)
    np.testing.assert_allclose(law.quantile(cdf), x, atol=1e-12)  # density at the ends 0.03
    assert law.moment(2) == pytest.approx(1 / 6, abs=1e-14)
    assert law.moment(4) == pytest.approx(1 / 16, abs=1e-14)
    # Gegenbauer polynomials of index 2: b_{n-1}² = n(n+3)/(4(n+1)(n+2))
    n = np.arange(1, 10)
    a, b = law.jacobi(10)
    np.testing.assert_allclose(a, np.zeros(10), atol=1e-13)
    np.testing.assert_allclose(b**2, n * (n + 3) / (4 * (n + 1) * (n + 2)), atol=1e-13)
    assert law.free_cumulants(4) == pytest.approx([0, 1 / 6, 0, 1 / 16 - 2 / 36], abs=1e-13)
    with pytest.raises(NotImplementedError, match="no canonical matrix ensemble"):
        law.sample(5, np.random.default_rng(0))
    with pytest.raises(NotImplementedError, match="no polynomial equation"):
        law.equation(0, 0)
    with pytest.raises(NotImplementedError, match="no moment estimate"):
        Gegenbauer.moment_estimate(law)


def test_shifting_a_shifted_law_keeps_one_affine_map():
    law = rm.MarchenkoPastur(0.43, 1.7).shift(0.5).dilate(-2).shift(1)
    assert law == AffineLaw(rm.MarchenkoPastur(0.43, 1.7), -2.0, 0.0)
