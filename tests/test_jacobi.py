"""Jacobi matrices: Gauss rules, continued fractions, tails, and chains of random matrices."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import gamma, poch

import rmthess as rm
from rmthess import jacobi

RNG = np.random.default_rng(20)
DIAGONAL, OFF_DIAGONAL = RNG.normal(size=6), RNG.uniform(0.3, 1.7, size=5)


def tridiagonal(a, b):
    return np.diag(a) + np.diag(b, 1) + np.diag(b, -1)


# ------------------------------------------------------------------- Gauss quadrature


def test_a_gauss_rule_is_exact_to_degree_2m_minus_1_and_no_further():
    nodes, weights = jacobi.gauss_quadrature(DIAGONAL[:3], OFF_DIAGONAL[:2])
    big = tridiagonal(DIAGONAL, OFF_DIAGONAL)
    moments = [np.linalg.matrix_power(big, k)[0, 0] for k in range(7)]
    found = [nodes**k @ weights for k in range(7)]
    np.testing.assert_allclose(found[:6], moments[:6], rtol=1e-13, atol=1e-13)
    assert abs(found[6] - moments[6]) > 1e-3
    # by exactly Π b_k²: the first entry of T^6 that needs the cut bond, there and back
    assert moments[6] - found[6] == pytest.approx(np.prod(OFF_DIAGONAL[:3] ** 2), rel=1e-12)


def test_gauss_rule_of_the_legendre_polynomials_in_thirty_digits():
    """a = 0, b_k = k/√(4k²-1): nodes are the roots of P_8, found here by mpmath."""
    k = np.arange(1, 8)
    nodes, weights = jacobi.gauss_quadrature(np.zeros(8), k / np.sqrt(4 * k**2 - 1))
    with mpmath.workdps(30):
        for x, w in zip(nodes, weights, strict=True):
            root = mpmath.findroot(lambda t: mpmath.legendre(8, t), mpmath.mpf(float(x)))
            slope = mpmath.diff(lambda t: mpmath.legendre(8, t), root)
            assert abs(root - float(x)) < 4e-16
            assert abs(1 / ((1 - root**2) * slope**2) - float(w)) < 4e-16


@given(st.integers(-150, 150), st.integers(0, 2**32 - 1))
def test_a_gauss_rule_scales_with_its_measure(exponent, seed):
    rng = np.random.default_rng(seed)
    a, b, scale = rng.normal(size=7), rng.uniform(0.1, 2, size=6), 10.0**exponent
    nodes, weights = jacobi.gauss_quadrature(a, b)
    scaled_nodes, scaled_weights = jacobi.gauss_quadrature(scale * a, scale * b)
    np.testing.assert_allclose(scaled_nodes / scale, nodes, atol=1e-13)
    np.testing.assert_allclose(scaled_weights, weights, atol=1e-12)


def test_coefficients_end_at_the_first_bond_that_is_zero_or_nan():
    for stop in (0.0, np.nan):
        a, b = jacobi.leading_block([1.0, 2.0, 3.0, 4.0], [0.5, stop, 0.7])
        np.testing.assert_array_equal(a, [1.0, 2.0])
        np.testing.assert_array_equal(b, [0.5])
    nodes, weights = jacobi.gauss_quadrature([7.0, np.nan], [np.nan])
    assert (nodes, weights) == (7.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], []), ([], [1.0]), ([[1.0]], [])])
def test_shapes_that_are_no_jacobi_matrix_are_refused(a, b):
    with pytest.raises(ValueError, match=r"shapes \(steps,\) and \(steps - 1,\), got"):
        jacobi.leading_block(a, b)


# ------------------------------------------------------------------- quadrature to coefficients


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_coefficients_and_gauss_rule_determine_each_other(steps, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=steps), rng.uniform(0.2, 2, size=steps - 1)
    back = jacobi.from_quadrature(*jacobi.gauss_quadrature(a, b), steps)
    # a node of tiny weight fixes the last coefficients: they lose up to 1e-16/smallest weight
    smallest = jacobi.gauss_quadrature(a, b)[1].min()
    np.testing.assert_allclose(back[0], a, atol=1e-13 + 1e-15 / smallest)
    np.testing.assert_allclose(back[1], b, atol=1e-13 + 1e-15 / smallest)


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_scale_and_shift_of_the_nodes_pass_through(scale):
    nodes, weights = jacobi.gauss_quadrature(DIAGONAL, OFF_DIAGONAL)
    a, b = jacobi.from_quadrature(scale * (nodes + 3), weights, 6)
    np.testing.assert_allclose(a / scale, DIAGONAL + 3, atol=1e-12)
    np.testing.assert_allclose(b / scale, OFF_DIAGONAL, atol=1e-12)


def test_used_up_atoms_leave_nan():
    a, b = jacobi.from_quadrature([1.0, 2.0, 2.0, 5.0, 9.0], [0.25, 0.25, 0.25, 0.25, 0.0], 5)
    assert np.isfinite(a).tolist() == [True] * 3 + [False] * 2
    assert np.isfinite(b).tolist() == [True] * 2 + [False] * 2
    nodes, weights = jacobi.gauss_quadrature(a, b)
    np.testing.assert_allclose(nodes, [1, 2, 5], atol=1e-14)
    np.testing.assert_allclose(weights, [0.25, 0.5, 0.25], atol=1e-14)
    a, b = jacobi.from_quadrature([4.0, 4.0], [0.5, 0.5], 2)
    assert a[0] == 4.0
    assert np.isnan([a[1], b[0]]).all()


def test_lanczos_on_kac_matrix_ends_with_its_known_spectrum():
    """Kac: off-diagonal √(k(n-k)) has eigenvalues n-1, n-3, ..., -(n-1)."""
    n = 31
    k = np.arange(1, n)
    kac = tridiagonal(np.zeros(n), np.sqrt(k * (n - k)))
    start = np.random.default_rng(3).normal(size=(2, n))
    a, b = jacobi.chains(lambda v: v @ kac, start, n + 4)
    assert a.shape == (2, n + 4)
    for probe in range(2):
        nodes, weights = jacobi.gauss_quadrature(a[probe], b[probe])
        np.testing.assert_allclose(nodes, np.arange(-(n - 1), n, 2), atol=1e-11)
        vectors = np.linalg.eigh(kac)[1]
        overlap = (start[probe] @ vectors / np.linalg.norm(start[probe])) ** 2
        np.testing.assert_allclose(weights, overlap, atol=1e-11)


def test_full_reorthogonalisation_shows_no_ghost_of_the_strakos_matrix():
    """λ_i = 0.1 + (i-1)/47 · 99.9 · 0.8^{48-i}: without it, 7 copies of the top in 96 steps."""
    i = np.arange(1, 49)
    strakos = 0.1 + (i - 1) / 47 * 99.9 * 0.8 ** (48 - i)
    a, b = jacobi.from_quadrature(strakos, np.full(48, 1 / 48), 96)
    nodes, weights = jacobi.gauss_quadrature(a, b)
    np.testing.assert_allclose(nodes[-8:], strakos[-8:], rtol=1e-12)
    np.testing.assert_allclose(weights[-8:], np.full(8, 1 / 48), rtol=1e-9)
    assert nodes.size <= 48


# ------------------------------------------------------------------- Markov–Stieltjes


def head_of(nodes, weights, steps):
    a, b = jacobi.from_quadrature(nodes, weights, steps + 1)
    return a[:steps], b[: steps - 1], b[steps - 1]


@given(st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_the_bounds_hold_for_the_measure_they_come_from(size, seed):
    """At its atoms, between them, at the Gauss nodes, and outside.

    Beside a converged node they rise within less than rounding: so x moves outwards by 1e-12.
    """
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, size))
    nodes, weights = np.sort(rng.normal(size=size)), rng.dirichlet(np.ones(size))
    head = head_of(nodes, weights, steps)
    gauss, _ = jacobi.gauss_quadrature(*head[:2])
    x = np.concatenate([nodes, rng.normal(size=9), gauss, [-9, 9]])
    lower = jacobi.markov_stieltjes(*head, x - 1e-12)[0]
    upper = jacobi.markov_stieltjes(*head, x + 1e-12)[1]
    exact = rm.DiscreteMeasure(nodes, weights)
    assert np.all(lower <= exact.cdf(np.nextafter(x, -np.inf)) + 1e-11)
    assert np.all(exact.cdf(x) <= upper + 1e-11)


@pytest.mark.parametrize("x", [-0.4, 1.1, 0.0, 7.0])
def test_the_bounds_are_attained_by_a_measure_with_the_same_coefficients(x):
    """The Gauss–Radau rule is one: its own coefficients are those given, to the last."""
    residual = 0.8
    a, b = DIAGONAL, OFF_DIAGONAL
    resolvent = np.linalg.solve(tridiagonal(a, b) - x * np.eye(6), np.eye(6)[-1])[-1]
    bordered = np.append(a, x + residual**2 * resolvent), np.append(b, residual)
    nodes, weights = jacobi.gauss_quadrature(*bordered)
    fixed = np.argmin(np.abs(nodes - x))
    assert nodes[fixed] == pytest.approx(x, abs=1e-13)
    back = head_of(nodes, weights, 6)
    np.testing.assert_allclose(np.concatenate(back[:2]), np.concatenate([a, b]), atol=1e-11)
    assert back[2] == pytest.approx(residual, abs=1e-11)
    lower, upper = jacobi.markov_stieltjes(a, b, residual, x)
    assert lower == pytest.approx(weights[:fixed].sum(), abs=1e-14)
    assert upper == pytest.approx(weights[: fixed + 1].sum(), abs=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_no_measure_on_a_grid_with_these_moments_does_better_by_linear_programming(steps):
    """Krein: max and min of μ(-∞, x] over all measures with the moments up to 2m.

    The program sees a grid of 4001 points only, on which the extremal measure is known to 1e-3.
    """
    rng = np.random.default_rng(21)
    nodes, weights = rng.uniform(-1, 1, 12), rng.dirichlet(np.ones(12))
    head = head_of(nodes, weights, steps)
    reach = np.linspace(-3, 3, 4001)
    orders = np.arange(2 * steps + 1)
    # moments in Chebyshev polynomials of x/3, so that the rows are of one size
    rows = np.cos(orders[:, None] * np.arccos(reach / 3))
    wanted = np.cos(orders[:, None] * np.arccos(nodes / 3)) @ weights
    for x in (-0.8, 0.1, 0.7):  # no node of the extremal measures leaves ± 3
        lower, upper = jacobi.markov_stieltjes(*head, x)
        for sign, bound, inside in ((1, lower, reach < x), (-1, upper, reach <= x)):
            found = linprog(sign * inside, A_eq=rows, b_eq=wanted, bounds=(0, None))
            assert found.status == 0
            assert sign * found.fun == pytest.approx(bound, abs=3e-3)
            assert found.fun >= sign * bound - 1e-9


def test_one_step_is_cantelli_and_two_close_in():
    """σ²/(σ² + (x - a)²) above the mean."""
    x = np.array([-2.0, -0.7, 0.1, 0.3, 1.5])
    lower, upper = jacobi.markov_stieltjes([0.3], [], 0.9, x)
    tail = 0.81 / (0.81 + (x - 0.3) ** 2)
    np.testing.assert_allclose(lower, np.where(x > 0.3, 1 - tail, 0), atol=1e-15)
    np.testing.assert_allclose(upper, np.where(x < 0.3, tail, 1), atol=1e-15)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("distance", 10.0 ** -np.arange(1, 17, 3))
def test_near_a_gauss_node_the_bounds_keep_fifteen_digits(distance, side):
    """There the border's diagonal entry is up to 1e16 times the others; forty digits by mpmath."""
    a, b, residual = DIAGONAL[:4], OFF_DIAGONAL[:3] * [1, 1e-3, 1], 0.8
    gauss, _ = jacobi.gauss_quadrature(a, b)
    x = float(gauss[2] + side * distance)
    with mpmath.workdps(40):
        matrix = mpmath.matrix(tridiagonal(a, b).tolist())
        last = mpmath.lu_solve(matrix - x * mpmath.eye(4), mpmath.matrix([0, 0, 0, 1]))[3]
        bordered = mpmath.zeros(5)
        bordered[:4, :4] = matrix
        bordered[3, 4] = bordered[4, 3] = residual
        bordered[4, 4] = x + mpmath.mpf(residual) ** 2 * last
        nodes, vectors = mpmath.eigsy(bordered)
        at = min(range(5), key=lambda i: abs(nodes[i] - x))
        weights = [vectors[0, i] ** 2 for i in range(5)]
        wanted = [float(mpmath.fsum(weights[:end])) for end in (at, at + 1)]
    np.testing.assert_allclose(
        jacobi.markov_stieltjes(a, b, residual, x), wanted, atol=1e-14 / min(1, 1e3 * distance)
    )


