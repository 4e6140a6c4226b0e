"""Uniform, arcsine, Fuss–Catalan, Wachter, Kesten–McKay and mixtures: what the battery leaves.

Witnesses: random graphs and matrices built entry by entry, laws that two routes reach, 40 digits.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import pytest
import sympy

import rmthess as rm
from rmthess.laws.mixture import Mixture


def distance(law, values):
    return rm.wasserstein(law, rm.DiscreteMeasure.from_eigenvalues(values))


# ---------------------------------------------------------------------------- Uniform, arcsine


def test_the_transforms_of_a_uniform_law_are_formulas():
    a, b, w = sympy.symbols("a b w", real=True)
    law = rm.Uniform(a, b)
    z = sympy.Symbol("z")
    assert sympy.simplify(sympy.diff(law.stieltjes(z), z) - 1 / ((z - a) * (z - b))) == 0
    series = sympy.series(law.r_transform(w), w, 0, 4).removeO()
    assert sympy.simplify(series.coeff(w, 1) - (b - a) ** 2 / 12) == 0
    assert sympy.simplify(series.coeff(w, 3) + (b - a) ** 4 / 720) == 0
    inside = law.stieltjes(z).subs({a: -1, b: 2, z: sympy.Rational(1, 3)})  # from above
    assert complex(inside) == pytest.approx(complex(rm.Uniform(-1.0, 2.0).stieltjes(1 / 3)))


def test_the_uniform_transform_is_right_from_one_millionth_to_ten_to_the_hundred():
    law, exact = rm.Uniform(1.0, 3.0), rm.Uniform(mpmath.mpf(1), mpmath.mpf(3))
    z = np.array([1 + 1e-6, 3 - 1e-6j, 2 + 1e-9j, 2.5 + 2j, 4.01 - 1e-3j, 1e5j, 1e100 + 1e99j])
    with mpmath.workdps(40):
        wanted = [complex(exact.stieltjes(mpmath.mpmathify(p))) for p in z]
    np.testing.assert_allclose(law.stieltjes(z), wanted, rtol=2e-15)


def test_the_uniform_r_transform_has_no_hole_at_zero():
    law, exact = rm.Uniform(-1.0, 3.0), rm.Uniform(mpmath.mpf(-1), mpmath.mpf(3))
    w = np.array([0, 1e-9, -1e-3, 0.499, 0.501, 40.0, 1e-5j, 0.3 - 0.2j, 0.6 + 0.1j])
    with mpmath.workdps(40):
        wanted = [complex(exact.r_transform(mpmath.mpmathify(p))) for p in w]
    np.testing.assert_allclose(law.r_transform(w), wanted, rtol=3e-15)
    with mpmath.workdps(80):  # coth t - 1/t on either side of the change of formula
        t = [mpmath.mpf(1) - mpmath.mpf("1e-30"), mpmath.mpf(1)]
        low, high = (rm.Uniform(-1, mpmath.mpf(1)).r_transform(x) for x in t)
        assert abs(high - low) < mpmath.mpf("1e-29")


def test_free_cumulants_of_a_uniform_law_are_bernoulli_numbers():
    """κ_2n = B_2n 2^2n/(2n)! on ±1."""
    law = rm.Uniform(Fraction(-1), Fraction(1))
    wanted = [0, Fraction(1, 3), 0, Fraction(-1, 45), 0, Fraction(2, 945)]
    assert law.free_cumulants(6) == wanted


def test_the_arcsine_law_is_the_free_sum_of_two_fair_coins():
    """P + Q P' Q^T with symmetries P, P' of trace 0: eigenvalues of a dense matrix."""
    dim, rng = 1000, np.random.default_rng(4)
    q = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    signs = np.repeat([-1.0, 1.0], dim // 2)
    values = np.linalg.eigvalsh(np.diag(signs) + q @ (signs[:, None] * q.T))
    assert distance(rm.Arcsine(), values) < 3 / dim  # eigenvalues repel: 1/dim, not dim^-1/2


def test_kesten_mckay_of_degree_two_is_the_arcsine_law():
    tree, arcsine = rm.KestenMcKay(2), rm.Arcsine()
    x = np.linspace(-2.5, 2.5, 41)
    np.testing.assert_allclose(tree.density(x), arcsine.density(x), rtol=1e-14)
    np.testing.assert_allclose(tree.cdf(x), arcsine.cdf(x), atol=1e-15)
    np.testing.assert_allclose(tree.stieltjes(x + 0.1j), arcsine.stieltjes(x + 0.1j), rtol=1e-14)
    assert [tree.moment(k) for k in range(9)] == [1, 0, 2, 0, 6, 0, 20, 0, 70]
    assert tree.density(2.0) == np.inf


# ---------------------------------------------------------------------------- Kesten–McKay


def test_kesten_mckay_moments_count_closed_walks_on_the_tree():
    """Powers of the adjacency matrix of the ball of radius 5 in the 3-regular tree."""
    parents, children = [0], []
    edges, count = [], 1
    for level in range(5):
        children = []
        for vertex in parents:
            for _ in range(3 if level == 0 else 2):
                edges.append((vertex, count))
                children.append(count)
                count += 1
        parents = children
    adjacency = np.zeros((count, count), int)
    for a, b in edges:
        adjacency[a, b] = adjacency[b, a] = 1
    walks, row = [], np.eye(count, dtype=int)[0]
    for _ in range(11):
        walks.append(row[0])
        row = row @ adjacency
    assert [rm.KestenMcKay(3).moment(k) for k in range(11)] == walks


def test_random_regular_graphs_approach_kesten_mckay():
    for degree, dim in ((3, 800), (6, 501)):
        law = rm.KestenMcKay(degree)
        values = law.sample(dim, np.random.default_rng(degree))
        assert values[-1] == pytest.approx(degree, abs=1e-9)  # the constant vector
        np.testing.assert_allclose((values**2).mean(), degree, rtol=1e-12)  # simple and regular
        # short cycles, of which there are O(1), move the bulk by O(1/dim)
        assert distance(law, values[:-1]) < 12 / dim


# ---------------------------------------------------------------------------- Fuss–Catalan


def test_fuss_catalan_of_order_one_is_marchenko_pastur():
    law, other = rm.FussCatalan(1), rm.MarchenkoPastur(1)
    x = 4 * np.array([1e-9, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-6, 1.5])
    z = np.concatenate([x + 1e-3j, x - 2j, -x])
    np.testing.assert_allclose(law.density(x), other.density(x), rtol=1e-9)
    np.testing.assert_allclose(law.cdf(x), other.cdf(x), atol=1e-15)
    np.testing.assert_allclose(law.stieltjes(z), other.stieltjes(z), rtol=1e-12)
    np.testing.assert_allclose(law.quantile(law.cdf(x[:5])), x[:5], rtol=1e-12)
    w = np.array([0.1, 0.2 + 0.1j])
    np.testing.assert_allclose(law.r_transform(w), other.r_transform(w), rtol=1e-14)


@pytest.mark.parametrize("order", [2, 3])
def test_products_of_ginibre_matrices_approach_fuss_catalan(order):
    """Eigenvalues of (G_1 ... G_p)^T (G_1 ... G_p), and moments as traces of words."""
    dim, law = 500, rm.FussCatalan(order)
    rng = np.random.default_rng(order)
    product = np.linalg.multi_dot([rng.normal(size=(dim, dim)) for _ in range(order)])
    product /= dim ** (order / 2)
    gram = product.T @ product
    assert distance(law, np.linalg.eigvalsh(gram)) < 25 / dim  # the mean alone moves by √2p/dim
    assert distance(law, law.sample(dim, rng)) < 25 / dim
    # Var tr/dim of a word is O(1/dim²); for the square it is 20 at p = 2 and 60 at p = 3
    assert np.trace(gram @ gram) / dim == pytest.approx(order + 2 - 1, abs=40 / dim)


@pytest.mark.parametrize("order", [1, 1.3, 2, 3, 7.5])
def test_the_fuss_catalan_branch_is_found_at_sixty_thousand_points(order):
    """Each in the upper half-plane, on the curve: along the bulk, about the edge, down to 0."""
    law, rng = rm.FussCatalan(order), np.random.default_rng(7)
    right, n = float(law.support[0][1]), 20_000
    height, turn = np.exp(rng.uniform(-35, 2, n)), np.exp(1j * np.pi * rng.uniform(0, 1, n))
    for z in (
        right * (rng.uniform(-1, 2, n) + 1j * height),
        right * (1 + height * turn),
        right * turn * np.exp(rng.uniform(-300, 300, n)),
    ):
        m = law.stieltjes(z)
        b = -z * m
        assert np.all(m.imag > 0)
        # z (B - 1) = B^{p+1}, relative to z: complex powers of 1e-130 keep 1e-13
        assert np.all(np.abs(b ** (order + 1) - z * (b - 1)) <= 1e-12 * np.abs(z))
        np.testing.assert_array_equal(law.stieltjes(z.conj()), m.conj())


def test_fuss_catalan_moments_are_exact():
    for p in (1, 2, 5):
        wanted = [comb((p + 1) * k, k) // (p * k + 1) for k in range(8)]
        assert [rm.FussCatalan(p).moment(k) for k in range(8)] == wanted
    assert rm.FussCatalan(Fraction(3, 2)).moment(3) == Fraction(65, 8)


@pytest.mark.parametrize("order", ["2", "1.7"])
def test_fuss_catalan_in_forty_digits(order):
    """Density and cdf against the parametrisation in φ, which the mpmath path does not use."""
    with mpmath.workdps(40):
        p, phi = mpmath.mpf(order), mpmath.mpf("0.37")
        s, t, u = mpmath.sin(phi), mpmath.sin(p * phi), mpmath.sin((p + 1) * phi)
        x = u ** (p + 1) / (s * t**p)
        law = rm.FussCatalan(p)
        assert abs(law.density(x) - s**2 * t ** (p - 1) / (mpmath.pi * u**p)) < 1e-37
        assert abs(law.cdf(x) - 1 + ((p + 1) * phi - p * u * s / t) / mpmath.pi) < 1e-37
    with mpmath.workdps(15):
        x = np.array([1e-250, 1e-6, 0.3, 2.0, float(law.support[0][1]) * (1 - 1e-6)])
        double = rm.FussCatalan(float(order))
    with mpmath.workdps(40):
        wanted = [float(law.density(mpmath.mpf(v))) for v in x.tolist()]
        below = [float(law.cdf(mpmath.mpf(v))) for v in x.tolist()]
    np.testing.assert_allclose(double.density(x), wanted, rtol=1e-9)
    np.testing.assert_allclose(double.cdf(x), below, rtol=1e-13, atol=1e-39)
    np.testing.assert_allclose(double.quantile(double.cdf(x)), x, rtol=1e-10)


def test_a_moved_fuss_catalan_law_integrates_through_its_steep_edge():
    law = rm.FussCatalan(3).shift(1).dilate(-2)
    assert law.integrate(np.ones_like) == pytest.approx(1, abs=1e-14)
    assert law.moment(2) == pytest.approx(4 * (1 + 2 + 4), rel=1e-13)


def test_a_real_argument_beyond_the_end_of_r_is_nan_and_warned_of():
    with pytest.warns(UserWarning, match="not found at 1 of 2 points"):
        values = rm.FussCatalan(3).r_transform(np.array([0.1, 0.2]))  # the end is 4/27
    assert np.isnan(values).tolist() == [False, True]


# ---------------------------------------------------------------------------- Wachter


@pytest.mark.parametrize(("samples1", "samples2"), [(800, 1200), (300, 500), (250, 900)])
def test_true_wishart_pairs_approach_wachter(samples1, samples2):
    """Eigenvalues of the non-symmetric A(A + B)^{-1} itself, atoms included."""
    dim, rng = 400, np.random.default_rng(samples1)
    x, y = rng.normal(size=(samples1, dim)), rng.normal(size=(samples2, dim))
    a, b = x.T @ x, y.T @ y
    values = np.linalg.eigvals(a @ np.linalg.inv(a + b))
    assert np.abs(values.imag).max() < 1e-6
    law = rm.Wachter(dim / samples1, dim / samples2)
    assert distance(law, values.real) < 1 / dim
    drawn = law.sample(dim, rng)
    assert distance(law, drawn) < 1 / dim
    for location, mass in law.atoms:
        assert np.count_nonzero(drawn == location) == pytest.approx(mass * dim, abs=1e-9)


def test_wachter_moments_of_exact_ratios_are_exact():
    """Against Σ over the cdf's law: E tr of projections, α and β rational."""
    law = rm.Wachter(Fraction(1, 2), Fraction(1, 4))
    a, b = Fraction(1, 3), Fraction(1, 6)
    assert law.moment(1) == a
    assert law.moment(2) == a**2 + a * (1 - a) * b
    assert law.moment(3) == a**3 + 3 * a**2 * (1 - a) * b + a * (1 - a) * (1 - 2 * a) * b**2


