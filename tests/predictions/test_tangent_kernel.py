"""Kernels of wide networks against quadrature, sampled networks and values of other code."""

from __future__ import annotations

import re
import warnings

import mpmath
import numpy as np
import pytest
import torch
from predictions.widths import rows
from torch import nn

from rmthess.predictions.tangent_kernel import (
    ntk_layer,
    relu_moments,
    tangent_kernel,
    tanh_moments,
    torch_layer,
)


def problem(row):
    """Activation, layers and inputs of a row of the table."""
    named = re.match(r"(\w+), (\d) hidden x\d+, N=(\d+), n0=(\d+)", row["parameters"])
    activation, depth, samples, inputs = named.groups()
    x = np.random.default_rng(5).standard_normal((int(samples), int(inputs)))
    return x, [ntk_layer()] * (int(depth) + 1), activation


@pytest.mark.parametrize("row", rows("Jacot NTK"))
def test_trace_and_largest_eigenvalue_of_the_tangent_kernel_are_those_of_the_table(row):
    theta = tangent_kernel(*problem(row)).tangent
    values = np.linalg.eigvalsh(theta) / len(theta)
    found = values[-1] if "lambda_max" in row["quantity"] else values.sum()
    assert found == pytest.approx(row["value"], rel=1e-5)


@pytest.mark.parametrize(
    "row", [r for r in rows("Jacot Upsilon") if "Ups[" in r.values[0]["quantity"]]
)
def test_an_entry_of_the_curvature_kernel_is_that_of_the_table(row):
    """To 1e-6: the table's quadrature for tanh is off by 7e-8."""
    found = tangent_kernel(*problem(row)).curvature[0, 1]
    assert found == pytest.approx(row["value"], rel=1e-6)


def squared_size(x, r, activation, sizes, seed):
    """Tr S² of S = Σ r_i ∇²f_i of a drawn network, from ‖Sv‖² for 24 random v."""
    generator = torch.Generator().manual_seed(seed)
    act = {"relu": torch.relu, "tanh": torch.tanh}[activation]
    shapes = list(zip(sizes[1:], sizes, strict=False))
    W = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]

    def output(*W):
        z = torch.as_tensor(x)
        for k, w in enumerate(W):
            z = (act(z) if k else z) @ w.T / w.shape[1] ** 0.5
        return torch.as_tensor(r) @ z[:, 0]

    W = tuple(w.requires_grad_() for w in W)
    gradients = torch.autograd.grad(output(*W), W, create_graph=True)
    total = 0.0
    for _ in range(24):
        v = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in W]
        product = torch.autograd.grad(gradients, W, v, retain_graph=True)
        total += sum(float((part**2).sum()) for part in product) / 24
    return total


@pytest.mark.parametrize(
    "row", [r for r in rows("Jacot Upsilon") if "mean" in r.values[0]["quantity"]]
)
def test_the_functional_hessian_has_the_size_of_the_curvature_kernel(row):
    """The ratio to rᵀΥr over twelve networks, to the tolerance of the table (8%)."""
    x, layers, activation = problem(row)
    width = int(re.search(r"x(\d+)", row["parameters"]).group(1))
    r = np.random.default_rng(17).standard_normal(len(x))
    sizes = [x.shape[1], *[width] * (len(layers) - 1), 1]
    wanted = r @ tangent_kernel(x, layers, activation).curvature @ r
    found = [squared_size(x, r, activation, sizes, seed) for seed in range(12)]
    assert np.mean(found) / wanted == pytest.approx(row["value"], abs=row["tolerance"])


def jacobian_and_curvature(x, activation, sizes, seed):
    """J and ∇²f_i of a drawn network in NTK parametrisation, without biases."""
    generator = torch.Generator().manual_seed(seed)
    act = {"relu": torch.relu, "tanh": torch.tanh}[activation]
    shapes = list(zip(sizes[1:], sizes, strict=False))
    W = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    flat = torch.cat([w.ravel() for w in W])

    def outputs(theta):
        z, start = torch.as_tensor(x), 0
        for k, (out, fan_in) in enumerate(shapes):
            w = theta[start : start + out * fan_in].view(out, fan_in)
            z, start = (act(z) if k else z) @ w.T / fan_in**0.5, start + out * fan_in
        return z[:, 0]

    return torch.func.jacrev(outputs)(flat), torch.func.jacrev(torch.func.jacrev(outputs))(flat)


