"""The rational kernel: every edge, every root, next to gaps and cusps and far from everything.

A witness in closed form: for two equal atoms ±a and a semicircle of variance 1, K' = 0 reads
(s² - a²)² = s² + a², so a gap opens in the middle at a = 1 and is about 2.18 (a - 1)^(3/2) wide.
"""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest

from rmthess.laws.kernel import Kernel

EPSILON = float(np.finfo(float).eps)


def two_atoms(a):
    """Atoms ±a of weight 1/2 and a semicircle of variance 1."""
    return Kernel(np.array([-a, a]), np.array([0.5, 0.5]))


def covariance(t, w, ratio):
    """Silverstein's kernel of a population of eigenvalues t with weights w."""
    t, w = np.asarray(t, float), np.asarray(w, float)
    return Kernel(t, ratio * w * t**2, 1.0, ratio * float(w @ t))


def many(count, ratio):
    t = np.linspace(0.5, 10.4, count)
    return covariance(t, np.full(count, 1 / count), ratio)


def wild(seed):
    """Poles over six decades, residues over fourteen, slopes over six."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 40)
    poles = rng.normal(size=size) * 10.0 ** rng.uniform(-3, 3, size)
    residues = 10.0 ** rng.uniform(-12, 2, size)
    return Kernel(poles, residues, 10.0 ** rng.uniform(-3, 3), rng.normal())


KERNELS = {
    "one_atom": Kernel(np.array([0.7]), np.array([1.3]), 0.6, -0.2),
    "gap": two_atoms(1.5),
    "cusp": two_atoms(1.0),
    **{f"gap_opens_at_{eps:g}": two_atoms(1 + eps) for eps in (1e-3, 1e-6, 1e-9, 1e-12)},
    **{f"gap_closed_by_{eps:g}": two_atoms(1 - eps) for eps in (1e-3, 1e-6, 1e-9, 1e-12)},
    "three_atoms": covariance([1, 3, 10], np.full(3, 1 / 3), 0.3),
    "hundred_atoms": many(100, 0.1),
    "hundred_atoms_apart": many(100, 0.01),
    "hundred_atoms_merged": many(100, 3.0),
    **{f"wild_{seed}": wild(seed) for seed in range(12)},
}
each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def width(kernel):
    return kernel.edges[-1] - kernel.edges[0]


def real_points(kernel, count=20_000):
    """A grid beyond both ends, and points from 1e-15 to 0.1 of the width off 40 edges."""
    edges, w = kernel.edges, width(kernel)
    near = w * np.geomspace(1e-15, 0.1, 120)
    chosen = edges[np.unique(np.linspace(0, edges.size - 1, 40).astype(int))]
    grid = np.linspace(edges[0] - w / 10, edges[-1] + w / 10, count)
    return np.concatenate(
        [grid, edges, np.add.outer(chosen, np.concatenate([-near, near])).ravel()]
    )


def residual(kernel, omega, z):
    """|K(ω) - z| in units of the rounding of the terms of K(ω)."""
    terms = np.abs(kernel.slope * omega) + abs(kernel.offset)
    for pole, weight in zip(kernel.poles, kernel.residues, strict=True):
        terms += weight / np.abs(omega - pole)
    return np.abs(kernel(omega) - z) / (EPSILON * terms)


def derivative(kernel, s):
    """K'(s) at real s, in mpmath."""
    s = mpmath.mpf(s)
    pairs = zip(kernel.poles.tolist(), kernel.residues.tolist(), strict=True)
    return kernel.slope - mpmath.fsum(mpmath.mpf(r) / (s - t) ** 2 for t, r in pairs)


# ---------------------------------------------------------------------------- edges


def test_one_atom_is_a_semicircle():
    kernel = KERNELS["one_atom"]
    middle, half = 0.6 * 0.7 - 0.2, 2 * np.sqrt(0.6 * 1.3)
    np.testing.assert_allclose(kernel.edges, [middle - half, middle + half], rtol=1e-15)
    x = np.linspace(middle - half, middle + half, 1001)[1:-1]
    wanted = 0.7 + (x - middle + 1j * np.sqrt(half**2 - (x - middle) ** 2)) / 1.2
    np.testing.assert_allclose(kernel.solve(x), wanted, atol=1e-14)


