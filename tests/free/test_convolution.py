"""Free sums and products against every closed form, tables, exact moments and random matrices."""

from __future__ import annotations

import fractions
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import eigvalsh

import rmthess as rm
from rmthess.free.convolution import FreeProduct, FreeSum, product_moments, s_transform
from rmthess.laws.uniform import Uniform

COIN = rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5])
REFERENCE = Path(__file__).parent / "convolutions.json"  # 16 to 25 digits, by other code


def inside(law, count=41):
    turn = np.linspace(0, np.pi / 2, count + 2)[1:-1]
    return np.concatenate([a + (b - a) * np.sin(turn) ** 2 for a, b in law.support])


def mass(law, nodes=400):
    """Atoms and the Gauss–Legendre integral of the density in t, x = left + width sin² t."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    turn = np.pi / 4 * (t + 1)
    total = sum(m for _, m in law.atoms)
    for left, right in law.support:
        x = left + (right - left) * np.sin(turn) ** 2
        total += np.pi / 4 * w @ ((right - left) * np.sin(2 * turn) * law.density(x))
    return total


def same(one, two, tolerance=1e-12):
    """Support, density, transform and cdf agree."""
    for p, q in zip(one.support, two.support, strict=True):
        np.testing.assert_allclose(p, q, atol=tolerance)
    np.testing.assert_allclose(sorted(one.atoms), sorted(two.atoms), atol=tolerance)
    x = inside(two)
    np.testing.assert_allclose(one.density(x), two.density(x), atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(one.cdf(x), two.cdf(x), atol=10 * tolerance)
    z = x[::5] + 1j * np.array([0.01, 0.3, 40.0])[:, None]
    np.testing.assert_allclose(one.stieltjes(z), two.stieltjes(z), atol=tolerance)


# ---------------------------------------------------------------------------- closed forms


def test_variances_of_semicircles_add():
    same(FreeSum(rm.Semicircle(0.4, 0.3), rm.Semicircle(1.1, -1)), rm.Semicircle(1.5, -0.7))


def test_numbers_of_samples_of_marchenko_pastur_laws_of_one_scale_add():
    """R = v/(1 - q v w) with q v = t: rates v/t add."""
    t, v1, v2 = 0.43, 0.9, 1.7
    found = FreeSum(rm.MarchenkoPastur(t / v1, v1), rm.MarchenkoPastur(t / v2, v2))
    same(found, rm.MarchenkoPastur(t / (v1 + v2), v1 + v2))


def test_an_atom_of_marchenko_pastur_sums_is_what_is_left_over():
    t, v = 0.43, 0.12  # the rates v/t = 0.279 add to 0.558: atoms 0.72 and 0.72, then 0.44
    one = rm.MarchenkoPastur(t / v, v)
    same(FreeSum(one, one), rm.MarchenkoPastur(t / (2 * v), 2 * v))


def test_the_free_sum_of_two_coins_is_the_arcsine_law():
    law = FreeSum(COIN, COIN)
    assert law.support == ((-2.0, 2.0),)
    x = np.concatenate([np.linspace(-1.999999, 1.999999, 1001), [0.0]])  # B₂∘B₁ = id at 0
    np.testing.assert_allclose(law.density(x), 1 / (np.pi * np.sqrt(4 - x**2)), rtol=1e-9)
    np.testing.assert_allclose(law.cdf(x), 0.5 + np.arcsin(x / 2) / np.pi, atol=1e-13)
    assert law.density(2.0) == np.inf
    assert law.atoms == ()
    assert [law.moment(k) for k in range(9)] == [1, 0, 2, 0, 6, 0, 20, 0, 70]


@pytest.mark.parametrize(("p", "q"), [(0.3, 0.3), (0.3, 0.45), (0.2, 0.9), (0.5, 0.5)])
def test_free_sums_of_projections(p, q):
    """p + q = 1 ± cos θ on the planes that two subspaces span, cos² θ the eigenvalues of pqp."""
    one, two = (rm.DiscreteMeasure([0.0, 1.0], [1 - s, s]) for s in (p, q))
    law = FreeSum(one, two)
    root = 2 * np.sqrt(p * q * (1 - p) * (1 - q))
    cosines = np.sqrt(np.maximum(p + q - 2 * p * q + np.array([-root, root]), 0))
    wanted = np.concatenate([1 - cosines, 1 + cosines])
    found = np.array(law.support).ravel()
    for edge in found:
        assert np.abs(wanted - edge).min() < 1e-12
    assert dict(law.atoms) == pytest.approx(
        {x: m for x, m in ((0.0, 1 - p - q), (1.0, abs(q - p)), (2.0, p + q - 1)) if m > 1e-12}
    )
    assert mass(law) == pytest.approx(1.0, abs=1e-9)


def test_a_projected_projection_has_the_angles_of_two_subspaces():
    """λ± = p + q - 2pq ± 2√(pq(1-p)(1-q)), density √((λ₊ - x)(x - λ₋))/(2πx(1 - x))."""
    p, q = 0.35, 0.6
    law = FreeProduct(*(rm.DiscreteMeasure([0.0, 1.0], [1 - s, s]) for s in (p, q)))
    root = 2 * np.sqrt(p * q * (1 - p) * (1 - q))
    low, high = p + q - 2 * p * q - root, p + q - 2 * p * q + root
    np.testing.assert_allclose(law.support, [(low, high)], atol=1e-14)
    x = inside(law)
    wanted = np.sqrt((high - x) * (x - low)) / (2 * np.pi * x * (1 - x))
    np.testing.assert_allclose(law.density(x), wanted, atol=1e-12)
    assert law.atoms == ((0.0, 0.65),)


def test_a_marchenko_pastur_factor_makes_a_sample_covariance_law():
    population = rm.DiscreteMeasure([1.0, 3.0, 10.0], [0.3, 0.3, 0.4])
    found = FreeProduct(rm.MarchenkoPastur(0.11, 1.0), population)
    edges = np.array(found.support).ravel()
    # critical points of z(u) = -1/u + c ∫ t/(1 + t u) (Silverstein & Choi 1995)
    t, w, c = population.nodes, population.weights, 0.11
    square, total = np.poly1d([1.0]), np.poly1d([0.0])
    for i in range(3):
        others = np.poly1d([1.0])
        for j in range(3):
            others = others * (np.poly1d([t[j], 1]) ** 2 if j != i else 1)
        total = total + c * w[i] * t[i] ** 2 * others
        square = square * np.poly1d([t[i], 1]) ** 2
    roots = (square - total * np.poly1d([1, 0, 0])).roots
    u = roots[np.abs(roots.imag) < 1e-9].real
    wanted = np.sort(-1 / u + c * (w * t / (1 + t * u[:, None])).sum(axis=1))
    np.testing.assert_allclose(edges, wanted, atol=1e-11)
    assert len(found.support) == 3
    assert mass(found) == pytest.approx(1.0, abs=1e-9)


def test_a_product_with_a_centred_law_is_symmetric_and_has_the_right_edge():
    """MP ⊠ semicircle: third-order equation; here by its moments, and by symmetry."""
    law = FreeProduct(rm.MarchenkoPastur(0.43, 1.7), rm.Semicircle(0.3))
    ((left, right),) = law.support
    assert left == pytest.approx(-right, abs=1e-12)
    x = np.linspace(0.01, right - 0.01, 50)
    np.testing.assert_allclose(law.density(x), law.density(-x), atol=1e-12)
    turn = (np.arange(4000) + 0.5) * np.pi / 4000
    nodes = right * np.cos(turn)
    weights = np.pi / 4000 * right * np.sin(turn) * law.density(nodes)
    for order in range(9):
        assert nodes**order @ weights == pytest.approx(law.moment(order), abs=1e-5)


# ---------------------------------------------------------------------------- tables


def _number(text):
    return float(fractions.Fraction(text)) if "/" in text else float(text)


def _atoms(parameters):
    weights = np.array([_number(w) for w in parameters["w"]])
    return rm.DiscreteMeasure([_number(t) for t in parameters["t"]], weights / weights.sum())


def _law(name, p):
    if name.startswith("selfsum"):
        return FreeSum(_atoms(p), _atoms(p))
    if name.startswith("uniform_boxplus_uniform"):
        return FreeSum(Uniform(-1.0, 1.0), Uniform(-_number(p["b"]), _number(p["b"])))
    if name.startswith("uniform_boxplus_semicircle"):
        return FreeSum(Uniform(-1.0, 1.0), rm.Semicircle(_number(p["variance"])))
    if name.startswith("deformed_wigner"):
        return FreeSum(_atoms(p), rm.Semicircle(_number(p["variance"])))
    if name.startswith("mp_boxplus_mp"):
        terms = ((p["c1"], p["sigma2_1"]), (p["c2"], p["sigma2_2"]))
        return FreeSum(*(rm.MarchenkoPastur(_number(q), _number(v)) for q, v in terms))
    if name.startswith("mp_boxminus_mp"):
        one, two = (rm.MarchenkoPastur(_number(p[c])) for c in ("c1", "c2"))
        return FreeSum(one, two.dilate(-1.0))
    if name.startswith("mp_boxtimes_mp"):
        return FreeProduct(*(rm.MarchenkoPastur(_number(p[c])) for c in ("c1", "c2")))
    if name.startswith("generalised_mp") and "t" in p:
        return FreeProduct(rm.MarchenkoPastur(_number(p["c"])), _atoms(p))
    return None


def _entries():
    found = {}
    for entry in json.loads(REFERENCE.read_text()):
        name = entry["name"].split("/")[0]
        kinds = ("density", "edges", "cdf", "stieltjes", "moments", "interval_masses")
        if entry["kind"] in kinds and _law(name, entry["parameters"]) is not None:
            found.setdefault(name, []).append(entry)
    return found


ENTRIES = _entries()


@pytest.mark.parametrize("name", ENTRIES)
def test_tabulated_values(name):
    """The generic route on laws whose values are tabulated to 25 digits by other means."""
    law = _law(name, ENTRIES[name][0]["parameters"])
    for entry in ENTRIES[name]:
        kind, points = entry["kind"], entry["points"]
        if kind == "edges":
            found = np.array(law.support).ravel()
            wanted = [_number(v) for v in entry["values"]]
        elif kind == "stieltjes":
            found = law.stieltjes(np.array([complex(float(a), float(b)) for a, b in points]))
            wanted = [complex(float(a), float(b)) for a, b in entry["values"]]
        elif kind == "moments":
            found = [law.moment(int(k)) for k in points]
            wanted = [_number(v) for v in entry["values"]]
        elif kind == "interval_masses":
            step = 1e-9
            found = [law.cdf(_number(b) + step) - law.cdf(_number(a) - step) for a, b in points]
            wanted = [_number(v) for v in entry["values"]]
        else:
            found = getattr(law, kind)(np.array([_number(x) for x in points]))
            wanted = [_number(v) for v in entry["values"]]
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11, err_msg=entry["name"])


# ---------------------------------------------------------------------------- algebra


def test_free_convolution_commutes():
    one, two = rm.MarchenkoPastur(0.43, 1.7), Uniform(0.2, 1.1)
    same(FreeSum(one, two), FreeSum(two, one))
    same(FreeProduct(one, two), FreeProduct(two, one))


def test_free_convolution_is_associative():
    one, two, three = rm.MarchenkoPastur(0.43, 1.7), Uniform(0.2, 1.1), rm.Semicircle(0.3, 2.0)
    left, right = FreeSum(FreeSum(one, two), three), FreeSum(one, FreeSum(two, three))
    np.testing.assert_allclose(left.support, right.support, atol=1e-10)
    x = inside(left, 15)
    np.testing.assert_allclose(left.density(x), right.density(x), atol=1e-10)


def test_free_cumulants_add_and_moments_follow_exactly():
    one, two = rm.MarchenkoPastur(0.43, 1.7), rm.DiscreteMeasure([-1.0, 0.5, 2.0], [0.2, 0.5, 0.3])
    law = FreeSum(one, two)
    x, w = law.quadrature(400)
    for order in range(9):
        assert law.moment(order) == pytest.approx(w @ x**order, rel=1e-9)
    mean = law.moment(1)
    assert law.free_cumulants(2) == pytest.approx([mean, law.moment(2) - mean**2])


def test_moments_are_exact_in_exact_arithmetic():
    third = fractions.Fraction(1, 3)
    first = [third**k for k in range(1, 6)]  # an atom at 1/3: the product is a dilation
    second = [fractions.Fraction(1, k + 1) for k in range(1, 6)]  # uniform on [0, 1]
    assert product_moments(first, second) == [p * q for p, q in zip(first, second, strict=True)]
    assert product_moments(second, first) == [p * q for p, q in zip(first, second, strict=True)]
    catalan = [1, 2, 5, 14, 42]
    assert product_moments(catalan, catalan) == [1, 3, 12, 55, 273]  # Fuss–Catalan
    centred = [0, 1, 0, 2, 0]  # semicircle; m₂ of the product is mean² variance
    assert product_moments(catalan, centred)[:2] == [0, 1]
    assert product_moments(centred, catalan) == product_moments(catalan, centred)


def test_r_transforms_add_and_invert_the_transform():
    law = FreeSum(rm.MarchenkoPastur(0.43, 1.7), COIN)
    z = np.array([9.0 + 1.0j, -5.0 + 2.0j, 0.5 + 8.0j])
    w = -law.stieltjes(z)
    np.testing.assert_allclose(law.r_transform(w) + 1 / w, z, atol=1e-11)
    product = FreeProduct(rm.MarchenkoPastur(0.43, 1.7), Uniform(0.2, 1.1))
    w = -product.stieltjes(z)
    np.testing.assert_allclose(product.r_transform(w) + 1 / w, z, atol=1e-9)


def test_s_transforms_multiply_and_invert_the_transform():
    """T(z) = -z m(z) - 1 has the inverse (1 + w)/(w S(w))."""
    one, two = rm.MarchenkoPastur(0.43, 1.7), rm.DiscreteMeasure([0.4, 1.3], [0.25, 0.75])
    law = FreeProduct(one, two)
    w = np.array([0.02, 0.1, 0.2])
    np.testing.assert_allclose(law.s_transform(w), one.s_transform(w) * s_transform(two, w))
    z = (1 + w) / (w * law.s_transform(w))
    np.testing.assert_allclose(-z * law.stieltjes(z).real - 1, w, atol=1e-10)


@pytest.mark.parametrize(
    "law",
    [
        FreeSum(rm.DiscreteMeasure([0.0, 1.3], [0.3, 0.7]), rm.MarchenkoPastur(1.7, 0.4)),
        FreeSum(rm.DiscreteMeasure([0.0, 1.3], [0.2, 0.8]), rm.MarchenkoPastur(1.7, 0.4)),
        FreeSum(rm.DiscreteMeasure([0.0, 1.0, 4.0], [0.1, 0.7, 0.2]), COIN),
        FreeSum(
            rm.DiscreteMeasure([0.0, 1.0, 4.0], [0.1, 0.7, 0.2]),
            rm.DiscreteMeasure([-1.0, 0.0, 0.7], [0.8, 0.1, 0.1]),
        ),
        FreeProduct(rm.DiscreteMeasure([0.0, 1.3], [0.3, 0.7]), rm.MarchenkoPastur(1.7, 0.4)),
        FreeProduct(
            rm.DiscreteMeasure([0.5, 1.3, 2.0], [0.1, 0.7, 0.2]),
            rm.DiscreteMeasure([-1.0, 0.0, 0.7], [0.8, 0.1, 0.1]),
        ),
    ],
)
def test_atoms_carry_what_the_density_leaves(law):
    assert mass(law) == pytest.approx(1.0, abs=1e-8)  # near-edges slow the quadrature
    for location, weight in law.atoms:
        step = 1e-7
        jump = law.cdf(location) - law.cdf(location - step)
        assert jump == pytest.approx(weight, abs=1e-6)
        residue = 1e-7 * law.stieltjes(location + 1e-7j).imag
        assert residue == pytest.approx(weight, abs=1e-4)
        assert np.isinf(law.stieltjes(location).real)


def test_jacobi_coefficients_reproduce_the_moments():
    for law in (
        FreeSum(rm.MarchenkoPastur(0.43, 1.7), Uniform(-0.4, 1.1)),
        FreeProduct(rm.MarchenkoPastur(0.43, 1.7), Uniform(0.4, 1.1)),
    ):
        a, b = law.jacobi(5)
        T = np.diag(a) + np.diag(b, 1) + np.diag(b, -1)
        for order in range(10):
            found = np.linalg.matrix_power(T, order)[0, 0]
            assert found == pytest.approx(law.moment(order), rel=1e-10)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        # two atoms next to each other: a pole of H of small residue between two zeros
        (([0.569, 0.58, 1.47], [0.5, 0.45, 0.05]), ([0.0, 0.0074, 0.5824], [0.36, 0.43, 0.21])),
        # an atom of mass 4e-5: a zero of H within 3e-5 of its pole
        (([0.777, 1.475], [0.99996, 4e-5]), ([0.7, 1.1, 1.5, 1.7], [0.09, 0.46, 0.14, 0.31])),
        # three decades
        (([1.0, 7.0, 40.0, 900.0], [0.4, 0.1, 0.2, 0.3]),
         ([1.3, 55.0, 57.0, 610.0], [0.2, 0.35, 0.4, 0.05])),
        (([0.0, 1.3, 310.0], [0.2, 0.5, 0.3]),
         ([-640.0, -2.0, 33.0, 35.0], [0.1, 0.3, 0.4, 0.2])),
    ],
)  # fmt: skip
def test_no_interval_of_a_product_is_missed(one, two):
    """The masses add up to 1 and the mean is right; steep edges slow the quadrature."""
    law = FreeProduct(rm.DiscreteMeasure(*one), rm.DiscreteMeasure(*two))
    x, w = law.quadrature(3000)
    assert w.sum() == pytest.approx(1, abs=1e-7)
    assert w @ x == pytest.approx(law.moment(1), abs=1e-7 * (w @ np.abs(x)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sum", "product"])
def test_random_pairs_have_mass_one_and_their_moments(kind):
    """60 pairs of up to five atoms, signed, in a product half of them over three decades."""
    for seed in range(60):
        rng = np.random.default_rng([seed, kind == "sum"])
        one, two = random_atoms(rng, seed % 2, kind == "product"), random_atoms(rng, seed % 2)
        law = (FreeSum if kind == "sum" else FreeProduct)(one, two)
        x, w = law.quadrature(3000)
        assert w.sum() == pytest.approx(1, abs=1e-5), seed  # edges like 1/√x of nearly equal atoms
        for order in (1, 2, 3):
            error = w @ x**order - law.moment(order)
            assert abs(error) <= 1e-5 * (w @ np.abs(x) ** order), (seed, order)


def random_atoms(rng, decades, positive=False):
    count = rng.integers(2, 6)
    nodes = np.exp(rng.uniform(0, 3 * np.log(10), count)) if decades else rng.uniform(0, 3, count)
    signs = 1 if positive else rng.choice([-1, 1], count)
    return rm.DiscreteMeasure(signs * nodes, rng.dirichlet(np.full(count, 2.0)))


@pytest.mark.parametrize("mass", [1e-2, 1e-4, 1e-7])
def test_an_edge_that_nearly_touches_that_of_a_term_is_found(mass):
    """An atom of little mass moves a semicircle's edge by its square: the kernel knows where."""
    atoms, noise = rm.DiscreteMeasure([-0.22, 0.46], [1 - mass, mass]), rm.Semicircle(2.47, 0.3)
    same(FreeSum(atoms, noise), rm.boxplus(atoms, noise))


