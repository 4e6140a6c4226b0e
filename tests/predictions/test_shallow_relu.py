"""Exact Hessians of ReLU students: autograd, sampled inputs, sixty digits, spurious minima."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from predictions.oracles import rows
from scipy.optimize import minimize

import rmthess as rm


def population_loss(W, V):
    """½ E(Σ relu(w·x) - Σ relu(v·x))² by the arc-cosine kernel, for autograd."""

    def overlap(a, b, pairs):
        """Σ E relu(a·x) relu(b·x)."""
        size = (a.norm(dim=1)[:, None] * b.norm(dim=1))[pairs]
        t = torch.arccos((a @ b.T)[pairs] / size)
        return (size * (torch.sin(t) + (torch.pi - t) * torch.cos(t))).sum() / (2 * torch.pi)

    def square(a):
        return overlap(a, a, ~torch.eye(len(a), dtype=torch.bool)) + (a**2).sum() / 2

    return (
        square(W) / 2 - overlap(W, V, torch.ones(len(W), len(V), dtype=torch.bool)) + square(V) / 2
    )


def autograd_hessian(W, V):
    at, V = torch.tensor(W), torch.tensor(V)
    found = torch.autograd.functional.hessian(lambda w: population_loss(w, V), at)
    return found.reshape(at.numel(), at.numel()).numpy()


def generic(k, d, seed):
    return np.random.default_rng(seed).standard_normal((k, d))


@pytest.mark.parametrize(("k", "m", "d"), [(3, 5, 4), (1, 2, 2), (4, 1, 6), (5, 5, 3)])
def test_the_hessian_at_a_generic_point_is_that_of_autograd(k, m, d):
    W, V = generic(k, d, seed=k), generic(m, d, seed=50 + m)
    wanted = autograd_hessian(W, V)
    np.testing.assert_allclose(rm.shallow_relu_hessian(W, V), wanted, atol=1e-12)


@pytest.mark.parametrize("row", rows("Arjevani-Field", "Safran-Shamir"))
def test_the_spectra_have_the_tabulated_values(row):
    if row["prediction"].startswith("Safran"):
        W, V = generic(*row["parameters"]["student"], 0), generic(*row["parameters"]["teacher"], 1)
        assert np.abs(rm.shallow_relu_hessian(W, V) - autograd_hessian(W, V)).max() < 1e-12
        return
    k = row["parameters"]["neurons"]
    values = rm.shallow_relu(k).eigenvalues()
    if row["kind"] == "theory":
        assert values[-1] == pytest.approx(row["value"], rel=1e-14)
        return
    dense = np.linalg.eigvalsh(rm.shallow_relu_hessian(np.eye(k), np.eye(k)))
    assert np.abs(values - dense).max() < 2e-14


@pytest.mark.parametrize("k", range(1, 9))
@pytest.mark.parametrize("more", [0, 3])
def test_the_multiplicities_hold_from_one_neuron_on_and_with_more_inputs(k, more):
    I = np.eye(k, k + more)  # noqa: E741
    found = rm.shallow_relu(k, k + more)
    dense = np.linalg.eigvalsh(rm.shallow_relu_hessian(I, I))
    np.testing.assert_allclose(found.eigenvalues(), dense, atol=1e-14 * dense[-1])
    assert found.dim == k * (k + more)
    assert dense[0] > 0.09  # 1/4 - 1/2π


def test_the_spectrum_does_not_depend_on_which_orthonormal_teacher():
    V = np.linalg.qr(np.random.default_rng(4).standard_normal((6, 6)))[0][:4]
    dense = np.linalg.eigvalsh(rm.shallow_relu_hessian(V, V))
    np.testing.assert_allclose(rm.shallow_relu(4, 6).eigenvalues(), dense, atol=1e-14)


def test_the_hessian_on_sampled_inputs_tends_to_it():
    class Student(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(torch.eye(5).double())

        def forward(self, x):
            return torch.relu(x @ self.W.T).sum(dim=1)

    samples, model = 100_000, Student()
    x = torch.tensor(np.random.default_rng(8).standard_normal((samples, 5)))
    data = (x, model(x).detach())
    sampled = rm.dense(rm.hessian(model, torch.nn.MSELoss(), data)) / 2
    exact = rm.shallow_relu_hessian(np.eye(5), np.eye(5))
    # an entry is a mean of products x_a x_b of variance below 3/2
    assert np.abs(sampled - exact).max() < 4 * np.sqrt(1.5 / samples)
    top = rm.shallow_relu(5).eigenvalues()[-1]
    assert np.linalg.eigvalsh(sampled)[-1] == pytest.approx(top, rel=0.01)


def exact_blocks(w, v):
    """A(w, v) and C(w, v) in mpmath, from angle and normals as Safran and Shamir write them."""
    w, v = mpmath.matrix(list(map(float, w))), mpmath.matrix(list(map(float, v)))
    size = [mpmath.norm(w), mpmath.norm(v)]
    a, b = w / size[0], v / size[1]
    cos = (a.T * b)[0]
    t = mpmath.acos(cos)
    n, o = b - cos * a, a - cos * b
    n, o = n / mpmath.norm(n), o / mpmath.norm(o)
    eye = mpmath.eye(len(w))
    A = ((mpmath.pi - t) * eye + o * b.T + n * a.T) / (2 * mpmath.pi)
    C = mpmath.sin(t) * size[1] / (2 * mpmath.pi * size[0]) * (eye - a * a.T + n * n.T)
    return [np.array(M.tolist(), float) for M in (A, C)]


@pytest.mark.parametrize("angle", [1e-12, 1e-8, 1e-4, 1.0, np.pi - 1e-4, np.pi - 1e-8])
def test_no_digit_is_lost_where_two_neurons_are_almost_parallel(angle):
    w = np.array([0.3, -1.1, 0.4])
    side = np.cross(w, [1.0, 2.0, 3.0])
    side *= np.linalg.norm(w) / np.linalg.norm(side)
    v = 1.7 * (np.cos(angle) * w + np.sin(angle) * side)
    H = rm.shallow_relu_hessian([w, v], np.zeros((1, 3)))
    with mpmath.workdps(60):
        A, C = exact_blocks(w, v)
    np.testing.assert_allclose(H[:3, 3:], A, atol=4e-16)
    np.testing.assert_allclose(H[:3, :3] - np.eye(3) / 2, C, atol=4e-16)


def test_parallel_and_opposite_neurons_have_the_limits():
    w = np.array([0.6, -0.8])
    H = rm.shallow_relu_hessian([w, 3 * w], [w, -2 * w])
    np.testing.assert_allclose(H, np.kron(np.ones((2, 2)), np.eye(2)) / 2, atol=2e-16)
    opposite = rm.shallow_relu_hessian([w, -w], [w])[:2, 2:]
    np.testing.assert_allclose(opposite, np.zeros((2, 2)), atol=1e-16)


@pytest.mark.parametrize(("d", "loss"), [(8, 0.021508), (10, 0.018702)])
def test_the_spurious_minimum_of_one_flipped_neuron_has_the_multiplicities_of_its_symmetry(d, loss):
    V = torch.eye(d).double()
    start = np.eye(d) - 0.05  # beside the kink of arccos
    start[-1, -1] = -1

    def value_and_slope(flat):
        W = torch.tensor(flat.reshape(d, d), requires_grad=True)
        value = population_loss(W, V)
        (slope,) = torch.autograd.grad(value, W)
        return float(value.detach()), slope.numpy().ravel()

    found = minimize(
        value_and_slope, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-10}
    )
    assert found.fun == pytest.approx(loss, abs=1e-6)
    values = np.linalg.eigvalsh(rm.shallow_relu_hessian(found.x.reshape(d, d), np.eye(d)))
    assert values[0] > 0.01  # a minimum, and not the global one
    ends = np.flatnonzero(np.diff(values, append=np.inf) > 1e-6) + 1
    counts = np.diff(ends, prepend=0)
    # of S_{d-1}: 5 trivial, 5 standard, 1 symmetric and 1 antisymmetric representation
    n = d - 1
    assert sorted(counts) == sorted(
        [1] * 5 + [n - 1] * 5 + [n * (n - 3) // 2, (n - 1) * (n - 2) // 2]
    )


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        ([[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0]], "row 1 of student is 0"),
        ([[1.0, np.nan]], [[1.0, 0.0]], "student has entries that are NaN"),
        ([[1.0, 0.0]], [[1.0, 0.0, 0.0]], "same inputs, got 2 and 3"),
        ([1.0, 0.0], [[1.0, 0.0]], r"got \(2,\)"),
    ],
)
def test_bad_weights_are_refused_with_what_is_wrong(student, teacher, said):
    with pytest.raises(ValueError, match=said):
        rm.shallow_relu_hessian(student, teacher)


@pytest.mark.parametrize(("sizes", "said"), [((0,), "neurons"), ((3, 2), "need 3 inputs, got 2")])
def test_bad_sizes_are_refused(sizes, said):
    with pytest.raises(ValueError, match=said):
        rm.shallow_relu(*sizes)