@each_kernel
def test_turning_points_are_where_a_dense_scan_sees_the_sign_of_the_slope_change(kernel):
    """Between neighbouring turning points K' has one sign, + outside the support and - inside."""
    turns = kernel.turning_points
    assert turns.size % 2 == 0
    assert np.all(np.diff(turns) > 0)
    reach = 10 * (turns[-1] - turns[0])
    ends = np.concatenate([[turns[0] - reach], turns, [turns[-1] + reach]])
    for index, (a, b) in enumerate(itertools.pairwise(ends)):
        inner = a + (b - a) * np.sin(np.linspace(0, np.pi / 2, 400)[1:-1]) ** 2
        inner = inner[np.abs(inner[:, None] - kernel.poles).min(axis=1) > 0]
        _, slope = kernel._value_and_slope(inner)
        sign = np.sign(slope) if index % 2 == 0 else -np.sign(slope)
        # a stretch below the rounding of a gap's ends counts as inside
        hidden = np.abs(slope) < 1e-9 * kernel.slope
        assert np.all((sign > 0) | hidden)


@each_kernel
def test_turning_points_are_zeros_of_the_slope_in_forty_digits(kernel):
    """The sign changes within a few roundings of the turning point."""
    turns = kernel.turning_points
    with mpmath.workdps(40):
        for turn in turns[np.unique(np.linspace(0, turns.size - 1, 12).astype(int))].tolist():
            gap = float(np.abs(turn - kernel.poles).min())
            bend = abs(float(mpmath.diff(lambda s: derivative(kernel, s), turn)))
            # the terms of K' are positive, sum up to the slope and have a rounding each
            step = 8 * EPSILON * (abs(turn) + kernel.slope / max(bend, 1e-300))
            if step > gap / 2:
                continue  # a cusp: two turning points as near as rounding can tell
            assert derivative(kernel, turn - step) * derivative(kernel, turn + step) < 0


@pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
def test_the_gap_between_two_atoms_opens_at_the_distance_of_one(eps):
    """Width 2 K(s) at the inner root of (s² - a²)² = s² + a²: about 2.18 eps^(3/2)."""
    with mpmath.workdps(60):
        a = mpmath.mpf(1 + eps)  # the double that the kernel gets
        s = -mpmath.sqrt(a**2 + mpmath.mpf(1) / 2 - mpmath.sqrt(2 * a**2 + mpmath.mpf(1) / 4))
        edge = float(s + s / (s**2 - a**2))
    edges = two_atoms(1 + eps).edges
    assert edges.size == 4
    np.testing.assert_allclose(edges[1:3], [-abs(edge), abs(edge)], rtol=1e-14, atol=2e-16)
    assert two_atoms(1 - eps).edges.size == 2  # and none is invented on the other side