def test_next_to_an_atom_in_the_bulk_the_density_keeps_its_digits():
    """The atom at 0 is the pole of m; within 1e-4 of it the density varies by 1e-4."""
    one = rm.DiscreteMeasure([0.0, 1.27, 2.51], [0.1, 0.5, 0.4])
    law = FreeProduct(one, rm.Semicircle(0.91, 0.95))
    assert law.atoms == ((0.0, pytest.approx(0.1)),)
    far = law.density(np.array([-1e-3, 1e-3]))
    near = 10.0 ** -np.arange(4, 17)
    for x in (near, -near):
        np.testing.assert_allclose(law.density(x), far.mean(), rtol=1e-3)
    assert np.ptp(law.density(near[4:])) < 1e-7


def test_a_sum_of_a_product_is_computed_without_a_warning():
    """The inner law has an atom, and zeros of its transform within a gap."""
    inner = FreeProduct(rm.DiscreteMeasure([0.0, 1.34], [0.36, 0.64]), rm.MarchenkoPastur(1.0, 1.1))
    law = FreeSum(inner, Uniform(-1.1, 2.7))
    x, w = law.quadrature(200)
    assert not np.isnan(w).any()
    assert w.sum() == pytest.approx(1, abs=1e-9)
    assert w @ x**2 == pytest.approx(law.moment(2), abs=1e-8)


