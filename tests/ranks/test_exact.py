"""Exact ranks against a table, against a second elimination, against every closed form."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks.modular import exact_ranks

import rmthess as rm
from rmthess.ranks.elimination import (
    block,
    elimination_rank,
    jacobian_gram,
    matrix,
    random_point,
)
from rmthess.ranks.exact import exact_rank
from rmthess.ranks.linear_network import LOSSES, PARTS, linear_network_rank
from rmthess.ranks.network import linear_network
from rmthess.ranks.residues import PRIME, SECOND_PRIME, rank, times

TABLE = Path(__file__).parent.parent / "reference" / "ranks.json"
CASES = json.loads(TABLE.read_text())
COLUMN = {"hessian": "rank_H", "outer_product": "rank_Ho", "functional": "rank_Hf"}


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    """A row of the table as arguments, its special points as ranks of the weights."""
    point, _, number = case["point"].partition(":")
    full = [min(pair) for pair in pairwise(case["widths"])]
    found = {
        "widths": case["widths"],
        "input_rank": case["r"],
        "bias": case["bias"],
        "loss": {"mse": "mse", "ce": "cross_entropy"}[case["loss"]],
    }
    return (
        found
        | {
            "generic": {},
            "whitened": {},
            "global_min": {"residual_rank": 0},
            "omega_rank": {"residual_rank": int(number or 0)},
            "critical_bottleneck": {"optimum": True},
            "all_zero": {"weight_ranks": [0 for _ in full]},
            "zero_layer": {
                "weight_ranks": [
                    r * (str(layer) != number) for layer, r in enumerate(full, start=1)
                ]
            },
            "weight_rank": {"weight_ranks": [min(r, int(number or 0)) for r in full]},
        }[point]
    )


@pytest.mark.parametrize("route", [linear_network_rank, exact_rank])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['widths']}-{case['point']}")
def test_every_row_of_the_table_at_its_own_point(case: dict[str, Any], route: Any) -> None:
    for part in PARTS:
        found = route(part=part, **arguments(case))
        assert found.value == case[COLUMN[part]], (part, found)
        assert found.parameters == case["n_params"]


@st.composite
def networks(draw: st.DrawFn, largest: int = 6) -> dict[str, Any]:
    widths = draw(st.lists(st.integers(1, largest), min_size=2, max_size=7))
    loss = draw(st.sampled_from(LOSSES if widths[-1] > 1 else ("mse",)))
    outputs = widths[-1] - (loss == "cross_entropy")
    input_rank = draw(st.integers(0, widths[0]))
    biased = draw(st.sets(st.integers(1, len(widths) - 1)) | st.booleans())
    most = min(input_rank + bool(biased), outputs)
    return {
        "widths": widths,
        "input_rank": input_rank,
        "bias": biased,
        "loss": loss,
        "residual_rank": draw(st.none() | st.integers(0, most)),
    }


@settings(max_examples=300)
@given(networks(), st.sampled_from(PARTS), st.integers(0, 2**32 - 1))
def test_closed_form_equals_exact_rank_at_a_random_point(
    network: dict[str, Any], part: str, seed: int
) -> None:
    bound = linear_network_rank(part=part, **network)
    exact = exact_rank(part=part, seed=seed, **network)
    assert exact.value == bound.value, (bound, exact)
    assert exact.parameters == bound.parameters
    assert exact.status == "computed"
    assert ("proves that this point attains it" in exact.because) == (bound.status == "proved")


@given(networks(largest=5), st.integers(0, 2**32 - 1))
def test_a_second_elimination_from_samples_agrees(network: dict[str, Any], seed: int) -> None:
    """Over another field, with d and K as given, sample by sample and without any reduction."""
    depth = len(network["widths"]) - 1
    biased = network["bias"]
    if isinstance(biased, bool):
        biased = range(1, depth + 1) if biased else ()
    options = {name: value for name, value in network.items() if name != "bias"}
    witness = exact_ranks(biased=set(biased), seed=seed, **options)
    for part in PARTS:
        assert exact_rank(part=part, **network).value == getattr(witness, part)


@st.composite
def weight_ranks(draw: st.DrawFn) -> dict[str, Any]:
    network = draw(networks(largest=5))
    full = [min(pair) for pair in pairwise(network["widths"])]
    return network | {"weight_ranks": [draw(st.integers(0, most)) for most in full]}


@settings(max_examples=200)
@given(weight_ranks(), st.sampled_from(PARTS), st.integers(0, 2**32 - 1))
def test_closed_form_equals_exact_rank_at_weights_of_any_ranks(
    network: dict[str, Any], part: str, seed: int
) -> None:
    found = linear_network_rank(part=part, **network)
    assert exact_rank(part=part, seed=seed, **network).value == found.value


@settings(max_examples=200)
@given(st.data())
def test_closed_form_equals_exact_rank_with_one_layer_of_zeros(data: st.DataObject) -> None:
    network = data.draw(networks())
    ranks = [min(pair) for pair in pairwise(network["widths"])]
    ranks[data.draw(st.integers(0, len(ranks) - 1))] = 0
    network |= {"weight_ranks": ranks, "bias": False}
    most = min(network["input_rank"], network["widths"][-1] - (network["loss"] != "mse"))
    network["residual_rank"] = data.draw(st.none() | st.integers(0, most))
    for part in PARTS:
        found = linear_network_rank(part=part, **network)
        assert exact_rank(part=part, **network).value == found.value, found
        assert found.status in ("proved", "verified")


@settings(max_examples=150)
@given(networks(), st.sampled_from(PARTS), st.integers(0, 2**32 - 1))
def test_at_an_optimum_through_a_bottleneck_the_hessian_has_the_rank_of_its_outer_product(
    network: dict[str, Any], part: str, seed: int
) -> None:
    network |= {"residual_rank": None, "optimum": True}
    found = linear_network_rank(part=part, **network)
    assert exact_rank(part=part, seed=seed, **network).value == found.value
    if part == "hessian":
        outer = exact_rank(part="outer_product", seed=seed, **network)
        assert found.value == outer.value


@settings(max_examples=150)
@given(weight_ranks(), st.sampled_from(PARTS), st.data())
def test_a_single_block_has_the_closed_form_rank(
    network: dict[str, Any], part: str, data: st.DataObject
) -> None:
    layer = st.integers(1, len(network["widths"]) - 1)
    network |= {"bias": False, "residual_rank": None, "layers": data.draw(st.tuples(layer, layer))}
    found = linear_network_rank(part=part, **network)
    exact = exact_rank(part=part, **network)
    assert (exact.value, exact.nullity) == (found.value, found.nullity)
    mirrored = network | {"layers": network["layers"][::-1]}
    assert linear_network_rank(part=part, **mirrored).value == found.value


def test_the_parameters_of_a_block_are_its_columns() -> None:
    found = rm.linear_network_rank([5, 4, 3], part="outer_product", layers=(1, 2))
    assert (found.value, found.nullity, found.parameters) == (12, 0, 12)
    assert rm.linear_network_rank([5, 4, 3], part="outer_product", layers=(2, 1)).parameters == 20


def test_the_rank_of_the_sum_of_two_blocks_lies_between_the_larger_and_the_sum() -> None:
    of = {
        part: rm.linear_network_rank([4, 3, 5, 4], part=part, layers=(1, 3)).value for part in PARTS
    }
    assert max(of["outer_product"], of["functional"]) <= of["hessian"]
    assert of["hessian"] <= of["outer_product"] + of["functional"]


@given(networks(), st.integers(0, 2**32 - 1))
def test_the_jacobian_alone_has_the_rank_of_the_outer_product(
    network: dict[str, Any], seed: int
) -> None:
    point = random_point(linear_network(**network), seed, PRIME)
    assert rank(PRIME, jacobian_gram(point)) == rank(PRIME, matrix(point, "outer_product"))


@given(networks(), st.sampled_from(PARTS))
def test_the_matrix_is_symmetric_and_made_of_its_blocks(network: dict[str, Any], part: str) -> None:
    point = random_point(linear_network(**network), 3, PRIME)
    full = matrix(point, part)
    assert (full == full.T).all()
    rows = len(block(point, part, 1, 1))
    last = len(point.after)
    columns = block(point, part, last, last).shape[1]
    assert (full[:rows, full.shape[1] - columns :] == block(point, part, 1, last)).all()


def test_products_of_residues_are_exact() -> None:
    rng = np.random.default_rng(1)
    for prime in (PRIME, SECOND_PRIME):
        first, second = (np.asarray(prime - rng.integers(1, 9, (40, 40))) for _ in range(2))
        exact = first.astype(object) @ second.astype(object) % prime
        assert (times(prime, first, second) == exact).all()


def test_both_primes_are_prime() -> None:
    sympy = pytest.importorskip("sympy")
    assert sympy.isprime(PRIME)
    assert sympy.isprime(SECOND_PRIME)
    network = linear_network([4, 3, 5], bias=True)
    assert elimination_rank(network, "hessian", 0, PRIME) == elimination_rank(
        network, "hessian", 0, SECOND_PRIME
    )


def test_meeting_a_proved_bound_is_a_proof_and_meeting_a_verified_one_is_not() -> None:
    assert "proves that this point attains it: 75" in rm.exact_rank([7, 5, 3, 4, 6]).because
    assert "equals the verified closed form: 20" in rm.exact_rank([4, 3, 2], bias=True).because
    deep = rm.exact_rank([4, 3, 3, 2], bias=True, part="functional")
    assert "no closed form is known" in deep.because


def test_below_the_closed_form_a_second_prime_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unlucky(network: Any, part: str, seed: int, prime: int) -> int:
        asked.append(prime)
        return 74 if prime == PRIME else 75

    monkeypatch.setattr("rmthess.ranks.exact.elimination_rank", unlucky)
    found = rm.exact_rank([7, 5, 3, 4, 6])
    assert asked == [PRIME, SECOND_PRIME]
    assert found.value == 75
    assert "2³¹ − 1 and 2³¹ − 19" in found.because


def test_a_count_other_than_the_closed_form_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmthess.ranks.exact.elimination_rank", lambda *_, **__: 74)
    assert "below the proved closed form 75, which is worth a report" in (
        rm.exact_rank([7, 5, 3, 4, 6]).because
    )


def test_the_same_seed_gives_the_same_point() -> None:
    network = linear_network([4, 3, 5], loss="cross_entropy", bias={2})
    one, same, other = (matrix(random_point(network, s, PRIME), "hessian") for s in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("route", [linear_network_rank, exact_rank])
def test_a_large_outer_product_is_counted_by_its_few_outputs(route: Any) -> None:
    """A quarter of a million parameters, 40 rows."""
    assert route([10, 500, 500, 4], part="outer_product").value == 40


def test_a_network_too_large_is_refused_with_its_size_and_time_before_anything_is_formed() -> None:
    with pytest.raises(ValueError, match=r"30000 × 30000 matrix: about 140\.6 minutes and 67 GiB"):
        rm.exact_rank([100, 150, 100])
    with pytest.raises(ValueError, match="the limit is 20 rows; linear_network_rank has it"):
        rm.exact_rank([4, 3, 4], largest=20)
    assert rm.exact_rank([4, 3, 4], largest=24).value == 24
    with pytest.raises(ValueError, match="linear_network_rank bounds it"):
        rm.exact_rank([4, 3, 3, 4], bias=True, part="functional", largest=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [3]}, "at least two numbers"),
        ({"widths": [3, 0, 2]}, "positive integers, got 0"),
        ({"widths": [3, 2.0]}, "positive integers, got 2.0"),
        ({"input_rank": 4}, "input dimension 3, got 4"),
        ({"residual_rank": 3}, "from 0 to 2, got 3"),
        ({"loss": "hinge"}, "one of mse, cross_entropy"),
        ({"part": "ggn"}, "one of hessian, outer_product, functional"),
        ({"bias": {3}}, "names layer 3, which is not there"),
        ({"widths": [3, 1], "loss": "cross_entropy"}, "at least two outputs"),
        ({"weight_ranks": [2]}, r"a rank a layer, 2 of them, got \[2\]"),
        ({"weight_ranks": [2, 3]}, "in layer 2 from 0 to 2, got 3"),
        ({"weight_ranks": [2, True]}, "in layer 2 from 0 to 2, got True"),
        ({"layers": (0, 1)}, r"two layers \(l, m\) from 1 to 2"),
        ({"layers": (1, 2, 1)}, r"two layers \(l, m\) from 1 to 2"),
        ({"optimum": True, "weight_ranks": [1, 1]}, "optimum does too"),
        ({"optimum": True, "residual_rank": 1}, "orthogonal to the network"),
    ],
)
@pytest.mark.parametrize("route", [linear_network_rank, exact_rank])
def test_what_is_impossible_is_refused(route: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        route(**({"widths": [3, 2, 2]} | options))
