"""The spectrum at a balanced minimum against Hessians that autograd forms there."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from predictions.oracles import rows
from torch import nn

import rmthess as rm

CASES = [
    ([3.0, 2.0, 1.0], [5, 6, 4]),
    ([2.0, 1.5], [4, 5, 5, 4]),
    ([2.0, 0.7], [2, 3, 2, 4, 3]),
    ([1.3], [3, 2, 5]),  # rank below the bottleneck
    ([], [3, 2, 2]),  # the origin
    ([0.4, 2.5, 2.5], [3, 4]),  # one layer
]


def orthogonal(size, rng):
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def balanced(s, widths, rng):
    """W_l = U_l Σ^(1/L) U_{l-1}ᵀ with random orthogonal U."""
    turns = [orthogonal(width, rng) for width in widths]
    depth = len(widths) - 1
    weights = []
    for layer in range(depth):
        Sigma = np.zeros((widths[layer + 1], widths[layer]))
        np.fill_diagonal(Sigma, np.append(np.asarray(s) ** (1 / depth), np.zeros(99)))
        weights.append(turns[layer + 1] @ Sigma @ turns[layer].T)
    return weights


def dense_hessian(s, widths, seed, noise=0.0):
    """Of torch's MSELoss, on exactly white inputs; the noise is uncorrelated with them."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(*(nn.Linear(i, o, bias=False) for i, o in pairwise(widths)))
    for layer, weight in zip(model, balanced(s, widths, rng)):
        layer.weight.data = torch.tensor(weight)
    samples = 3 * (widths[0] + widths[-1])
    basis = np.linalg.qr(rng.standard_normal((samples, widths[0] + widths[-1])))[0]
    x = torch.tensor(np.sqrt(samples) * basis[:, : widths[0]])
    y = model(x).detach() + noise * torch.tensor(basis[:, widths[0] :])
    return rm.dense(rm.hessian(model, nn.MSELoss(), (x, y)))


@pytest.mark.filterwarnings("ignore:the loss is linear in the chosen parameters")
@pytest.mark.parametrize(("s", "widths"), CASES)
@pytest.mark.parametrize("noise", [0.0, 5.0])
def test_all_eigenvalues_are_those_of_the_hessian_that_autograd_forms(s, widths, noise):
    found = rm.deep_linear_minimum(s, widths, scale=2 / widths[-1])
    values = np.linalg.eigvalsh(dense_hessian(s, widths, seed=3, noise=noise))
    np.testing.assert_allclose(found.eigenvalues(), values, atol=1e-13 * max(1, values[-1]))
    assert found.dim == values.size
    assert found.rank.value == np.count_nonzero(values > 1e-12)


@pytest.mark.parametrize("row", rows("Deep linear"))
def test_the_spectrum_has_the_tabulated_values(row):
    s, widths = row["parameters"]["singular_values"], row["parameters"]["widths"]
    values = rm.deep_linear_minimum(s, widths).eigenvalues()
    if row["quantity"].startswith("sharpness"):
        assert values[-1] == pytest.approx(row["value"], rel=1e-14)
        return
    dense = np.linalg.eigvalsh(dense_hessian(s, widths, seed=0)) * widths[-1] / 2
    assert np.abs(values - dense).max() <= 1e-13


@pytest.mark.parametrize(("s", "widths"), CASES)
def test_the_rank_is_that_of_the_outer_product(s, widths):
    found = rm.deep_linear_minimum(s, widths)
    ranks = {"weight_ranks": [len(s)] * (len(widths) - 1)} if len(widths) > 2 else {}
    wanted = rm.linear_network_rank(widths, part="outer_product", **ranks)
    assert found.rank.value == wanted.value


def test_order_and_zeros_of_the_singular_values_do_not_matter():
    one = rm.deep_linear_minimum([3.0, 1.0], [3, 3, 3])
    other = rm.deep_linear_minimum([0.0, 1.0, 3.0], [3, 3, 3])
    np.testing.assert_array_equal(one.eigenvalues(), other.eigenvalues())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1.0, 2.0], [3, 1, 3]), "do not pass a width of 1"),
        (([-1.0], [3, 3]), "not negative"),
        (([np.nan], [3, 3]), "finite"),
        (([[1.0]], [3, 3]), r"got shape \(1, 1\)"),
        (([1.0], [3]), "at least inputs and outputs"),
        (([1.0], [3, 0, 3]), "at least 1"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_given(arguments, said):
    with pytest.raises(ValueError, match=said):
        rm.deep_linear_minimum(*arguments)