@given(st.integers(-150, 150))
def test_the_bounds_scale_with_their_measure(exponent):
    scale, x = 10.0**exponent, np.linspace(-3, 3, 7)
    bounds = jacobi.markov_stieltjes(DIAGONAL, OFF_DIAGONAL, 0.8, x)
    scaled = jacobi.markov_stieltjes(scale * DIAGONAL, scale * OFF_DIAGONAL, scale * 0.8, scale * x)
    np.testing.assert_allclose(scaled, bounds, atol=1e-13)


def test_where_the_measure_is_known_the_bounds_meet_but_at_its_atoms():
    x = np.array([0.0, 1.0, 1.5, 2.0, 3.0])
    for a, b, residual in (
        ([1.5, 1.5], [0.5], 0.0),
        ([1.5, 1.5, np.nan], [0.5, np.nan], 0.0),
        ([1.5, 1.5, 7.0], [0.5, 0.0], 0.9),
    ):
        lower, upper = jacobi.markov_stieltjes(a, b, residual, x)
        np.testing.assert_allclose(lower, [0, 0, 0.5, 0.5, 1], atol=1e-15)
        np.testing.assert_allclose(upper, [0, 0.5, 0.5, 1, 1], atol=1e-15)


# ------------------------------------------------------------------- continued fraction


