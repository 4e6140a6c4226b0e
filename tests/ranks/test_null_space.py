"""The explicit null space: multiplied with a Hessian that autograd or the chain rule formed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rmthess as rm
from rmthess.ranks.null_space import NullSpace, null_space
from rmthess.ranks.numerical import numerical_rank
from rmthess.ranks.signature import functional_signature

Array = NDArray[np.float64]


@contextmanager
def undecided_by_bad_luck() -> Iterator[None]:
    """A random draw may be so badly conditioned that its rank is rightly refused."""
    try:
        yield
    except ValueError as error:
        assume("cannot be decided" not in str(error) and "singular values" not in str(error))
        raise


def draw_network(
    widths: list[int], input_rank: int, loss: str, seed: int
) -> tuple[list[Array], Array, Array, Array]:
    """Weights, inputs, output gradients, and the float64 Hessian by autograd."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(m, n)) / np.sqrt(n) for n, m in pairwise(widths)]
    samples = 30
    inputs = rng.normal(size=(samples, input_rank)) @ rng.normal(size=(input_rank, widths[0]))
    targets = torch.from_numpy(rng.normal(size=(samples, widths[-1])))
    if loss == "cross_entropy":
        targets = targets.argmax(dim=1)
    criterion = {
        "mse": lambda f: 0.5 * ((f - targets) ** 2).sum(),
        "cross_entropy": lambda f: torch.nn.functional.cross_entropy(f, targets, reduction="sum"),
    }[loss]
    x = torch.from_numpy(inputs)

    def value(flat: torch.Tensor) -> torch.Tensor:
        f = x
        for part, weight in zip(flat.split([w.size for w in weights]), weights, strict=True):
            f = f @ part.view(weight.shape).T
        return torch.as_tensor(criterion(f))

    point = torch.from_numpy(np.concatenate([weight.ravel() for weight in weights]))
    hessian = torch.autograd.functional.hessian(value, point).numpy()
    outputs = x
    for weight in weights:
        outputs = outputs @ torch.from_numpy(weight).T
    outputs.requires_grad_(True)
    (gradients,) = torch.autograd.grad(criterion(outputs), outputs)
    return weights, inputs, gradients.numpy(), hessian


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_the_hessian_maps_it_to_zero_and_it_is_all_of_the_null_space(
    data: st.DataObject, seed: int
) -> None:
    widths = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4), "widths")
    loss = data.draw(st.sampled_from(["mse", "cross_entropy"] if widths[-1] > 1 else ["mse"]))
    input_rank = data.draw(st.integers(1, widths[0]), "input rank")
    weights, inputs, gradients, hessian = draw_network(widths, input_rank, loss, seed)
    with undecided_by_bad_luck():
        found = null_space(weights, inputs, gradients, loss)
    bound = rm.linear_network_rank(widths, input_rank, loss=loss)
    assert found.dim == bound.nullity
    basis = found.basis()
    assert np.allclose(basis.T @ basis, np.eye(found.dim), atol=1e-12)
    # The null vectors have an error of ε times the condition of W Ωᵀ W, 1e10 where it is refused.
    assert np.abs(hessian @ basis).max(initial=0) < 1e-5 * np.abs(hessian).max()


@pytest.fixture(scope="module")
def wide() -> tuple[NullSpace, Array]:
    *network, hessian = draw_network([6, 5, 3, 4, 6], 5, "mse", seed=1)
    return null_space(*network), hessian


def test_projecting_is_multiplying_with_the_basis_and_its_transpose(
    wide: tuple[NullSpace, Array],
) -> None:
    space, _ = wide
    vectors = np.random.default_rng(2).normal(size=(space.parameters, 3))
    basis = space.basis()
    assert np.allclose(space.project(vectors), basis @ (basis.T @ vectors), atol=1e-13)
    assert np.allclose(space.project(vectors[:, 0]), space.project(vectors)[:, 0], atol=1e-14)
    assert np.allclose(space.project(basis), basis, atol=1e-13)


def test_a_deflated_hessian_has_no_zero_eigenvalue_left(wide: tuple[NullSpace, Array]) -> None:
    space, hessian = wide
    left, _, _ = np.linalg.svd(space.basis(), full_matrices=True)
    rest = left[:, space.dim :]
    rank = numerical_rank(np.linalg.eigvalsh(rest.T @ hessian @ rest))
    assert rank.value == rest.shape[1]
    assert numerical_rank(np.linalg.eigvalsh(hessian)).value == rest.shape[1]