def test_no_gap_of_a_millionth_of_the_width_is_missed_among_many():
    """Clusters of poles at distances that open gaps from 1e-9 to 1e-2 of the width."""
    opened = np.array([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    left = np.cumsum(np.r_[0.0, np.full(opened.size - 1, 50.0)])
    poles = np.concatenate([left, left + 2 * (1 + opened)])
    kernel = Kernel(poles, np.full(poles.size, 0.5))
    assert kernel.edges.size == 4 * opened.size - 2 * np.count_nonzero(
        [not _opens(poles, a, b) for a, b in zip(left, left + 2 * (1 + opened), strict=True)]
    )


def _opens(poles, a, b):
    """Whether K' is positive somewhere between two poles, in 40 digits at the minimum."""
    with mpmath.workdps(40):

        def slope(s):
            return 1 - mpmath.fsum(mpmath.mpf("0.5") / (s - t) ** 2 for t in poles.tolist())

        middle = mpmath.findroot(lambda s: mpmath.diff(slope, s), (a + b) / 2)
        return slope(middle) > 0


def test_edges_never_cross():
    """A gap below the rounding of its ends is no gap: 1e-12 would open one 2e-18 wide."""
    for eps in (1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15):
        edges = two_atoms(1 + eps).edges
        assert np.all(np.diff(edges) > 0)


def test_the_three_atom_population_has_its_three_intervals():
    """{1, 3, 10} in equal parts at ratio 0.3, to 1e-14 of 50-digit edges."""
    kernel = KERNELS["three_atoms"]
    with mpmath.workdps(50):
        third = mpmath.mpf("0.3") / 3

        def slope(s):
            return 1 - third * sum((t / (s - t)) ** 2 for t in (1, 3, 10))

        edges = []
        for turn in kernel.turning_points.tolist():
            s = mpmath.findroot(slope, turn)
            edges.append(float(s + third * sum(t * s / (s - t) for t in (1, 3, 10))))
    np.testing.assert_allclose(kernel.edges, edges, rtol=1e-14)
    np.testing.assert_allclose(
        kernel.edges, [0.312750, 1.321978, 1.358539, 4.654820, 5.330643, 17.821270], atol=6e-7
    )


# ---------------------------------------------------------------------------- roots


@each_kernel
def test_every_one_of_twenty_thousand_real_points_is_solved_to_rounding(kernel):
    x = real_points(kernel)
    omega = kernel.solve(x)
    assert not np.isnan(omega).any()
    assert residual(kernel, omega, x).max() < 4
    inside = np.searchsorted(kernel.edges, x, side="right") % 2 == 1
    strictly = inside & ~np.isin(x, kernel.edges)
    assert np.all(omega.imag[strictly] > 0)
    assert np.all(omega.imag[~inside] == 0)


@each_kernel
def test_re_omega_increases_along_the_axis(kernel):
    x = np.unique(real_points(kernel))
    s = kernel.solve(x).real
    # next to an edge ω - turn goes like √(x - edge): x known to EPSILON gives s to its root
    assert np.all(np.diff(s) >= -1e-7 * (s[-1] - s[0]))
    coarse = kernel.solve(np.linspace(x[0], x[-1], 200)).real
    assert np.all(np.diff(coarse) > 0)


@each_kernel
def test_x_increases_along_the_curve_of_boundary_values(kernel):
    """x(s) = Re K(s + ih(s)): Biane's theorem, on which the bisection rests."""
    turns = kernel.turning_points
    s = np.linspace(turns[0], turns[-1], 4001)[1:-1]
    x = kernel(s + 1j * kernel.height(s)).real
    assert np.all(np.diff(x) > -1e-13 * width(kernel))


@each_kernel
def test_points_above_the_axis_are_solved_to_rounding_down_to_a_trillionth(kernel):
    w, edges = width(kernel), kernel.edges
    chosen = edges[np.unique(np.linspace(0, edges.size - 1, 8).astype(int))]
    near = w * np.geomspace(1e-12, 0.1, 12)
    x = np.linspace(edges[0] - w / 2, edges[-1] + w / 2, 60)
    x = np.concatenate([x, chosen, np.add.outer(chosen, np.concatenate([-near, near])).ravel()])
    for lift in (1e-12, 1e-9, 1e-6, 1e-3, 1.0):
        z = x + 1j * lift * w
        omega = kernel.solve(z)
        assert not np.isnan(omega).any()
        assert residual(kernel, omega, z).max() < 4
        # Im K(ω) <= slope Im ω: the root of the upper half-plane, not another
        assert np.all(omega.imag * kernel.slope >= z.imag * (1 - 1e-9))
        np.testing.assert_array_equal(kernel.solve(z.conj()), omega.conj())


@each_kernel
def test_points_far_away_keep_their_digits(kernel):
    angles = np.array([0.0, 1e-9, 1e-3, 0.1, 1.0, 2.0, 3.0, np.pi - 1e-9])
    z = width(kernel) * np.outer(10.0 ** np.arange(1, 9), np.exp(1j * angles)).ravel()
    omega = kernel.solve(z)
    assert np.abs(kernel(omega) / z - 1).max() < 4 * EPSILON
    first = (z - kernel.offset) / kernel.slope  # and the root near infinity, not near a pole
    reach = np.abs(kernel.poles).max() + width(kernel) / kernel.slope
    assert np.all(np.abs(omega - first) <= reach)


def test_no_point_is_nan_next_to_the_edges_of_a_narrow_gap():
    """There K' is so small that the roundings of K alone move Newton's iterate."""
    kernel = two_atoms(1 + 1e-6)
    near = width(kernel) * np.geomspace(1e-14, 1e-3, 200)
    x = np.add.outer(kernel.edges, np.concatenate([-near, near])).ravel()
    for lift in (1e-14, 1e-12, 1e-10, 1e-8):
        z = x + 1j * lift * width(kernel)
        assert residual(kernel, kernel.solve(z), z).max() < 4


@each_kernel
def test_values_agree_with_thirty_digits_of_mpmath(kernel):
    """Away from edges: √EPSILON is what a double can say about ω at one."""
    left, right = kernel.edges[0::2], kernel.edges[1::2]
    wide = np.argsort(right - left)[-3:]
    x = np.concatenate([left[wide] + f * (right - left)[wide] for f in (0.07, 0.41, 0.83)])
    z = np.concatenate([x, x + 0.03j * width(kernel)])
    terms = kernel.poles, kernel.residues, kernel.slope, kernel.offset
    omega = kernel.solve(z)
    with mpmath.workdps(30):
        terms = ([*map(mpmath.mpf, terms[0])], [*map(mpmath.mpf, terms[1])],
                 mpmath.mpf(terms[2]), mpmath.mpf(terms[3]))  # fmt: skip
        exact = [kernel.polish(mpmath.mpmathify(point), terms) for point in z.tolist()]
        for point, root in zip(z.tolist(), exact, strict=True):
            pairs = zip(terms[0], terms[1], strict=True)
            value = terms[2] * root + terms[3] + mpmath.fsum(r / (root - t) for t, r in pairs)
            assert abs(value - point) < mpmath.mpf(10) ** -27 * (1 + abs(point))
    _, slope = kernel._value_and_slope(omega)
    # x is rounded, and so are the terms of K: both reach ω divided by K'
    allowed = 8 * EPSILON * kernel._size(omega) / np.abs(slope) + 8 * EPSILON * np.abs(omega)
    assert np.all(np.abs(omega - np.array([complex(root) for root in exact])) <= allowed)


def test_the_edges_themselves_are_the_turning_points():
    kernel = KERNELS["three_atoms"]
    np.testing.assert_array_equal(kernel.solve(kernel.edges), kernel.turning_points)


def test_thirty_digits_at_the_edges_themselves():
    """A double edge is 1e-16 off: ω is 1e-8 off the turning point, real or not."""
    kernel = KERNELS["three_atoms"]
    with mpmath.workdps(30):
        terms = ([*map(mpmath.mpf, kernel.poles)], [*map(mpmath.mpf, kernel.residues)],
                 mpmath.mpf(1), mpmath.mpf(kernel.offset))  # fmt: skip
        for edge, turn in zip(kernel.edges.tolist(), kernel.turning_points.tolist(), strict=True):
            root = kernel.polish(mpmath.mpf(edge), terms)
            assert abs(root - turn) < 1e-6
            pairs = zip(terms[0], terms[1], strict=True)
            value = root + terms[3] + mpmath.fsum(r / (root - t) for t, r in pairs)
            assert abs(value - edge) < mpmath.mpf(10) ** -26


def test_nan_and_infinity_stay_where_they_are():
    omega = KERNELS["gap"].solve(np.array([np.nan, 0.0, np.inf, 1.0 + 1.0j]))
    np.testing.assert_array_equal(np.isnan(omega), [True, False, True, False])
    assert KERNELS["gap"].solve(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert KERNELS["gap"].solve(np.zeros((2, 3))).shape == (2, 3)


# ---------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("exponent", [-150, -75, -20, 20, 75, 150])
def test_a_change_of_unit_changes_no_digit_by_more_than_its_rounding(exponent):
    unit = 10.0**exponent
    base = KERNELS["three_atoms"]
    kernel = Kernel(unit * base.poles, unit**2 * base.residues, 1.0, unit * base.offset)
    np.testing.assert_allclose(kernel.edges / unit, base.edges, rtol=1e-14)
    z = np.array([0.9, 1.34, 2.0, 30.0, -3.0, 9.0, 2 + 1j, 1 - 1e-9j, 1e8j])
    np.testing.assert_allclose(kernel.solve(unit * z) / unit, base.solve(z), rtol=1e-13)


def test_ten_thousand_atoms_work():
    t = np.sort(np.random.default_rng(3).lognormal(size=10_000))
    kernel = covariance(t, np.full(t.size, 1e-4), 0.3)
    x = np.linspace(kernel.edges[0], kernel.edges[-1], 300)
    omega = kernel.solve(x)
    assert residual(kernel, omega, x).max() < 40  # sums of 1e4 terms


def test_equal_poles_are_one_and_empty_ones_are_none():
    twice = Kernel(np.array([1.0, 1.0, 2.0]), np.array([0.2, 0.3, 0.0]))
    once = Kernel(np.array([1.0]), np.array([0.5]))
    np.testing.assert_allclose(twice.edges, once.edges, rtol=1e-15)
    with pytest.raises(ValueError, match="needs at least one pole with a positive residue"):
        Kernel(np.array([1.0]), np.array([0.0]))