def test_wachter_swaps_its_ratios_when_reflected():
    law, other = rm.Wachter(1.7, 0.43), rm.Wachter(0.43, 1.7).dilate(-1).shift(1)
    x = np.linspace(0.01, 0.99, 30)
    np.testing.assert_allclose(law.density(x), other.density(x), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(x), other.cdf(x), atol=1e-14)


def test_wachter_with_both_edges_hard_is_the_arcsine_law():
    law, other = rm.Wachter(1, 1), rm.Arcsine(0, 1)
    x = np.array([-0.5, 0.0, 1e-12, 0.3, 0.9, 1.0, 1.5])
    np.testing.assert_allclose(law.density(x), other.density(x), rtol=1e-14)
    np.testing.assert_allclose(law.cdf(x), other.cdf(x), atol=1e-15)


# ---------------------------------------------------------------------------- mixtures


def test_a_mixture_is_the_spectrum_of_a_block_diagonal_matrix():
    rng = np.random.default_rng(11)
    parts = [rm.Semicircle(0.3, 2.0), rm.MarchenkoPastur(1.7, 0.5)]
    values = [law.sample(dim, rng) for law, dim in zip(parts, (600, 400), strict=True)]
    law = rm.mixture(parts, [0.6, 0.4])
    assert distance(law, np.sort(np.concatenate(values))) < 3 / 1000