def test_quantiles_of_a_law_with_a_narrow_gap_invert_the_cdf():
    law = FreeSum(COIN, rm.Semicircle(1 - 1e-4))
    p = np.linspace(0.001, 0.999, 500)
    np.testing.assert_allclose(law.cdf(law.quantile(p)), p, atol=1e-12)


# ---------------------------------------------------------------------------- random matrices


def haar(dim, rng):
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return q * np.sign(np.diag(r))


def spectrum(measure, dim):
    """Quantiles at (k + 1/2)/dim: W₁ to the law is of order 1/dim."""
    return np.asarray(measure.quantile((np.arange(dim) + 0.5) / dim))


@pytest.mark.parametrize("kind", ["sum", "product"])
def test_rotated_matrices_approach_the_law_like_one_over_dim(kind):
    one = rm.DiscreteMeasure([0.4, 1.0, 3.1], [0.3, 0.5, 0.2])
    two = Uniform(-0.5, 1.7)
    law = (FreeSum if kind == "sum" else FreeProduct)(one, two)
    distance = {}
    for dim in (250, 500, 2000):
        rng = np.random.default_rng([dim, 3])
        a, u = spectrum(one, dim), haar(dim, rng)
        b = (u * spectrum(two, dim)) @ u.T
        root = np.sqrt(a)
        matrix = b + np.diag(a) if kind == "sum" else root[:, None] * b * root
        seen = rm.DiscreteMeasure.from_eigenvalues(eigvalsh(matrix))
        distance[dim] = rm.wasserstein(seen, law)
    # 1/dim: eightfold from 250 to 2000, the scatter of one draw is near 15%
    assert 4 < distance[250] / distance[2000] < 16
    assert distance[2000] < 3 / 2000