def test_the_continued_fraction_is_the_transform_of_the_gauss_rule():
    z = np.array([[0.3 + 0.1j, -4.0 + 2.0j], [1e3 + 1j, 0.2 - 0.7j]])
    nodes, weights = jacobi.gauss_quadrature(DIAGONAL, OFF_DIAGONAL)
    wanted = (1 / (nodes - z[..., None])) @ weights
    np.testing.assert_allclose(jacobi.stieltjes(DIAGONAL, OFF_DIAGONAL, z), wanted, rtol=1e-12)
    resolvent = np.linalg.inv(tridiagonal(DIAGONAL, OFF_DIAGONAL) - z[0, 0] * np.eye(6))[0, 0]
    assert jacobi.stieltjes(DIAGONAL, OFF_DIAGONAL, z[0, 0]) == pytest.approx(resolvent, rel=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_marchenko_pastur_closed_by_its_tail_is_exact(steps):
    """Its coefficients are constant from the second on, so the terminator is no approximation."""
    law = rm.MarchenkoPastur(0.43, 1.7)
    tail = (1.7 * 1.43, 1.7 * np.sqrt(0.43))
    x = np.linspace(-1, 6, 301)
    m = jacobi.stieltjes(*law.jacobi(steps), x, tail=tail)
    np.testing.assert_allclose(m.imag / np.pi, law.density(x), atol=1e-13)
    far = np.array([1e6j, 1e9 + 1j])
    np.testing.assert_allclose(
        jacobi.stieltjes(*law.jacobi(steps), far, tail=tail), law.stieltjes(far), rtol=1e-14
    )


def test_any_head_closed_by_a_terminator_has_mass_one():
    """Mass of the bulk on a ± 2b by quadrature plus that of the poles outside, by residues."""
    a, b, tail = np.array([0.3, -0.2, 2.5]), np.array([0.9, 1.3]), (0.1, 0.8)
    theta = (np.arange(4000) + 0.5) * np.pi / 4000
    x = tail[0] - 2 * tail[1] * np.cos(theta)
    density = jacobi.stieltjes(a, b, x, tail=tail).imag / np.pi
    assert np.all(density > 0)
    bulk = np.pi / 4000 * np.sum(density * 2 * tail[1] * np.sin(theta))
    left, right = tail[0] - 2 * tail[1], tail[0] + 2 * tail[1]
    poles = 0.0
    for centre in ((right + 9) / 2, (left - 9) / 2):  # a contour around each side
        radius = abs(centre - (right if centre > 0 else left)) * (1 - 1e-3)
        circle = radius * np.exp(2j * np.pi * np.arange(4096) / 4096)
        m = jacobi.stieltjes(a, b, centre + circle, tail=tail)
        poles -= np.mean(m * circle).real
    assert poles > 0.01  # there is an outlier, so both parts are tested
    assert bulk + poles == pytest.approx(1, abs=1e-6)  # the contour converges like 0.999^4096


def test_the_terminator_needs_no_bandwidth_on_a_real_matrix():
    """One Wishart matrix of side 4000 through 24 steps and 8 probes.

    A coefficient scatters by √(1/(8·4000)) = 0.6%, and 24 of them add up in the density.
    """
    law, rng = rm.MarchenkoPastur(0.43, 1.7), np.random.default_rng(4)
    a, b = law.sample_jacobi(24, 4000, rng, probes=8)
    head, tail = (a.mean(axis=0), b.mean(axis=0)), jacobi.tail(a.mean(axis=0), b.mean(axis=0))
    assert tail.converged
    np.testing.assert_allclose(tail.edges, law.support[0], atol=0.03 * np.ptp(law.support[0]))
    x = np.linspace(0.6, 4.3, 50)
    density = jacobi.stieltjes(*head, x, tail=(tail.center, tail.half)).imag / np.pi
    assert np.abs(density - law.density(x)).max() < 0.1 * law.density(x).max()


# ------------------------------------------------------------------- tails


def test_the_tail_of_a_one_cut_law_is_its_edges():
    law = rm.MarchenkoPastur(0.43, 1.7)
    tail = jacobi.tail(*law.jacobi(30))
    assert tail.converged
    np.testing.assert_allclose(tail.edges, law.support[0], rtol=1e-14)
    assert max(tail.center_error, tail.half_error) < 1e-15


def test_the_tail_of_legendre_converges_to_the_interval():
    k = np.arange(1, 60)
    tail = jacobi.tail(np.zeros(60), k / np.sqrt(4 * k**2 - 1))
    assert tail.converged
    np.testing.assert_allclose(tail.edges, [-1, 1], atol=1 / 30**2)  # b_k - 1/2 = O(1/k²)


def test_two_cuts_oscillate_and_are_said_not_to_have_converged():
    nodes, weights = rm.Semicircle(0.05, 0.0).quadrature(400)
    two = np.concatenate([nodes - 1, nodes + 2])
    a, b = jacobi.from_quadrature(two, np.concatenate([weights, weights]) / 2, 40)
    assert not jacobi.tail(a, b).converged


def test_heavy_tails_drift_and_are_said_not_to_have_converged():
    """Hermite weight exp(-x²): b_k = √(k/2) grows for ever."""
    assert not jacobi.tail(np.zeros(40), np.sqrt(np.arange(1, 40) / 2)).converged


def test_a_tail_needs_five_steps():
    with pytest.raises(ValueError, match="at least 5 steps before a breakdown, got 3"):
        jacobi.tail([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 1.0, 0.0, 1.0, 1.0])


# ------------------------------------------------------------------- random matrices


DIM, STEPS, PROBES, DRAWS, SAMPLES = 11, 3, 3, 3000, 17


def dense_goe(rng):
    x = rng.normal(size=(DIM, DIM)) / np.sqrt(2 * DIM)
    return x + x.T


def dense_wishart(rng):
    x = rng.normal(size=(SAMPLES, DIM))
    return x.T @ x / SAMPLES


def seen_by_lanczos(matrix, rng):
    return jacobi.chains(lambda v: v @ matrix, rng.normal(size=(PROBES, DIM)), STEPS)


def flat(chain):
    return np.concatenate([chain[0].ravel(), chain[1].ravel()])


ENSEMBLES = {
    "hermite": (
        dense_goe,
        lambda rng, probes: jacobi.hermite_chains(STEPS, DIM, rng, probes),
        lambda: jacobi.mean_hermite_chain(STEPS, DIM),
    ),
    "laguerre": (
        dense_wishart,
        lambda rng, probes: jacobi.laguerre_chains(STEPS, DIM, SAMPLES, rng, probes),
        lambda: jacobi.mean_laguerre_chain(STEPS, DIM, SAMPLES),
    ),
}
ensembles = pytest.mark.parametrize(("dense", "model", "mean"), ENSEMBLES.values(), ids=ENSEMBLES)


def moments_and_errors(draws):
    """Means and second moments of all pairs, each with its Monte Carlo standard error."""
    pairs = draws[:, :, None] * draws[:, None, :]
    values = np.concatenate([draws, pairs.reshape(len(draws), -1)], axis=1)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(draws))