def test_overlapping_supports_and_equal_atoms_merge():
    law = rm.mixture(
        [rm.Uniform(0, 2), rm.Uniform(1, 3), rm.Uniform(5, 6), rm.MarchenkoPastur(2, 0.01)],
        [0.25, 0.25, 0.25, 0.25],
    )
    assert list(law.support) == [(0, 3), (5, 6)]
    assert law.atoms == ((0, 0.125),)
    np.testing.assert_allclose(law.breakpoints[-5:], [1, 2, 3, 5, 6])
    nested = rm.mixture([law, rm.DiscreteMeasure([0.0, 9.0], [0.5, 0.5])], [0.8, 0.2])
    assert isinstance(nested, Mixture)
    assert len(nested.measures) == 5
    assert nested.atoms == ((0, pytest.approx(0.2)), (9.0, pytest.approx(0.1)))
    assert nested.quantile([0.0, 0.15, 0.95]).tolist() == [0.0, 0.0, 9.0]
    assert nested.moment(2) == pytest.approx(0.8 * law.moment(2) + 0.1 * 81)


def test_a_mixture_of_discrete_measures_is_discrete():
    one, two = rm.DiscreteMeasure([1.0, 2.0], [0.5, 0.5]), rm.DiscreteMeasure([0.0], [1.0])
    both = rm.mixture([one, two], [0.25, 0.75])
    assert isinstance(both, rm.DiscreteMeasure)
    assert both.nodes.tolist() == [0, 1, 2]
    assert both.weights.tolist() == [0.75, 0.125, 0.125]