# ---------------------------------------------------------------------------- bad input


def test_a_product_of_two_signed_laws_is_refused():
    with pytest.raises(ValueError, match=r"one of the two measures must live on \[0, ∞\)"):
        FreeProduct(rm.Semicircle(0.3), Uniform(-1.0, 2.0))


def test_the_s_transform_of_a_centred_law_says_why():
    law = FreeSum(rm.Semicircle(0.3), COIN)
    with pytest.raises(ValueError, match="non-zero mean, and this one is centred"):
        law.s_transform(0.1)
    product = FreeProduct(rm.MarchenkoPastur(0.43), COIN)
    with pytest.raises(ValueError, match="non-zero mean, and this one is centred"):
        product.s_transform(0.1)


@pytest.mark.parametrize("call", [lambda law: law.moment(-1), lambda law: law.free_cumulants(0)])
def test_orders_are_positive_integers(call):
    for law in (FreeSum(COIN, COIN), FreeProduct(rm.MarchenkoPastur(0.43), COIN)):
        with pytest.raises(ValueError, match="order must be an integer of at least"):
            call(law)


def test_nan_in_is_nan_out_and_shapes_are_kept():
    for law in (FreeSum(COIN, rm.Semicircle(0.3)), FreeProduct(rm.MarchenkoPastur(0.43), COIN)):
        for method in (law.density, law.cdf, law.stieltjes):
            x = np.array([[np.nan, 0.3], [0.7, np.nan]])
            np.testing.assert_array_equal(np.isnan(method(x)), np.isnan(x))
            assert np.ndim(method(0.3)) == 0
            assert method(np.array([])).shape == (0,)
        np.testing.assert_allclose(law.cdf([-np.inf, np.inf]), [0, 1], atol=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_a_sum_or_product_of_any_scale_is_the_dilated_one(scale):
    """Three atoms and two, whose sum has gaps: the same intervals, times the scale."""
    one = rm.DiscreteMeasure([1.0, 3.0, 10.0], [0.2, 0.3, 0.5])
    two = rm.DiscreteMeasure([0.43, 1.7], [0.4, 0.6])
    large = rm.DiscreteMeasure(scale * one.nodes, one.weights)
    small = rm.DiscreteMeasure(scale * two.nodes, two.weights)
    plain, found = rm.boxplus(one, two), rm.boxplus(large, small)
    np.testing.assert_allclose(found.support, scale * np.array(plain.support), rtol=1e-12)
    x = inside(plain)
    np.testing.assert_allclose(found.density(scale * x) * scale, plain.density(x), rtol=1e-9)
    plain, found = rm.boxtimes(one, two), rm.boxtimes(large, two)
    np.testing.assert_allclose(found.support, scale * np.array(plain.support), rtol=1e-12)
    x = inside(plain)
    np.testing.assert_allclose(found.density(scale * x) * scale, plain.density(x), rtol=1e-9)


def test_a_product_over_six_decades_keeps_its_mass_and_over_more_is_refused():
    def product(smallest):
        return FreeProduct(
            rm.DiscreteMeasure([smallest, 1.0, 2.0], [0.3, 0.4, 0.3]), rm.Uniform(0.5, 1.5)
        )

    law = product(2e-6)
    assert len(law.support) == 3
    assert law.cdf(0.1) == pytest.approx(0.3, abs=1e-9)
    with pytest.raises(ValueError, match="mass at 1e-07, below 1e-06 of its largest value 2"):
        product(1e-7)


def test_a_cdf_that_misses_mass_says_so(monkeypatch):
    law = FreeSum(rm.DiscreteMeasure([-2.0, 0.0, 3.0], [0.25, 0.5, 0.25]), rm.Uniform(0, 0.3))
    lost = law.subordination.support[1:]
    monkeypatch.setitem(vars(law.subordination), "support", lost)
    with pytest.warns(UserWarning, match=r"mass 0\.75; an interval of the support .* is missing"):
        _ = law._panels._cumulatives