@ensembles
def test_chains_have_the_joint_law_of_lanczos_on_one_matrix(dense, model, mean):
    """Means and covariances, also across probes, which see the same matrix.

    240 comparisons of about 120 different ones: the largest of them is near 2.8 standard errors.
    """
    rng = np.random.default_rng(8)
    seen = np.array([flat(seen_by_lanczos(dense(rng), rng)) for _ in range(DRAWS)])
    drawn = np.array([flat(model(rng, PROBES)) for _ in range(DRAWS)])
    centre = seen.mean(axis=0)
    (found, found_error), (wanted, error) = map(moments_and_errors, (drawn - centre, seen - centre))
    score = (found - wanted) / np.hypot(found_error, error)
    assert np.abs(score).max() < 4.5
    # and the correlation across probes that this test is about is there to be seen
    cross = np.mean((seen - centre)[:, 0] * (seen - centre)[:, STEPS])
    assert cross > 4 * error[seen.shape[1] :].reshape(seen.shape[1], -1)[0, STEPS]


@ensembles
def test_one_probe_is_the_tridiagonal_model_with_the_stated_mean(dense, model, mean):
    rng = np.random.default_rng(9)
    single = np.array([flat(model(rng, 1)) for _ in range(20_000)])
    several = np.array([model(rng, PROBES)[0].mean(axis=0) for _ in range(2000)])
    wanted, error = flat(mean()), single.std(axis=0) / np.sqrt(len(single))
    assert np.all(np.abs(single.mean(axis=0) - wanted) < 4 * error)
    error = several.std(axis=0) / np.sqrt(len(several))
    assert np.all(np.abs(several.mean(axis=0) - wanted[:STEPS]) < 4 * error)


