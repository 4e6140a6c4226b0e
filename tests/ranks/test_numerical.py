"""The rank of a list of eigenvalues: the gap that decides it, and the refusals to decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmthess.ranks.linear_network import RankBound
from rmthess.ranks.numerical import numerical_rank


def bound(value: int) -> RankBound:
    return RankBound(value, nullity=0, parameters=value, status="proved", because="")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_product_of_thin_matrices_has_the_rank_of_the_thin_side(
    dim: int, inner: int, seed: int
) -> None:
    inner = min(inner, dim)
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dim, inner)))[0]
    signs = rng.choice([-1.0, 1.0], inner)
    matrix = (basis * signs * rng.uniform(0.1, 10, inner)) @ basis.T
    rank = numerical_rank(np.linalg.eigvalsh((matrix + matrix.T) / 2))
    assert rank.value == inner
    assert rank.gap >= 1e6


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=20),
    st.integers(0, 20),
    st.floats(1e-200, 1e200),
)
def test_the_rank_depends_on_neither_order_nor_sign_nor_scale(
    sizes: list[float], zeros: int, scale: float
) -> None:
    values = np.array(sizes + [0.0] * zeros)
    turned = -scale * values[::-1]
    assert numerical_rank(values).value == numerical_rank(turned).value == len(sizes)


def test_the_noise_floor_gives_a_matrix_of_full_rank_its_gap() -> None:
    rank = numerical_rank([4.0, -2.0, 1.0])
    assert rank.value == 3
    assert rank.gap == pytest.approx(1 / (3 * 2.0**-52 * 4), rel=1e-12)


def test_values_below_the_noise_floor_open_no_gap_among_themselves() -> None:
    rank = numerical_rank([1.0, 0.5, 1e-17, 1e-40, 0.0])
    assert rank.value == 2
    assert rank.gap == pytest.approx(0.5 / (5 * 2.0**-52), rel=1e-12)


def test_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    rank = numerical_rank([1.0, 1e-2, 1e-12])
    assert rank.threshold == pytest.approx(1e-7, rel=1e-12)
    assert rank.dim == 3


def test_a_zero_matrix_has_rank_zero() -> None:
    rank = numerical_rank(np.zeros(4))
    assert (rank.value, rank.gap, rank.threshold) == (0, math.inf, 0.0)
    assert rank.verdict(bound(0)) == "equal"


def test_one_eigenvalue_has_rank_one() -> None:
    assert numerical_rank([-1e-30]).value == 1


def test_a_spectrum_without_a_wide_gap_is_undecided() -> None:
    rank = numerical_rank(np.logspace(0, -16, 30))
    assert rank.value is None
    assert rank.gap < 1e6
    assert "the widest gap is" in rank.explain()


def test_a_gap_just_short_of_a_million_is_undecided_and_a_million_is_not() -> None:
    ladder = np.array([1.0, 1e-5, 1e-10])
    assert numerical_rank(np.append(ladder, 0.999e-4 * ladder[-1])).value is None
    assert numerical_rank([1.0, 1e-6 * 0.999, 1e-10, 1e-14]).value == 1


def test_two_wide_gaps_are_undecided_and_both_are_named() -> None:
    rank = numerical_rank([1.0, 1e-8])
    assert rank.value is None
    assert "1 (gap 1e+08) and 2 (gap 2.3e+07)" in rank.explain(bound(2))


@pytest.mark.parametrize(
    ("against", "verdict", "sentence"),
    [
        (2, "equal", "rank 2 of 3, gap 3e+12; equals the bound 2"),
        (3, "below", "1 below the bound 3: it holds"),
        (1, "violated", "1 above the bound 1: the network"),
    ],
)
def test_a_bound_is_met_or_missed_or_violated(against: int, verdict: str, sentence: str) -> None:
    rank = numerical_rank([3.0, -3.0, 1e-12])
    assert rank.verdict(bound(against)) == verdict
    assert sentence in rank.explain(bound(against))


def test_an_undecided_rank_gives_no_verdict() -> None:
    assert numerical_rank(np.logspace(0, -16, 30)).verdict(bound(3)) == "undecided"


def test_printing_a_rank_shows_its_gap() -> None:
    assert str(numerical_rank([3.0, -3.0, 1e-12])) == "rank 2 of 3, gap 3e+12"


def test_integers_are_exact_and_not_warned_of() -> None:
    assert numerical_rank([3, 1, 0]).value == 2


def test_single_precision_is_warned_of_and_judged_by_its_own_noise() -> None:
    values = np.array([1.0, 1e-9], dtype=np.float32)
    with pytest.warns(UserWarning, match="float32, with a relative noise floor of at least 1e-07"):
        rank = numerical_rank(values)
    assert rank.value is None or rank.value == 1
    assert rank.gap <= 1 / np.finfo(np.float32).eps


def test_the_eigenvalues_are_left_as_they_were() -> None:
    values = np.array([1.0, -3.0, 0.0])
    numerical_rank(values)
    assert values.tolist() == [1.0, -3.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"1 of 3 eigenvalues .* at index 1"):
        numerical_rank([1.0, bad, 0.0])


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        numerical_rank([])


def test_a_matrix_is_refused_and_told_to_be_diagonalised() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\).*eigvalsh"):
        numerical_rank(np.eye(2))


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="complex128"):
        numerical_rank(np.array([1j]))
