"""Closed-form ranks against a table, against exact elimination over GF(p), and against torch."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ranks.modular import PRIME, exact_ranks, times

from rmthess.ranks.exact import exact_rank
from rmthess.ranks.linear_network import LOSSES, PARTS, RankBound, linear_network_rank
from rmthess.ranks.numerical import numerical_rank

TABLE = Path(__file__).parent.parent / "reference" / "ranks.json"
EXACT = {"hessian": "rank_H", "outer_product": "rank_Ho", "functional": "rank_Hf"}


def residual_rank_of(point: str) -> int | None:
    if point == "global_min":
        return 0
    return int(point.removeprefix("omega_rank:")) if point.startswith("omega_rank") else None


def is_covered(case: dict[str, Any], part: str) -> bool:
    generic = case["point"] in ("generic", "whitened", "global_min")
    deep = len(case["widths"]) > 3
    by_another_part = case["bias"] and part == "functional" and deep and case["rank_Omega"] > 0
    return (generic or case["point"].startswith("omega_rank")) and not by_another_part


CASES = [
    pytest.param(case, part, id=f"{case['widths']}-{case['point']}-{part}")
    for case in json.loads(TABLE.read_text())
    for part in PARTS
    if is_covered(case, part)
]


@pytest.mark.parametrize(("case", "part"), CASES)
def test_closed_form_equals_the_tabulated_exact_rank(case: dict[str, Any], part: str) -> None:
    bound = linear_network_rank(
        case["widths"],
        input_rank=case["r"],
        bias=case["bias"],
        loss={"mse": "mse", "ce": "cross_entropy"}[case["loss"]],
        part=part,
        residual_rank=residual_rank_of(case["point"]),
    )
    assert bound.value == case[EXACT[part]]
    assert bound.parameters == case["n_params"]


@pytest.mark.parametrize("widths", [[4, 3, 5], [4, 5, 3, 5], [5, 4, 2, 4, 5], [5, 5, 5, 5]])
def test_no_special_point_of_the_table_exceeds_the_bound(widths: list[int]) -> None:
    special = [case for case in json.loads(TABLE.read_text()) if case["widths"] == widths]
    assert special
    for case in special:
        for part in PARTS:
            bound = linear_network_rank(widths, input_rank=case["r"], part=part)
            assert case[EXACT[part]] is None or case[EXACT[part]] <= bound.value


@st.composite
def networks(draw: st.DrawFn, biases: bool = False) -> dict[str, Any]:
    widths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=6))
    layers = st.sets(st.integers(1, len(widths) - 1), min_size=1)
    bias = draw(layers) if biases else frozenset()
    loss = draw(st.sampled_from(LOSSES if widths[-1] > 1 else ("mse",)))
    rank = draw(st.integers(0, widths[0]))
    outputs = widths[-1] - (loss == "cross_entropy")
    largest = min(rank + bool(bias), outputs)
    residual = draw(st.sampled_from([0, largest]) if biases else st.integers(0, largest))
    return {
        "widths": widths,
        "input_rank": rank,
        "bias": bias or False,
        "loss": loss,
        "residual_rank": residual,
    }


@given(networks(), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_without_biases_every_part_equals_exact_elimination(
    network: dict[str, Any], seed: int
) -> None:
    exact = exact_ranks(
        network["widths"],
        network["input_rank"],
        loss=network["loss"],
        residual_rank=network["residual_rank"],
        seed=seed,
    )
    for part in PARTS:
        bound = linear_network_rank(part=part, **network)
        assert (bound.value, bound.status) == (getattr(exact, part), "proved")


@given(networks(biases=True), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_with_biases_in_any_layers_the_hessian_equals_exact_elimination(
    network: dict[str, Any], seed: int
) -> None:
    exact = exact_ranks(
        network["widths"],
        network["input_rank"],
        biased=network["bias"],
        loss=network["loss"],
        residual_rank=network["residual_rank"],
        seed=seed,
    )
    for part in ("hessian", "outer_product"):
        bound = linear_network_rank(part=part, **network)
        assert bound.value == getattr(exact, part)
        fitted = "without a residual" in bound.because
        proved = part == "outer_product" or fitted
        assert bound.status == ("proved" if proved else "verified")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("residual_rank", [0, 1, 2, None])
@pytest.mark.parametrize("biased", [{1}, {1, 2}])
def test_with_a_bias_in_the_first_of_two_layers_the_functional_part_is_2_m_s(
    biased: set[int], residual_rank: int | None, loss: str
) -> None:
    exact = exact_ranks([4, 5, 3], 3, biased, loss, residual_rank, seed=11)
    bound = linear_network_rank([4, 5, 3], 3, biased, loss, "functional", residual_rank)
    assert bound.value == exact.functional


@given(networks(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_the_bound_holds_at_weights_of_any_rank(network: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = network["widths"]
    weights = []
    for inputs, out in pairwise(widths):
        inner = int(rng.integers(0, min(inputs, out) + 1))
        left = rng.integers(0, PRIME, (out, inner))
        weights.append(times(left, rng.integers(0, PRIME, (inner, inputs))))
    exact = exact_ranks(
        widths,
        network["input_rank"],
        loss=network["loss"],
        residual_rank=network["residual_rank"],
        seed=seed,
        weights=weights,
    )
    for part in PARTS:
        assert getattr(exact, part) <= linear_network_rank(part=part, **network).value


@given(networks(), st.sampled_from(PARTS))
def test_the_rank_does_not_fall_when_inputs_or_residual_gain_rank(
    network: dict[str, Any], part: str
) -> None:
    here = linear_network_rank(part=part, **network).value
    if network["input_rank"] < network["widths"][0]:
        more_inputs = network | {"input_rank": network["input_rank"] + 1}
        assert linear_network_rank(part=part, **more_inputs).value >= here
    generic = network | {"residual_rank": None}
    assert linear_network_rank(part=part, **generic).value >= here


@given(networks())
def test_the_rank_of_the_hessian_is_at_most_that_of_its_parts_together(
    network: dict[str, Any],
) -> None:
    whole, outer, functional = (linear_network_rank(part=part, **network).value for part in PARTS)
    assert max(outer, functional) <= whole <= outer + functional


@given(networks(), st.sampled_from(PARTS))
def test_rank_and_nullity_add_up_to_the_number_of_parameters(
    network: dict[str, Any], part: str
) -> None:
    bound = linear_network_rank(part=part, **network)
    widths = network["widths"]
    weights = sum(out * inputs for inputs, out in pairwise(widths))
    assert bound.value + bound.nullity == bound.parameters == weights
    assert 0 <= bound.value <= weights


@given(st.lists(st.integers(1, 30), min_size=2, max_size=8))
def test_the_null_space_is_as_large_as_a_network_of_the_widths_beyond_the_bottleneck(
    widths: list[int],
) -> None:
    beyond = [width - min(widths) for width in widths]
    size = sum(out * inputs for inputs, out in pairwise(beyond))
    assert linear_network_rank(widths).nullity == size


def test_the_published_example_has_ranks_175_150_250() -> None:
    ranks = {part: linear_network_rank([25, 5, 10, 10], part=part).value for part in PARTS}
    assert ranks == {"functional": 175, "outer_product": 150, "hessian": 250}


def test_a_full_set_of_biases_is_what_true_means_and_an_empty_one_what_false_means() -> None:
    assert linear_network_rank([4, 3, 2], bias=True) == linear_network_rank([4, 3, 2], bias=[1, 2])
    assert linear_network_rank([4, 3, 2], bias=set()) == linear_network_rank([4, 3, 2])


def torch_hessian(
    widths: list[int], input_rank: int, seed: int, loss: torch.nn.Module
) -> NDArray[np.float64]:
    """Eigenvalues of the dense float64 Hessian of a Sequential of Linear layers at random data."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = torch.nn.Sequential(
        *[
            torch.nn.Linear(inputs, out, bias=False, dtype=torch.float64)
            for inputs, out in pairwise(widths)
        ]
    )
    samples = 40
    inputs = normal(samples, input_rank) @ normal(input_rank, widths[0])
    targets = normal(samples, widths[-1])
    if isinstance(loss, torch.nn.CrossEntropyLoss):
        targets = targets.argmax(dim=1)
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def value(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split(sizes)
        weights = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        outputs = torch.func.functional_call(model, weights, (inputs,))
        return torch.as_tensor(loss(outputs, targets))

    point = torch.cat([normal(*shape).flatten() / shape[1] ** 0.5 for shape in shapes.values()])
    hessian = torch.autograd.functional.hessian(value, point).numpy()
    return np.linalg.eigvalsh((hessian + hessian.T) / 2)


@pytest.mark.parametrize(
    ("widths", "input_rank"),
    [([7, 5, 3, 4, 6], 7), ([6, 8, 3], 4), ([5, 2, 5], 5), ([4, 6, 6, 4], 2), ([6, 3], 6)],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_torch_module_has_the_closed_form_rank_with_a_wide_gap(
    widths: list[int], input_rank: int, loss: str
) -> None:
    criterion = torch.nn.MSELoss() if loss == "mse" else torch.nn.CrossEntropyLoss()
    rank = numerical_rank(torch_hessian(widths, input_rank, seed=3, loss=criterion))
    bound = linear_network_rank(widths, input_rank=input_rank, loss=loss)
    assert rank.verdict(bound) == "equal", rank.explain(bound)


def test_printing_a_bound_shows_the_formula_with_its_numbers() -> None:
    assert str(linear_network_rank([7, 5, 3, 4, 6])) == (
        "rank ≤ 75, nullity ≥ 11 (proved)\n"
        "Σ_l q(M_l + M_{l-1} − q) with q = 3: "
        "3·(5+7−3) + 3·(3+5−3) + 3·(4+3−3) + 3·(6+4−3) = 75 of 86 parameters"
    )


def test_what_stands_in_for_the_inputs_and_outputs_is_said() -> None:
    because = linear_network_rank([6, 5, 4], input_rank=2, loss="cross_entropy").because
    assert "r = 2 of 6 inputs" in because
    assert "K − 1 = 3 for K" in because


def test_a_formula_that_is_verified_but_not_proved_claims_no_inequality() -> None:
    assert str(linear_network_rank([4, 3, 2], bias=True)).startswith(
        "rank 20, nullity 3 (verified)"
    )


@given(networks(), st.sampled_from(PARTS))
def test_the_numbers_in_the_formula_add_up_to_the_value(network: dict[str, Any], part: str) -> None:
    bound = linear_network_rank(part=part, **network)
    terms = bound.because.rsplit(": ", 1)[1].split(" = ")[0]
    for sign, python in (("·", "*"), ("−", "-"), ("²", "**2")):
        terms = terms.replace(sign, python)
    assert eval(terms) == bound.value


@pytest.mark.parametrize("widths", [[3, 0, 2], [3, -1], [3, 2.0], [True, 2], [3, "2"], [3, None]])
def test_widths_that_are_not_positive_integers_are_refused(widths: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"widths must be positive integers, got .* in \["):
        linear_network_rank(widths)


@pytest.mark.parametrize("widths", [[], [3]])
def test_fewer_than_two_widths_are_refused(widths: list[int]) -> None:
    with pytest.raises(ValueError, match="at least two numbers"):
        linear_network_rank(widths)


def test_numpy_integers_are_widths() -> None:
    bound = linear_network_rank(np.array([7, 5, 3, 4, 6]))  # type: ignore[arg-type]
    assert bound == linear_network_rank([7, 5, 3, 4, 6])
    assert type(bound.value) is int


@pytest.mark.parametrize("input_rank", [-1, 4, 2.0, True])
def test_an_input_rank_beyond_the_input_dimension_is_refused(input_rank: Any) -> None:
    with pytest.raises(ValueError, match=f"input dimension 3, got {input_rank}"):
        linear_network_rank([3, 5, 2], input_rank=input_rank)


@pytest.mark.parametrize(
    ("options", "largest"),
    [
        ({}, 3),
        ({"input_rank": 2}, 2),
        ({"loss": "cross_entropy"}, 2),
        ({"input_rank": 1, "bias": True}, 2),
    ],
)
def test_a_residual_rank_above_the_possible_one_is_refused(
    options: dict[str, Any], largest: int
) -> None:
    linear_network_rank([5, 4, 3], residual_rank=largest, **options)
    with pytest.raises(ValueError, match=f"from 0 to {largest}, got {largest + 1}"):
        linear_network_rank([5, 4, 3], residual_rank=largest + 1, **options)


@pytest.mark.parametrize("residual_rank", [-1, 1.0])
def test_a_residual_rank_that_is_no_rank_is_refused(residual_rank: Any) -> None:
    with pytest.raises(ValueError, match="residual_rank must be an integer"):
        linear_network_rank([5, 4, 3], residual_rank=residual_rank)


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of mse, cross_entropy, got 'hinge'"):
        linear_network_rank([3, 2], loss="hinge")


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of hessian, outer_product, functional, got 'ggn'"):
        linear_network_rank([3, 2], part="ggn")


@pytest.mark.parametrize("layer", [0, 3, 1.0, True])
def test_a_bias_in_a_layer_that_is_not_there_is_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match=f"layer {layer}, which is not there; .* 1 to 2"):
        linear_network_rank([3, 2, 2], bias={layer})


@pytest.mark.parametrize("bias", [1, "12", None])
def test_a_bias_that_is_no_set_of_layers_is_refused(bias: Any) -> None:
    with pytest.raises(ValueError, match="True, False or a set of layers"):
        linear_network_rank([3, 2, 2], bias=bias)


def test_cross_entropy_with_one_output_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two outputs"):
        linear_network_rank([3, 2, 1], loss="cross_entropy")


@pytest.mark.parametrize(
    "options", [{"part": "functional"}, {"residual_rank": 1}, {"part": "hessian", "layers": (1, 2)}]
)
def test_without_a_closed_form_the_rank_is_counted(options: dict[str, Any]) -> None:
    counted = linear_network_rank([3, 4, 4, 2], bias=True, **options)
    assert counted.status == "computed"
    assert "no closed form is known" in counted.because
    assert counted.value == exact_rank([3, 4, 4, 2], bias=True, seed=5, **options).value


@pytest.mark.parametrize(
    "options",
    [{"part": "functional"}, {"residual_rank": 1}, {"layers": (2, 3)}, {"weight_ranks": (2, 1, 2)}],
)
def test_too_large_to_count_and_without_a_closed_form_there_is_a_bound(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = linear_network_rank([3, 4, 4, 2], bias=True, **options)
    monkeypatch.setattr("rmthess.ranks.linear_network.LARGEST", 5)
    bound = linear_network_rank([3, 4, 4, 2], bias=True, **options)
    assert bound.status == "bound"
    assert counted.value <= bound.value <= bound.parameters == counted.parameters
    assert str(bound).startswith("rank ≤ ")


def test_a_bound_cannot_be_changed() -> None:
    bound = linear_network_rank([3, 2])
    with pytest.raises(AttributeError):
        bound.value = 1  # type: ignore[misc]
    assert isinstance(bound, RankBound)