@pytest.mark.parametrize("probes", [1, 4])
def test_past_the_side_of_the_matrix_the_chain_has_broken_down(probes):
    rng = np.random.default_rng(10)
    for a, b in (
        jacobi.hermite_chains(9, 5, rng, probes),
        jacobi.laguerre_chains(9, 5, 12, rng, probes),
    ):
        assert a.shape == (probes, 9)
        assert b.shape == (probes, 8)
        for diagonal, off_diagonal in zip(a, b, strict=True):
            assert jacobi.leading_block(diagonal, off_diagonal)[0].size == 5


@pytest.mark.parametrize("probes", [1, 3])
def test_a_rank_deficient_wishart_matrix_stops_after_samples_plus_one(probes):
    """rank 4 of side 30: the Krylov space of a random vector has 4 + 1 dimensions."""
    a, b = jacobi.laguerre_chains(12, 30, 4, np.random.default_rng(11), probes)
    for diagonal, off_diagonal in zip(a, b, strict=True):
        nodes, _ = jacobi.gauss_quadrature(diagonal, off_diagonal)
        assert nodes.size == 5
        assert nodes[0] == pytest.approx(0, abs=1e-13)
    mean = jacobi.mean_laguerre_chain(7, 30, 4)[1]
    assert np.all(mean[:4] > 0)
    assert np.all(mean[4:] == 0)