@pytest.mark.parametrize(("activation", "depth"), [("relu", 1), ("tanh", 1), ("relu", 2)])
def test_sampled_networks_have_the_kernels_to_the_inverse_root_of_the_width(activation, depth):
    x = np.random.default_rng(0).standard_normal((3, 4))
    kernels = tangent_kernel(x, [ntk_layer()] * (depth + 1), activation)
    width = 40 if depth == 1 else 24
    tangents, curvatures = [], []
    for seed in range(12):
        J, H = jacobian_and_curvature(x, activation, [4, *[width] * depth, 1], seed)
        tangents.append((J @ J.T).numpy())
        curvatures.append(torch.einsum("ipq,jpq->ij", H, H).numpy())
    for found, wanted in ((tangents, kernels.tangent), (curvatures, kernels.curvature)):
        mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(11)
        # four standard errors, and a bias of the inverse width
        assert np.all(np.abs(mean - wanted) < 4 * error + 3 / width * np.abs(wanted).max())


def test_torch_layers_give_the_covariance_of_outputs_that_torch_draws():
    x = np.random.default_rng(1).standard_normal((4, 6))
    kernels = tangent_kernel(x, [torch_layer(6, 1.5), torch_layer(50, 1.5)])
    drawn = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(3000):
            model = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 1)).double()
            for part in model.parameters():
                part.data *= 1.5
            drawn.append(model(torch.as_tensor(x)).detach().numpy()[:, 0])
    found = np.cov(np.array(drawn).T, bias=True)
    size = np.sqrt(np.outer(np.diag(kernels.outputs), np.diag(kernels.outputs)))
    assert np.abs((found - kernels.outputs) / size).max() < 5 / np.sqrt(3000)


K = np.array([[0.4, 0.25], [0.25, 0.9]])


@pytest.mark.parametrize("power", [0, 1, 2])
def test_tanh_moments_are_those_of_two_dimensional_quadrature(power):
    psi = [
        mpmath.tanh,
        lambda z: mpmath.sech(z) ** 2,
        lambda z: -2 * mpmath.tanh(z) * mpmath.sech(z) ** 2,
    ][power]
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    a, b = np.sqrt(K[0, 0]), K[0, 1] / np.sqrt(K[0, 0])
    c = np.sqrt(K[1, 1] - b**2)
    first = [psi(a * g) for g in nodes]
    wanted = sum(
        w * v * f * psi(b * g + c * h)
        for g, w, f in zip(nodes, weights, first, strict=True)
        for h, v in zip(nodes, weights, strict=True)
    ) / (2 * mpmath.pi)
    found = tanh_moments(K)[power][0, 1]
    assert found == pytest.approx(float(wanted), abs=1e-9)  # sixty nodes an axis give that


def test_relu_moments_of_parallel_and_orthogonal_pairs():
    values, both, bends = relu_moments(np.array([[4.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(values, [[2.0, 1 / np.pi], [1 / np.pi, 0.5]])
    np.testing.assert_allclose(both, [[0.5, 0.25], [0.25, 0.5]])
    assert not bends.any()


def test_preactivations_so_large_that_tanh_is_a_sign_are_warned_of():
    with pytest.warns(UserWarning, match="nearly signs"):
        tanh_moments(1e4 * K)


def test_a_sample_of_zero_has_no_gradient_without_biases():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tangent_kernel(np.array([[0.0, 0.0], [1.0, 2.0]]), [ntk_layer()] * 2, "tanh")
    assert not found.tangent[0].any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([[1.0]], [ntk_layer()], "gelu"), "activation must be one of relu, tanh, got 'gelu'"),
        (([[1.0]], []), "at least one"),
        (([1.0], [ntk_layer()]), r"shape \(samples, d\), got \(1,\)"),
        (([[np.nan]], [ntk_layer()]), "finite"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        tangent_kernel(*arguments)
