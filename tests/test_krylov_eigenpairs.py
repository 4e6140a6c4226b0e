"""Extremal eigenpairs, and the measure of what is left without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn

import rmthess as rm
from rmthess.krylov.eigenpairs import _sweep_length
from rmthess.krylov.errors import LanczosError, LanczosInterrupted


def rotated(spectrum, seed=0):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(spectrum),) * 2))[0]
    matrix = Q * np.asarray(spectrum) @ Q.T
    return (matrix + matrix.T) / 2


def largest(values, count):
    return np.sort(values[np.argsort(-np.abs(values))[:count]])


def check_pairs(matrix, found, tolerance):
    V = found.vectors.double().numpy()
    assert V.shape == (len(matrix), len(found.values))
    np.testing.assert_allclose(V.T @ V, np.eye(V.shape[1]), atol=tolerance)
    residuals = np.linalg.norm(matrix @ V - V * found.values, axis=0)
    scale = np.abs(found.values).max()
    assert residuals.max() <= tolerance * scale
    assert np.abs(residuals - found.residuals).max() <= tolerance * scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_eigenpairs_are_those_of_the_dense_matrix(dtype, count):
    bulk = np.random.default_rng(0).standard_normal(300)
    matrix = rotated(np.append(bulk, [9, 8, -7, 6])).astype(dtype)
    matrix = (matrix + matrix.T) / 2
    found = rm.eigenpairs(matrix, count)
    values = np.linalg.eigvalsh(matrix.astype(float))
    # Rayleigh quotients: the square of the residual, and the rounding of one product
    tolerance = 3e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(found.values, largest(values, count), rtol=tolerance)
    check_pairs(matrix.astype(float), found, 3e-5 if dtype == np.float32 else 1e-11)
    assert found.converged
    assert found.message == f"converged: {count} of {count}"


@pytest.mark.parametrize(
    "spectrum",
    [
        [1.0] * 40,
        [0.0] * 40,
        [9.0, 9.0, 9.0, -9.0, *np.linspace(0, 1, 60)],
        [9.0, 5.0, 5.0, 5.0, 5.0, 5.0, *np.linspace(0, 1, 60)],
        [4.0, -4.0, *[2.0] * 10, *[0.0] * 80],
    ],
)
@pytest.mark.parametrize("diagonal", [True, False])
def test_multiple_eigenvalues_are_found_with_their_multiplicity(spectrum, diagonal):
    matrix = np.diag(spectrum) if diagonal else rotated(spectrum)
    found = rm.eigenpairs(matrix, 5)
    np.testing.assert_allclose(found.values, largest(np.array(spectrum), 5), atol=1e-12)
    check_pairs(matrix, found, 1e-11)


def test_outside_finds_all_beyond_the_edges_and_none_where_there_is_none():
    spectrum = np.append(np.linspace(-1, 1, 200), [2.0, 2.5, -3.0, 2.5])
    found = rm.eigenpairs(rotated(spectrum), outside=(-1.5, 1.5))
    np.testing.assert_allclose(found.values, [-3, 2, 2.5, 2.5], atol=1e-12)
    assert found.message == "converged: 4 outside (-1.5, 1.5)"
    none = rm.eigenpairs(rotated(spectrum), outside=(-4, 4))
    assert none.values.size == 0
    assert none.vectors.shape == (204, 0)
    assert none.converged


@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_spectra_of_extreme_size_are_scaled_exactly(scale):
    spectrum = np.append(np.linspace(0, 1, 80), [3.0, 5.0])
    found = rm.eigenpairs(np.diag(spectrum * scale), 2)
    np.testing.assert_allclose(found.values / scale, [3, 5], rtol=1e-13)


def test_a_restarted_basis_finds_the_same():
    rng = np.random.default_rng(3)
    dim, spectrum = 400, np.append(np.sort(rng.standard_normal(390)), np.arange(4.0, 14.0))
    matrix = rotated(spectrum)
    vector = dim * 8
    found = rm.eigenpairs(matrix, 10, memory=23 * vector)  # 18 rows
    np.testing.assert_allclose(found.values, np.arange(4.0, 14.0), rtol=1e-12)
    roomy = rm.eigenpairs(matrix, 10)
    np.testing.assert_allclose(found.values, roomy.values, rtol=1e-12)
    # what a thick restart keeps is nearly all that matters (88 products for 84)
    assert found.products <= 1.2 * roomy.products
    with pytest.raises(MemoryError, match="10 eigenvectors of dim 400 need a basis of at least 18"):
        rm.eigenpairs(matrix, 10, memory=10 * vector)
    with pytest.raises(MemoryError, match="cannot hold the 1"):
        rm.eigenpairs(matrix, outside=(0.5, 0.6), memory=20 * vector)


def test_the_limit_returns_what_has_converged_and_says_so():
    spectrum = np.append(np.linspace(0, 1, 290), [20.0, *np.linspace(1.0, 1.1, 9)])
    found = rm.eigenpairs(np.diag(spectrum), 5, steps=20)
    assert not found.converged
    assert found.message.startswith("limit reached: 20 products gave 1 of 5")
    np.testing.assert_allclose(found.values, [20.0])


@pytest.mark.slow
def test_a_last_sweep_misses_an_eigenvalue_as_rarely_as_the_theorem_says():
    # A missed eigenvalue 5% of the range beyond the rest must show above them: the Ritz value of
    # a Krylov space of that length from a random start.
    dim = 500
    spectrum = np.append(np.linspace(0, 0.95, dim - 1), 1.0)
    length, missed = _sweep_length(dim), 0
    for seed in range(300):
        found = rm.lanczos(np.diag(spectrum), steps=length, probes=1, seed=seed)
        missed += found.nodes[0, -1] <= 0.95
    assert missed == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either count, or outside"),
        ({"count": 2, "outside": (0, 1)}, "give either count, or outside"),
        ({"count": 0}, "count must be an integer of at least 1"),
        ({"count": 5}, "count must be below dim = 5, got 5"),
        ({"outside": (1, 0)}, "left <= right"),
        ({"count": 2, "steps": 0}, "steps must be an integer of at least 1"),
    ],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        rm.eigenpairs(np.eye(5), **given)


def test_nan_in_a_product_is_named():
    calls = []

    def multiply(v):
        calls.append(1)
        return v * (np.nan if len(calls) > 8 else 2.0)

    operator = LinearOperator((40, 40), matvec=multiply, dtype=float)
    with pytest.raises(LanczosError, match=r"product \d holds NaN or Inf"):
        rm.eigenpairs(operator, 3)


# ---- the measure of the rest


def test_a_deflated_run_describes_the_complement_and_puts_the_rest_back_exactly():
    rng = np.random.default_rng(0)
    spectrum = np.append(rng.random(200), [50.0, -30.0, 20.0])
    matrix = rotated(spectrum)
    found = rm.lanczos(matrix, steps=300, probes=2, deflate=3)
    np.testing.assert_allclose(found.deflated, [-30, 20, 50], rtol=1e-12)
    assert (found.residuals == 0).all()
    for nodes in found.nodes:
        np.testing.assert_allclose(nodes[:200], np.sort(spectrum[:200]), atol=1e-11)
    assert np.isnan(found.nodes[:, 200:]).all()
    assert found.provenance["deflation"]["stopped"] == "converged: 3 of 3"


@pytest.mark.parametrize("method", ["full", "periodic", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_removed_directions_do_not_come_back(method, dtype):
    spectrum = np.append(1 + np.random.default_rng(0).random(300), [1000.0, -500.0])
    matrix = rotated(spectrum).astype(dtype)
    matrix = (matrix + matrix.T) / 2
    found = rm.lanczos(matrix, steps=60, probes=3, deflate=2, reorthogonalize=method)
    # the removed directions have eigenvalue 0 in the deflated operator, the bulk lies in [1, 2]
    rounding = np.finfo(dtype).eps * 1000 * 10
    assert np.nanmin(found.nodes) > 1 - rounding
    assert np.nanmax(found.nodes) < 2 + rounding


def test_deflating_by_hand_is_the_same_as_by_keyword():
    spectrum = np.append(np.random.default_rng(0).random(100), [5.0, 7.0])
    matrix = rotated(spectrum)
    pairs = rm.eigenpairs(matrix, 2)
    one = rm.lanczos(rm.deflate(matrix, pairs.vectors), steps=20, probes=3)
    two = rm.lanczos(matrix, steps=20, probes=3, deflate=2)
    np.testing.assert_allclose(one.diagonals, two.diagonals, atol=1e-12)
    np.testing.assert_allclose(one.deflated, two.deflated, rtol=1e-13)
    # and in two goes
    top = rm.eigenpairs(matrix, 1)
    three = rm.lanczos(rm.deflate(matrix, top.vectors), steps=20, probes=3, deflate=1)
    np.testing.assert_allclose(three.diagonals, two.diagonals, atol=1e-12)
    np.testing.assert_allclose(np.sort(three.deflated), two.deflated, rtol=1e-13)


def test_a_start_within_the_deflated_span_is_refused():
    matrix = np.diag([1.0, 2.0, 9.0])
    deflated = rm.deflate(matrix, np.array([0.0, 0.0, 1.0]))
    found = rm.lanczos(deflated, start=np.array([1.0, 1.0, 5.0]), steps=5)
    np.testing.assert_allclose(found.nodes[0, :2], [1, 2], atol=1e-14)
    np.testing.assert_allclose(found.weights[0, :2], [0.5, 0.5], atol=1e-14)
    with pytest.raises(ValueError, match="start 0 lies in the span of the deflated vectors"):
        rm.lanczos(deflated, start=np.array([0.0, 0.0, 5.0]))


def test_ctrl_c_before_the_first_step_leaves_nothing():
    calls = []

    def multiply(v):
        calls.append(1)
        if len(calls) > 8:
            raise KeyboardInterrupt
        return np.linspace(1, 2, 40) * v.ravel()

    operator = LinearOperator((40, 40), matvec=multiply, dtype=float)
    with pytest.raises(LanczosInterrupted, match="while eigenpairs to deflate were sought") as e:
        rm.lanczos(operator, deflate=3)
    assert e.value.partial is None


def test_deflation_of_nothing_wanted_leaves_the_run_as_it_is():
    matrix = np.diag(np.linspace(0, 1, 300))
    with pytest.raises(ValueError, match="deflate must be an integer of at least 0"):
        rm.lanczos(matrix, deflate=-1)
    assert rm.lanczos(matrix, steps=5, deflate=0).deflated.size == 0


def trained_digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10)
    )
    return train(model, x, y, 60)


def tanh_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(32, 40), nn.Tanh(), nn.Linear(40, 20), nn.Tanh(), nn.Linear(20, 10)
    )
    centers, y = torch.randn(10, 32), torch.arange(512) % 10
    return train(model, centers[y] + torch.randn(512, 32), y, 60)


def train(model, x, y, epochs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "count", "floor", "gain"),
    # gain: what was measured (8 times and 1.8 times) with room for other roundings
    [(trained_digits, 20, 3e-4, 4.0), (tanh_network, 20, 1.5e-3, 1.5)],
)
def test_deflation_takes_w1_below_the_probe_noise_floor(make, count, floor, gain):
    model, x, y = make()
    exact = rm.eigenvalues(
        rm.hessian(model.double(), nn.CrossEntropyLoss(), (x.double(), y)), limit=3000
    )
    measured = rm.hessian(model.float(), nn.CrossEntropyLoss(), (x, y))
    truth, span = rm.DiscreteMeasure.from_eigenvalues(exact), np.ptp(exact)
    W1 = {
        d: np.mean(
            [
                rm.wasserstein(rm.lanczos(measured, steps=64, probes=4, seed=s, deflate=d), truth)
                for s in range(3)
            ]
        )
        / span
        for d in (0, count)
    }
    assert W1[0] < 4e-3
    assert W1[count] < floor
    assert gain * W1[count] < W1[0]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-6), (torch.float64, 1e-11)])
def test_top_eigenvalue_of_a_network_of_2350_parameters(dtype, rel):
    model, x, y = tanh_network()
    exact = rm.eigenvalues(rm.hessian(model.double(), nn.CrossEntropyLoss(), (x.double(), y)))
    operator = rm.hessian(model.to(dtype), nn.CrossEntropyLoss(), (x.to(dtype), y))
    assert operator.dim == 2350
    measured = rm.lanczos(operator, steps=64, probes=2)
    np.testing.assert_allclose(measured.nodes[:, -1], exact[-1], rtol=rel)
    assert rm.eigenpairs(operator, 1).values[0] == pytest.approx(exact[-1], rel=rel)