def test_a_fraction_of_a_sample_has_a_fraction_of_a_degree_of_freedom():
    """E chi_f² = f also for f = 0.4, the last bond of 2.4 samples."""
    draws = [
        jacobi.laguerre_chains(3, 500, 2.4, np.random.default_rng(seed))[0][0, 2]
        for seed in range(4000)
    ]
    # a_2 = (chi_{0.4}² + chi_{498}²)/2.4, standard deviation √(2·498.4)/2.4
    error = np.sqrt(2 * 498.4) / 2.4 / np.sqrt(4000)
    assert np.mean(draws) == pytest.approx(498.4 / 2.4, abs=4 * error)
    small = [jacobi._chi(np.array([0.4]), np.random.default_rng(s))[0] ** 2 for s in range(4000)]
    assert np.mean(small) == pytest.approx(0.4, abs=4 * np.sqrt(0.8 / 4000))
    # E chi_f = √2 Γ((f+1)/2)/Γ(f/2), here f = 0.4 and 497
    wanted = 2 * gamma(0.7) / gamma(0.2) * poch(497 / 2, 0.5) / 2.4
    assert jacobi.mean_laguerre_chain(4, 500, 2.4)[1][2] == pytest.approx(wanted, rel=1e-13)


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_a_seed_fixes_the_chain(probes, steps, seed):
    for draw in (
        lambda rng: jacobi.hermite_chains(steps, 20, rng, probes),
        lambda rng: jacobi.laguerre_chains(steps, 20, 33.3, rng, probes),
    ):
        first, second = (flat(draw(np.random.default_rng(seed))) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_ritz_bounds_hold_an_eigenvalue_each():
    """|θ - λ| <= residual |last entry| for some eigenvalue λ (Parlett 13.2)."""
    rng = np.random.default_rng(12)
    matrix = rng.normal(size=(60, 60))
    matrix = matrix + matrix.T
    a, b = jacobi.chains(lambda v: v @ matrix, rng.normal(size=(1, 60)), 21)
    nodes, weights, errors = jacobi.ritz(a[0, :20], b[0, :19], b[0, 19])
    assert weights.sum() == pytest.approx(1, abs=1e-13)
    exact = np.linalg.eigvalsh(matrix)
    distance = np.abs(nodes[:, None] - exact).min(axis=1)
    assert np.all(distance <= errors * (1 + 1e-10) + 1e-12)
    assert errors[-1] < 0.1 * errors.max()  # and the outermost pair has nearly converged