def test_lanczos_from_starts_off_the_null_space_sees_the_spectrum_without_its_zeros(
    wide: tuple[NullSpace, Array],
) -> None:
    """The Krylov space stays where it began: the exact nonzero eigenvalues, and no zero."""
    space, hessian = wide
    starts = np.random.default_rng(3).normal(size=(space.parameters, 2))
    deflated = rm.lanczos(hessian, start=starts - space.project(starts), steps=space.parameters)
    plain = rm.lanczos(hessian, start=starts, steps=space.parameters)
    eigenvalues = np.linalg.eigvalsh(hessian)
    nonzero = np.abs(eigenvalues) > 1e-9 * np.abs(eigenvalues).max()
    found = deflated.nodes[0][deflated.weights[0] > 1e-20]
    assert np.allclose(found, eigenvalues[nonzero], atol=1e-8 * np.abs(eigenvalues).max())
    assert np.nanmin(np.abs(plain.nodes)) < 1e-9 * np.abs(eigenvalues).max()


def test_where_the_data_are_fitted_it_is_refused() -> None:
    weights, inputs, gradients, _ = draw_network([4, 3, 5], 4, "mse", seed=3)
    with pytest.raises(ValueError, match="W Ωᵀ W must have the rank q = 3"):
        null_space(weights, inputs, 0 * gradients)
    weights[0][1] = weights[0][0]
    with pytest.raises(ValueError, match="the null space is larger"):
        null_space(weights, inputs, gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": []}, "weights is empty"),
        ({"weights": [np.ones(3)]}, r"W_1 must be a matrix, got shape \(3,\)"),
        ({"weights": [np.ones((3, 4)), np.ones((5, 2))]}, r"W_2 of shape \(5, 2\) cannot follow"),
        ({"weights": [np.full((3, 4), np.nan), np.ones((5, 3))]}, "W_1 has entries that are NaN"),
        ({"inputs": np.ones((30, 3))}, r"inputs must have shape \(samples, 4\), got \(30, 3\)"),
        ({"gradients": np.ones((29, 5))}, r"gradients must have shape \(30, 5\), got \(29, 5\)"),
        ({"inputs": np.full((30, 4), np.inf)}, "inputs has entries that are NaN or infinite"),
        ({"loss": "hinge"}, "one of mse, cross_entropy, got 'hinge'"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    weights, inputs, gradients, _ = draw_network([4, 3, 5], 4, "mse", seed=3)
    given_all = {"weights": weights, "inputs": inputs, "gradients": gradients}
    with pytest.raises(ValueError, match=message):
        null_space(**(given_all | change))


def test_a_vector_of_another_length_is_refused(wide: tuple[NullSpace, Array]) -> None:
    with pytest.raises(ValueError, match="vectors must have 81 rows"):
        wide[0].project(np.ones(80))


# --- the signature of the functional part -----------------------------------------------------


def functional_hessian(weights: list[Array], Omega: Array) -> Array:
    """Second derivative of tr(Ωᵀ W_L ⋯ W_1) by autograd."""
    residual = torch.from_numpy(Omega)

    def value(flat: torch.Tensor) -> torch.Tensor:
        W = torch.eye(weights[0].shape[1], dtype=torch.float64)
        for part, weight in zip(flat.split([w.size for w in weights]), weights, strict=True):
            W = part.view(weight.shape) @ W
        return (residual * W).sum()

    point = torch.from_numpy(np.concatenate([weight.ravel() for weight in weights]))
    return np.asarray(torch.autograd.functional.hessian(value, point).numpy())


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_the_signature_counts_the_eigenvalues_of_the_functional_part(
    data: st.DataObject, seed: int
) -> None:
    widths = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=6), "widths")
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(m, n)) for n, m in pairwise(widths)]
    s = data.draw(st.integers(0, min(widths[0], widths[-1])), "residual rank")
    Omega = rng.normal(size=(widths[-1], s)) @ rng.normal(size=(s, widths[0]))
    with undecided_by_bad_luck():
        found = functional_signature(weights, Omega)
    values = np.linalg.eigvalsh(functional_hessian(weights, Omega))
    rank = numerical_rank(values)
    assume(rank.value is not None)
    assert found.rank == rank.value
    assert found.positive == np.count_nonzero(values > rank.threshold)
    assert found.negative == np.count_nonzero(values < -rank.threshold)
    assert found.value == found.positive - found.negative


def test_eigenvalues_come_in_pairs_for_two_layers_only() -> None:
    rng = np.random.default_rng(4)
    two = [rng.normal(size=(4, 3)), rng.normal(size=(3, 4))]
    assert functional_signature(two, rng.normal(size=(3, 3))).value == 0
    three = [np.eye(3)] * 3
    assert functional_signature(three, np.eye(3)).value == -3
    assert functional_signature(three, -np.eye(3)).value == 3


def test_one_layer_and_no_residual_have_no_signature() -> None:
    assert functional_signature([np.eye(2)], np.eye(2)).rank == 0
    assert functional_signature([np.eye(2)] * 3, np.zeros((2, 2))).rank == 0


def test_a_residual_orthogonal_to_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have 1 nonzero eigenvalues .* got 0"):
        functional_signature([np.eye(1, 2), np.eye(2, 1)], np.diag([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"residual must have shape \(2, 2\)"):
        functional_signature([np.eye(2)], np.eye(3, 2))
