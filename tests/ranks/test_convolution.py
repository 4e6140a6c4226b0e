"""Ranks of convolutional networks against elimination weight by weight, and against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks.convolutions import convolution_and_dense, convolutions_in_a_row, exact_ranks_of

from rmthess.ranks.convolution import convolution_chain_rank, linear_convolution_rank
from rmthess.ranks.network import PARTS
from rmthess.ranks.numerical import numerical_rank


@settings(max_examples=80)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_filters_and_a_dense_layer_have_the_closed_form_rank_or_bound(
    data: st.DataObject, seed: int
) -> None:
    length = data.draw(st.integers(1, 6), "length")
    kernel = data.draw(st.integers(1, length), "kernel")
    filters, outputs = data.draw(st.integers(1, 4), "filters"), data.draw(st.integers(1, 3))
    shape = (length, kernel, filters, outputs)
    exact = exact_ranks_of(convolution_and_dense(*shape), length, seed)
    for part in PARTS:
        bound = linear_convolution_rank(*shape, part=part)
        # the Hessian's is a bound, mostly attained; (6, 4, 3, 3) has rank 38 of a bound of 39
        slack = 1 if bound.status == "bound" else 0
        assert 0 <= bound.value - getattr(exact, part) <= slack, (shape, part)
        assert bound.value + bound.nullity == bound.parameters


@settings(max_examples=80)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_convolutions_in_a_row_have_the_closed_form_rank(kernels: list[int], seed: int) -> None:
    taps = sum(kernels) - len(kernels) + 1
    exact = exact_ranks_of(convolutions_in_a_row(kernels), taps, seed)
    for part in PARTS:
        bound = convolution_chain_rank(kernels, part=part)
        assert bound.value == getattr(exact, part), (kernels, part)
        assert bound.parameters == sum(kernels)


@pytest.mark.parametrize("kernels", [[2, 3], [3, 3, 2], [1, 4], [2, 2, 2, 2]])
def test_a_circular_signal_no_shorter_than_the_composed_kernel_changes_nothing(
    kernels: list[int],
) -> None:
    period = sum(kernels) - len(kernels) + 1
    exact = exact_ranks_of(convolutions_in_a_row(kernels, period), period, seed=2)
    for part in PARTS:
        assert getattr(exact, part) == convolution_chain_rank(kernels, part=part).value


@pytest.mark.parametrize("shape", [(8, 3, 4, 2), (7, 4, 2, 1), (6, 2, 5, 3)])
def test_a_torch_module_has_the_closed_form_rank_with_a_wide_gap(
    shape: tuple[int, int, int, int],
) -> None:
    length, kernel, filters, outputs = shape
    draw = torch.Generator().manual_seed(4)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    positions = length - kernel + 1
    inputs, targets = normal(40, 1, length), normal(40, outputs)
    sizes = [filters * kernel, outputs * filters * positions]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        first, second = flat.split(sizes)
        seen = torch.nn.functional.conv1d(inputs, first.view(filters, 1, kernel))
        return ((seen.flatten(1) @ second.view(outputs, -1).T - targets) ** 2).mean()

    hessian = torch.autograd.functional.hessian(loss, normal(sum(sizes))).numpy()
    rank = numerical_rank(np.linalg.eigvalsh((hessian + hessian.T) / 2))
    bound = linear_convolution_rank(*shape)
    assert rank.verdict(bound) == "equal", rank.explain(bound)


def test_as_wide_as_the_signal_the_filter_is_a_dense_layer() -> None:
    from rmthess.ranks.linear_network import linear_network_rank

    for part in PARTS:
        dense = linear_network_rank([4, 3, 5], part=part)
        assert linear_convolution_rank(4, 4, 3, 5, part=part).value == dense.value


def test_a_bound_says_that_it_is_one() -> None:
    bound = linear_convolution_rank(6, 3, 4, 2)
    assert bound.status == "bound"
    assert str(bound).startswith("rank ≤ ")
    assert linear_convolution_rank(6, 3, 4, 2, part="functional").status == "proved"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 5, 1, 1), "kernel must be at most the length 4 of the signal, got 5"),
        ((4, 0, 1, 1), "kernel must be a positive integer, got 0"),
        ((4, 2, 1.0, 1), "filters must be a positive integer, got 1.0"),
        ((4, 2, 1, True), "outputs must be a positive integer, got True"),
        ((4, 2, 1, 1, "ggn"), "part must be one of"),
    ],
)
def test_an_impossible_convolution_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_convolution_rank(*arguments)


@pytest.mark.parametrize(
    ("kernels", "message"),
    [([], "kernels is empty"), ([3, 0], "every kernel must be a positive integer, got 0")],
)
def test_an_impossible_chain_is_refused(kernels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convolution_chain_rank(kernels)