def test_a_mixture_takes_mpmath_numbers():
    half = mpmath.mpf(1) / 2
    with mpmath.workdps(40):
        law = rm.mixture([rm.Semicircle(1), rm.DiscreteMeasure([3.0], [1.0])], [half, half])
        z = mpmath.mpc("0.3", "0.2")
        wanted = (rm.Semicircle(1).stieltjes(z) + 1 / (3 - z)) / 2
        assert abs(law.stieltjes(z) - wanted) < mpmath.mpf("1e-38")


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rm.Uniform(1, 1), "left must be less than right, got 1 and 1"),
        (lambda: rm.Uniform(2, 1), "left must be less than right, got 2 and 1"),
        (lambda: rm.Uniform(0, np.inf), "right must be a finite number, got inf"),
        (lambda: rm.Uniform(0, 1).dilate(0), "scale must not be 0"),
        (lambda: rm.Uniform(0, 1).shift(np.nan), "offset must be a finite number, got nan"),
        (lambda: rm.Uniform(-1, 1).s_transform(0.1), "needs a law with non-zero mean"),
        (lambda: rm.Arcsine("a", 1), "left must be a finite number, got 'a'"),
        (lambda: rm.Arcsine(1, -1), "left must be less than right"),
        (lambda: rm.Arcsine().s_transform(0.1), "needs a law with non-zero mean"),
        (lambda: rm.FussCatalan(0), "order must be a positive finite number, got 0"),
        (lambda: rm.FussCatalan(0.5), "order must be at least 1, got 0.5; it is the number of"),
        (lambda: rm.FussCatalan(1.5).sample(9, np.random.default_rng()), "needs an integer order"),
        (lambda: rm.FussCatalan(2).moment(-1), "order must be an integer of at least 0"),
        (lambda: rm.FussCatalan(2).quantile(2), r"p must lie in \[0, 1\]"),
        (lambda: rm.Wachter(0, 1), "ratio1 must be a positive finite number, got 0"),
        (lambda: rm.Wachter(1, -1), "ratio2 .* dim / samples of the second matrix"),
        (lambda: rm.Wachter(3, 3), r"1/ratio1 \+ 1/ratio2 must exceed 1, got 3 and 3"),
        (lambda: rm.Wachter(2, 2), "must exceed 1, got 2 and 2"),
        (lambda: rm.KestenMcKay(1), "degree must be at least 2, got 1"),
        (lambda: rm.KestenMcKay(np.nan), "degree must be a positive finite number, got nan"),
        (lambda: rm.KestenMcKay(2.5).sample(10, np.random.default_rng()), "an integer degree"),
        (lambda: rm.KestenMcKay(3).sample(9, np.random.default_rng()), "even number of half-edg"),
        (lambda: rm.KestenMcKay(3).s_transform(0.1), "needs a law with non-zero mean"),
        (lambda: rm.mixture([], []), "one weight a measure, got 0 measures and 0 weights"),
        (lambda: rm.mixture([rm.Uniform(0, 1)], [0.5, 0.5]), "got 1 measures and 2 weights"),
        (lambda: rm.mixture([rm.Uniform(0, 1)], [0.5]), "weights must sum to 1, got 0.5"),
        (
            lambda: rm.mixture([rm.Uniform(0, 1)] * 2, [1.5, -0.5]),
            "weights must be finite and not negative",
        ),
        (lambda: Mixture((rm.DiscreteMeasure([0.0], [1.0]),), (1.0,)), "needs a law among its"),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_mixture_refuses_what_is_no_exact_measure():
    measured = rm.LanczosMeasure([[0.0, 0.0]], [[1.0]], [0.5], dim=9)
    with pytest.raises(TypeError, match=r"got LanczosMeasure; of a Lanczos measure take \.pooled"):
        rm.mixture([measured], [1.0])
