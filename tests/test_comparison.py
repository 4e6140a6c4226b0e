"""Outliers are counted where theory puts them, and a comparison says what agrees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.linalg import eigvalsh_tridiagonal

import rmthess as rm
from rmthess.comparison import Comparison, Row
from rmthess.measure import DiscreteMeasure, LanczosMeasure

TW1 = {0.1: 0.9793, 0.02: 2.0234}  # quantiles of F_1 at 1 - level/2: Bejan's table (2005)


def goe(dim: int, seed: int) -> np.ndarray:
    """Entries of variance 1/dim off the diagonal and 2/dim on it: the semicircle on [-2, 2]."""
    a = np.random.default_rng(seed).standard_normal((dim, dim))
    return (a + a.T) / np.sqrt(2 * dim)


def wishart(dim: int, samples: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((samples, dim))
    return x.T @ x / samples


def exact(matrix: np.ndarray) -> DiscreteMeasure:
    return DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(matrix))


def rotated(values: np.ndarray, seed: int) -> np.ndarray:
    """A symmetric matrix with these eigenvalues and uniformly random eigenvectors."""
    a = np.random.default_rng(seed).standard_normal((len(values), len(values)))
    q = np.linalg.qr(a)[0]
    return (q * values) @ q.T


def top(diagonal: np.ndarray, off_diagonal: np.ndarray, count: int = 6) -> DiscreteMeasure:
    """The largest eigenvalues of a large matrix by bisection, as a measure that knows its side."""
    dim = len(diagonal)
    values = eigvalsh_tridiagonal(
        diagonal, off_diagonal, select="i", select_range=(dim - count, dim - 1)
    )
    return DiscreteMeasure(values, np.full(count, 1 / count), dim)


def chi(freedom: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.sqrt(rng.chisquare(freedom))


def spiked_goe(dim: int, strength: float, seed: int) -> DiscreteMeasure:
    """GOE + strength e₁e₁ᵀ: the Householder reduction from e₁ leaves the spike where it is."""
    rng = np.random.default_rng(seed)
    a = rng.normal(scale=np.sqrt(2 / dim), size=dim)
    a[0] += strength
    return top(a, chi(np.arange(dim - 1, 0, -1), rng) / np.sqrt(dim))


def spiked_wishart(dim: int, samples: int, strength: float, seed: int) -> DiscreteMeasure:
    """Population covariance diag(strength, 1, 1, ...), reduced to bidiagonal form from e₁."""
    rng = np.random.default_rng(seed)
    upright = chi(samples - np.arange(dim), rng)
    upright[0] *= np.sqrt(strength)
    sideways = chi(dim - 1 - np.arange(dim - 1), rng)
    diagonal = upright**2
    diagonal[1:] += sideways**2
    return top(diagonal / samples, upright[:-1] * sideways / samples)


# ---- by the law's edge


@pytest.mark.parametrize("level", TW1)
def test_the_semicircle_edge_fluctuates_like_dim_to_the_minus_two_thirds(level: float) -> None:
    variance, mean, dim = 1.7, 0.43, 10**6
    somewhere = DiscreteMeasure([mean], [1.0], dim)
    found = rm.outliers(somewhere, rm.Semicircle(variance, mean), level=level)
    margin = np.sqrt(variance) * dim ** (-2 / 3) * TW1[level]
    assert found.right - (mean + 2 * np.sqrt(variance)) == pytest.approx(margin, rel=1e-3)
    assert (mean - 2 * np.sqrt(variance)) - found.left == pytest.approx(margin, rel=1e-3)


@pytest.mark.parametrize("ratio", [0.43, 2.7])
def test_the_marchenko_pastur_edges_have_johnstones_centre_and_scale(ratio: float) -> None:
    variance, dim, level = 1.7, 10**6, 0.02
    p, n = dim, dim / ratio
    root_p, root_n = np.sqrt(p), np.sqrt(n)
    upper = (root_n + root_p) * (1 / root_n + 1 / root_p) ** (1 / 3)
    lower = abs(root_n - root_p) * abs(1 / root_n - 1 / root_p) ** (1 / 3)
    right = ((root_n + root_p) ** 2 + upper * TW1[level]) * variance / n
    left = ((root_n - root_p) ** 2 - lower * TW1[level]) * variance / n
    law = rm.MarchenkoPastur(ratio, variance)
    found = rm.outliers(DiscreteMeasure([variance], [1.0], dim), law, level=level)
    (edges,) = law.support
    assert found.right - edges[1] == pytest.approx(right - edges[1], rel=1e-3)
    assert edges[0] - found.left == pytest.approx(edges[0] - left, rel=1e-3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_spike_counts_above_the_transition_and_not_below(seed: int) -> None:
    """GOE: transition at 1, landing at θ + 1/θ. Five standard deviations from every threshold."""
    above = rm.outliers(spiked_goe(200_000, 1.2, seed), rm.Semicircle())
    assert above.location == pytest.approx([1.2 + 1 / 1.2], abs=0.01)
    assert above[0].side == "right"
    assert len(rm.outliers(spiked_goe(200_000, 0.8, seed), rm.Semicircle())) == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_covariance_spike_counts_above_the_transition_and_not_below(seed: int) -> None:
    """Wishart: transition at 1 + √q, landing at ℓ(1 + q/(ℓ - 1)) (Baik, Ben Arous, Péché)."""
    ratio, dim = 0.25, 100_000
    samples, law = round(dim / ratio), rm.MarchenkoPastur(ratio)
    strength = 1.2 * (1 + np.sqrt(ratio))
    above = rm.outliers(spiked_wishart(dim, samples, strength, seed), law)
    assert above.location == pytest.approx([strength * (1 + ratio / (strength - 1))], abs=0.02)
    assert len(rm.outliers(spiked_wishart(dim, samples, 1 + 0.8 * np.sqrt(ratio), seed), law)) == 0


def test_every_spike_of_a_full_matrix_is_counted_once_on_its_side() -> None:
    matrix = goe(400, seed=5)
    matrix[[0, 1, 2], [0, 1, 2]] += [3.0, -2.0, 1.6]
    for measure in (exact(matrix), rm.lanczos(matrix, steps=80, probes=3)):
        found = rm.outliers(measure, rm.Semicircle())
        assert [item.side for item in found] == ["left", "right", "right"]
        assert found.location == pytest.approx([-2.5, 2.225, 3.33], abs=0.2)


def false_alarms(matrices: Sequence[np.ndarray], law: rm.Law, level: float) -> int:
    found = [rm.outliers(exact(matrix), law, level=level) for matrix in matrices]
    return sum(len({item.side for item in each}) for each in found)


def test_a_pure_bulk_shows_outliers_as_often_as_the_level_says() -> None:
    """100 matrices a law. Each edge has half of the level."""
    wigner = [goe(100, seed) for seed in range(100)]
    covariance = [wishart(100, 250, seed) for seed in range(100)]
    for matrices, law in ((wigner, rm.Semicircle()), (covariance, rm.MarchenkoPastur(0.4))):
        assert false_alarms(matrices, law, 0.01) <= 5  # expected 1; more than 5: once in 1000
        assert 20 <= false_alarms(matrices, law, 0.4) <= 60  # expected 40, but for O(dim^-1/3)


@pytest.mark.parametrize(("dim", "samples"), [(100, 100), (100, 101), (300, 300), (400, 402)])
def test_nothing_escapes_to_the_left_of_a_hard_edge(dim: int, samples: int) -> None:
    """Nor of a soft one so near to 0 that the smallest eigenvalues feel the wall."""
    law = rm.MarchenkoPastur(dim / samples)
    for seed in range(20):
        found = rm.outliers(exact(wishart(dim, samples, seed)), law, level=1e-6)
        assert found.left <= law.support[0][0]
        assert not [item for item in found if item.side == "left"]


def test_the_atom_of_a_law_is_no_outlier_but_its_neighbour_is() -> None:
    law = rm.MarchenkoPastur(2.5)
    zeros = exact(wishart(250, 100, seed=1))
    assert zeros.cdf(1e-10) == pytest.approx(0.6)
    assert law.support[0][0] > 0.3
    assert len(rm.outliers(zeros, law)) == 0
    values = np.append(zeros.nodes, 0.1)
    planted = rm.outliers(DiscreteMeasure.from_eigenvalues(values), law)
    assert planted.location == pytest.approx([0.1])
    assert planted[0].side == "left"
    seen = rm.lanczos(wishart(250, 100, seed=1), steps=60, probes=2)
    assert np.nanmin(np.abs(seen.nodes)) < 1e-8
    assert len(rm.outliers(seen, law)) == 0


# ---- by given edges


def test_given_edges_are_thresholds_without_a_margin() -> None:
    measure = DiscreteMeasure.from_eigenvalues([-1.7, -1.0, 0.43, 2.0, 2.1])
    found = rm.outliers(measure, (-1.0, 2.0))
    assert found.location.tolist() == [-1.7, 2.1]
    assert (found.left, found.right) == (-1.0, 2.0)
    assert "-1" in found.rule
    assert rm.outliers(measure, (-np.inf, np.inf)).items == ()


# ---- by the gap rule


@pytest.mark.parametrize("dim", [40, 301, 600])
def test_a_bulk_without_a_gap_has_no_outliers_and_says_so(dim: int) -> None:
    """Also where every eigenvalue is known, down to those at the median itself."""
    for seed in range(4):
        for values in (
            np.linalg.eigvalsh(goe(dim, seed)),
            np.linalg.eigvalsh(wishart(dim, 3 * dim, seed)),
        ):
            found = rm.outliers(DiscreteMeasure.from_eigenvalues(values))
            assert len(found) == 0
            assert found.location.shape == (0,)
            assert found.rule.count("no clear gap") == 2
    run = rm.lanczos(goe(dim, 7), steps=40, probes=2)
    assert len(rm.outliers(run)) == 0


@pytest.mark.parametrize("ratio", [1.4, 2.2])
def test_a_gap_counts_from_a_ratio_of_one_and_a_half(ratio: float) -> None:
    """2.2 and not 1.6: a tail as heavy as the end of so small a bulk shows 1.6 in 1% of cases."""
    bulk = np.linspace(-1, 1, 101)
    found = rm.outliers(DiscreteMeasure.from_eigenvalues([*bulk, ratio, 1.02 * ratio]))
    # the plants move the median by 0.02
    assert len(found) == (2 if ratio > 1.5 else 0)
    shifted = rm.outliers(DiscreteMeasure.from_eigenvalues([*(bulk + 9), 9 - ratio]))
    assert [item.side for item in shifted] == (["left"] if ratio > 1.5 else [])


def test_the_planted_gap_is_found_by_lanczos_as_by_exact_eigenvalues() -> None:
    bulk = np.linalg.eigvalsh(goe(300, seed=2))
    matrix = rotated(np.append(bulk, [5.0, 6.0, -7.0]), seed=3)
    for measure in (exact(matrix), rm.lanczos(matrix, steps=50, probes=4)):
        found = rm.outliers(measure)
        assert found.location == pytest.approx([-7.0, 5.0, 6.0], abs=1e-9)
        gap = next(rule for rule in found.rules if rule.name == "gap")
        assert bulk[0] <= gap.left + 1e-9
        assert gap.right <= bulk[-1] + 1e-9
        assert gap.count == 3
        assert "after 2" in gap.because


@pytest.mark.parametrize("kind", ["wide", "white beside zeros", "Wigner beside zeros", "lognormal"])
def test_no_outlier_is_invented_where_most_eigenvalues_are_zero(kind: str) -> None:
    """20 matrices, of a spike at 0.8 of the threshold where there is one; no law is given."""
    for seed in range(20):
        rng = np.random.default_rng([seed, 5])
        small, side = np.zeros((1, 1)), 240
        if kind == "wide":
            x = rng.standard_normal((48, side))
            x[:, 0] *= np.sqrt(0.8 * (1 + np.sqrt(5)))
            matrix = x.T @ x / 48
        else:
            if kind == "Wigner beside zeros":
                small = goe(60, seed)
                small[0, 0] += 0.8
            else:
                scale = np.ones(60)
                scale[0] = 0.8 * (1 + np.sqrt(0.4))
                if kind == "lognormal":
                    scale = np.exp(2 * rng.standard_normal(60))
                x = rng.standard_normal((150, 60)) * np.sqrt(scale)
                small = x.T @ x / 150
            matrix = np.zeros((side, side))
            matrix[:60, :60] = small
        found = rm.outliers(exact(matrix))
        assert len(found) == 0, found
        assert found.left <= 0 <= found.right or kind == "wide"
        run = rm.outliers(rm.lanczos(matrix, steps=40, probes=3, seed=seed))
        gap = next(rule for rule in run.rules if rule.name == "gap")
        assert gap.count == 0, run
        assert "of 0 resolved" not in str(run)


def test_outliers_beside_zeros_are_counted() -> None:
    """Three at 4, 5 and 6 times the edge 2.66 of 60 white ones, 240 zeros; and one to the left."""
    x = np.random.default_rng(5).standard_normal((150, 60))
    bulk = np.linalg.eigvalsh(x.T @ x / 150)
    values = np.concatenate([np.zeros(240), bulk, [10.6, 13.3, 16.0]])
    assert rm.outliers(DiscreteMeasure.from_eigenvalues(values)).location.tolist() == [
        10.6, 13.3, 16.0
    ]  # fmt: skip


def test_exact_eigenvalues_that_coincide_are_a_clear_group() -> None:
    bulk = np.linalg.eigvalsh(goe(200, seed=4))
    found = rm.outliers(DiscreteMeasure.from_eigenvalues([*bulk, 5.0, 5.0]))
    assert found.location.tolist() == [5.0, 5.0]


def test_a_constant_spectrum_and_a_single_eigenvalue_have_no_outliers() -> None:
    for values in ([2.0], [2.0, 2.0, 2.0], [0.0, 0.0], [0.0, 1.0]):
        assert len(rm.outliers(DiscreteMeasure.from_eigenvalues(values))) == 0


# ---- what Lanczos has seen


def test_only_converged_ritz_values_count() -> None:
    bulk = np.linalg.eigvalsh(goe(400, seed=6))
    matrix = rotated(np.append(bulk, 2.6), seed=7)
    threshold = 2.2
    short, long = (rm.lanczos(matrix, steps=steps, probes=1, seed=0) for steps in (6, 60))
    assert len(rm.outliers(long, (-3.0, threshold))) == 1
    assert short.nodes.max() > threshold  # seen, but its bound reaches into the bulk
    assert short.nodes.max() - short.errors[0, -1] < threshold
    for bulk_rule in ((-3.0, threshold), rm.Semicircle(), None):
        assert len(rm.outliers(short, bulk_rule)) == 0


def test_probes_that_see_the_same_eigenvalue_are_merged() -> None:
    matrix = rotated(np.append(np.linspace(-1, 1, 150), [3.0, 3.2]), seed=8)
    found = rm.outliers(rm.lanczos(matrix, steps=60, probes=6), (-1.5, 1.5))
    assert found.location == pytest.approx([3.0, 3.2], abs=1e-9)
    assert [item.seen_by for item in found] == [6, 6]


def test_the_sharpest_probe_gives_value_and_bound() -> None:
    """Two probes by hand: T = diag, so that values and bounds are plain."""
    one, sharp = 3.001, 3.0
    measure = LanczosMeasure([[one], [sharp]], [[], []], [0.01, 1e-9], dim=50)
    found = rm.outliers(measure, (-1.0, 1.0))
    assert [(item.location, item.seen_by) for item in found] == [(sharp, 2)]
    assert found[0].error == pytest.approx(1e-9, rel=1e-3)
    apart = LanczosMeasure([[one], [sharp]], [[], []], [1e-5, 1e-9], dim=50)
    assert len(rm.outliers(apart, (-1.0, 1.0))) == 2


def test_many_outliers_are_counted_quickly() -> None:
    values = np.linspace(-1, 1, 200_000)
    assert len(rm.outliers(DiscreteMeasure.from_eigenvalues(values), (-0.5, 0.5))) == 100_000


def test_lanczos_counts_a_multiple_eigenvalue_once() -> None:
    values = np.append(np.linspace(-1, 1, 100), [4.0, 4.0, 4.0])
    matrix = rotated(values, seed=9)
    for steps in (40, 90, 101, 103):  # near 101 steps rounding shows further copies to a probe
        found = rm.outliers(rm.lanczos(matrix, steps=steps, probes=3), (-1.5, 1.5))
        assert found.location == pytest.approx([4.0])
        assert found[0].seen_by == 3
    assert len(rm.outliers(DiscreteMeasure.from_eigenvalues(values), (-1.5, 1.5))) == 3


def test_every_error_bounds_the_distance_to_an_exact_eigenvalue() -> None:
    matrix = goe(250, seed=10)
    matrix[range(4), range(4)] += [4.0, 3.0, 2.0, -3.0]
    eigenvalues = np.linalg.eigvalsh(matrix)
    rounding = 250 * np.finfo(float).eps * np.abs(eigenvalues).max()
    counts = []
    for steps in (6, 12, 24, 48):
        found = rm.outliers(rm.lanczos(matrix, steps=steps, probes=2), (-2.1, 2.1))
        counts.append(len(found))
        for item in found:
            assert np.abs(eigenvalues - item.location).min() <= item.error + rounding
    assert counts == sorted(counts)
    assert counts[-1] == 4


def test_outliers_are_a_sequence_from_left_to_right() -> None:
    found = rm.outliers(DiscreteMeasure.from_eigenvalues([0.0, 3.0, -2.0, 5.0]), (-1.0, 1.0))
    assert isinstance(found, Sequence)
    assert [item.location for item in found] == found.location.tolist() == [-2.0, 3.0, 5.0]
    assert found[-1] is found.items[2]
    assert list(found[:2]) == list(found.items[:2])
    assert bool(found)


# ---- bad input


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(ValueError, match=r"level must lie between 0 and 1, got .*false alarm"):
        rm.outliers(DiscreteMeasure.from_eigenvalues([1.0]), rm.Semicircle(), level=level)


@pytest.mark.parametrize("bulk", [(2.0, 1.0), (float("nan"), 1.0), (1.0,), (1.0, 2.0, 3.0), 7.0])
def test_edges_are_two_numbers_in_order(bulk: object) -> None:
    with pytest.raises(ValueError, match=r"bulk must be a law, .*left <= right.*got"):
        rm.outliers(DiscreteMeasure.from_eigenvalues([1.0]), bulk)


def test_the_edge_test_needs_the_side_of_the_matrix() -> None:
    with pytest.raises(ValueError, match="needs the side of the matrix: pass a measure with dim"):
        rm.outliers(DiscreteMeasure([1.0], [1.0]), rm.Semicircle())


@pytest.mark.parametrize("measure", [[1.0, 2.0], np.eye(2), rm.Semicircle()])
def test_what_is_no_measurement_is_refused_by_name(measure: object) -> None:
    sentence = f"got {type(measure).__name__}; DiscreteMeasure.from_eigenvalues"
    with pytest.raises(TypeError, match=sentence):
        rm.outliers(measure)
    with pytest.raises(TypeError, match=sentence):
        rm.compare(rm.Semicircle(), measure)


def test_a_law_is_compared_and_nothing_else() -> None:
    with pytest.raises(TypeError, match="theory must be a law or a Prediction, got tuple"):
        rm.compare((1, 2), DiscreteMeasure.from_eigenvalues([1.0]))


# ---- three rules, one table


def test_three_rules_stand_side_by_side_and_one_is_followed() -> None:
    bulk = np.linalg.eigvalsh(goe(600, seed=12))
    matrix = rotated(np.append(bulk, [3.0, 3.4]), seed=3)
    run = rm.lanczos(matrix, steps=60, probes=8)
    by_law = rm.outliers(run, rm.Semicircle())
    assert [rule.name for rule in by_law.rules] == ["edge", "tail", "gap"]
    assert by_law.location == pytest.approx([3.0, 3.4], abs=1e-9)
    by_tail = rm.outliers(rm.lanczos(matrix, steps=60, deflate=2))
    assert by_tail.rules[0].name == "tail"
    assert by_tail.location == pytest.approx([3.0, 3.4], abs=1e-9)
    for one, other in zip(by_law, by_tail, strict=True):
        # strength λ/2 + √(λ²/4 - 1) of a spike on the semicircle, overlap 1 - 1/strength²
        strength = one.location / 2 + np.sqrt(one.location**2 / 4 - 1)
        assert one.strength == pytest.approx(strength, rel=1e-6)
        assert one.overlap == pytest.approx(1 - 1 / strength**2, rel=1e-4)
        assert other.strength == pytest.approx(strength, rel=0.03)
        assert other.overlap == pytest.approx(one.overlap, abs=0.03)
    two_cuts = np.concatenate([np.linspace(-3, -2, 150), np.linspace(1, 4, 150)])
    cut = rm.outliers(rm.lanczos(np.diag(two_cuts), steps=40, probes=4))
    assert cut.rules[0].name == "gap"
    assert "tail: does not apply, not one-cut" in str(cut)


def test_spikes_are_counted_above_the_threshold_and_not_below() -> None:
    """15 Wishart runs each at 0.8 and 1.3 times the threshold 1 + √q, by law and by tail."""
    law, dim, samples = rm.MarchenkoPastur(0.4), 400, 1000
    by_law, by_tail = {}, {}
    for factor in (0.8, 1.3):
        by_law[factor], by_tail[factor] = [], []
        for seed in range(15):
            x = np.random.default_rng([seed, 9]).standard_normal((samples, dim))
            x[:, 0] *= np.sqrt(factor * (1 + np.sqrt(0.4)))
            run = rm.lanczos(x.T @ x / samples, steps=50, probes=6, seed=seed)
            found = {rule.name: rule.count for rule in rm.outliers(run, law).rules}
            by_law[factor].append(found["edge"])
            by_tail[factor].append(found["tail"])
    assert by_law[0.8].count(0) >= 14
    assert by_law[1.3].count(1) >= 14
    known = [count for count in by_tail[0.8] if count is not None]
    assert len(known) >= 12
    assert known.count(0) >= len(known) - 1


def test_a_covariance_outlier_gives_its_population_eigenvalue_away() -> None:
    found = rm.outliers(
        DiscreteMeasure.from_eigenvalues([*np.linspace(0.2, 2.2, 99), 3.375]),
        rm.MarchenkoPastur(0.25),
    )
    assert found[-1].strength == pytest.approx(3.0)
    assert found[-1].overlap == pytest.approx((1 - 0.25 / 4) / (1 + 0.25 / 2), rel=1e-6)


def test_deflated_eigenvalues_count_as_outliers() -> None:
    matrix = rotated(np.append(np.linalg.eigvalsh(goe(300, seed=2)), [5.0, 6.0]), seed=3)
    run = rm.lanczos(matrix, steps=40, probes=4, deflate=2)
    for bulk in (rm.Semicircle(), None, (-3.0, 3.0)):
        assert rm.outliers(run, bulk).location == pytest.approx([5.0, 6.0], abs=1e-9)


def test_a_run_without_reorthogonalisation_is_not_counted() -> None:
    run = rm.lanczos(goe(60, 1), steps=20, probes=2, reorthogonalize="none")
    with pytest.raises(ValueError, match="many times; measure again with reorthogonalize='full'"):
        rm.outliers(run, rm.Semicircle())


# ---- compare


def rows(comparison: Comparison) -> dict[str, Row]:
    return {row.quantity: row for row in comparison.rows}


def test_a_row_agrees_within_three_standard_errors() -> None:
    assert Row("q", 1.0, 1.29, 0.1).verdict == "agrees"
    assert Row("q", 1.0, 1.31, 0.1).verdict == "differs"
    assert Row("q", 1.0, 0.69, 0.1).verdict == "differs"
    assert Row("q", 1.0, 1.0, float("nan")).verdict == "no error bar"
    assert Row("q", 1.0, float("nan"), 0.1).verdict == "no error bar"


def test_a_true_law_agrees_in_every_row_and_a_false_one_does_not() -> None:
    """12 matrices at seeds of their own: the errors of the edges are those between matrices."""
    verdicts: dict[str, list[str]] = {}
    for seed in range(12):
        run = rm.lanczos(goe(400, seed), steps=30, probes=6, seed=seed)
        for row in rm.compare(rm.Semicircle(), run).rows:
            verdicts.setdefault(row.quantity, []).append(row.verdict)
    names = ["mean", "second moment", "mass below 0", "left edge", "right edge"]
    assert list(verdicts) == names
    for name in names:
        assert verdicts[name].count("agrees") >= 11, name
    false = rows(rm.compare(rm.Semicircle(0.5, 0.3), run))
    assert {row.verdict for row in false.values()} == {"differs"}


def test_measured_edges_are_read_from_the_tail_of_one_cut() -> None:
    """Marchenko–Pastur of variance 1.7: not where edges and coefficients could be mixed up."""
    law = rm.MarchenkoPastur(0.3, 1.7)
    x = np.random.default_rng(1).standard_normal((4000, 1200)) * np.sqrt(1.7)
    found = rows(rm.compare(law, rm.lanczos(x.T @ x / 4000, steps=30, probes=4)))
    for name, edge in zip(("left edge", "right edge"), law.support[0], strict=True):
        assert found[name].measured == pytest.approx(edge, abs=0.1)
        assert found[name].predicted == pytest.approx(edge, abs=0.1)
        assert found[name].verdict == "agrees"
        assert 0 < found[name].error < 0.05


def test_two_cuts_have_no_tail_and_no_edges() -> None:
    values = np.concatenate([np.linspace(-3, -2, 150), np.linspace(1, 4, 150)])
    found = rows(rm.compare(rm.Semicircle(), rm.lanczos(np.diag(values), steps=40, probes=4)))
    for name in ("left edge", "right edge"):
        assert np.isnan(found[name].measured)
        assert found[name].verdict == "no error bar"


def test_fewer_than_five_steps_have_no_edges() -> None:
    found = rm.compare(rm.Semicircle(), rm.lanczos(goe(50, 1), steps=4, probes=2))
    assert set(rows(found)) == {"mean", "second moment", "mass below 0"}


@pytest.mark.parametrize("measure", [exact(goe(60, 1)), rm.lanczos(goe(60, 1), steps=9, probes=1)])
def test_without_probes_moments_have_no_error_bar(measure: DiscreteMeasure) -> None:
    found = rows(rm.compare(rm.Semicircle(), measure))
    for name in ("mean", "second moment", "mass below 0"):
        assert np.isnan(found[name].error)
        assert found[name].verdict == "no error bar"
        assert np.isfinite(found[name].measured)


def test_a_prediction_is_compared_outlier_by_outlier() -> None:
    spike = rm.spikes.additive(rm.Semicircle(), 2.0)
    prediction = rm.Prediction(400, rm.Semicircle(), (spike,), None, ("a random spike",), "theorem")
    matrix = goe(400, seed=3)
    matrix[0, 0] += 2.0
    run = rm.lanczos(matrix, steps=60, probes=8)
    found = rm.compare(prediction, run)
    assert found["outliers"].measured == found["outliers"].predicted == 1
    assert found["outlier at 2.5"].verdict == "agrees"
    assert found["outlier at 2.5"].error == pytest.approx(spike.std(400), rel=1e-3)
    assert found.agrees
    absent = rm.Prediction(400, rm.Semicircle(), (), None, ("nothing",), "theorem")
    assert rm.compare(absent, run)["outliers"].verdict == "differs"
    with pytest.raises(ValueError, match="is for a matrix of side 300, the measured one has 400"):
        rm.compare(rm.Prediction(300, rm.Semicircle(), (), None, ("x",), "theorem"), run)


def test_a_law_is_compared_with_the_bulk_of_a_deflated_run() -> None:
    matrix = goe(400, seed=3)
    matrix[0, 0] += 6.0
    run = rm.lanczos(matrix, steps=40, probes=6, deflate=1)
    found = rm.compare(rm.Semicircle(), run)
    assert found.agrees, found
    assert len(found.outliers) == 1


def test_the_mass_at_zero_has_a_row_where_the_law_has_an_atom_there() -> None:
    law = rm.MarchenkoPastur(2.5)
    found = rm.compare(law, exact(wishart(250, 100, seed=1)))
    assert found["mass at 0"].predicted == pytest.approx(0.6)
    assert found["mass at 0"].measured == pytest.approx(0.6)


def test_residuals_are_within_their_errors_for_a_true_law_and_not_for_a_false_one() -> None:
    run = rm.lanczos(goe(800, seed=4), steps=30, probes=12)
    true = rm.compare(rm.Semicircle(), run).residuals
    inside = np.abs(true.x) < 1.8
    assert np.mean(np.abs(true.density[inside]) < 3 * true.density_error[inside]) > 0.9
    false = rm.compare(rm.Semicircle(1.4), run).residuals
    inside = np.abs(false.x) < 1.8
    assert np.mean(np.abs(false.density[inside]) < 3 * false.density_error[inside]) < 0.6


def test_residuals_of_the_cdf_of_a_true_law_have_no_sawtooth() -> None:
    """Theory's own Gauss rule, shown as its measurement: 0. A matrix's: 30 steps of 1/30 are gone.

    Side 800, 12 probes: the cdf of the average is uncertain by √(1/4/800/12) = 0.005.
    """
    law = rm.MarchenkoPastur(0.43, 1.7)
    a, b = law.jacobi(30)
    shown = LanczosMeasure(a[None], b[None], [0.0], 10**9)
    assert np.abs(rm.compare(law, shown).residuals.cdf).max() < 1e-9
    run = rm.lanczos(goe(800, seed=4), steps=30, probes=12)
    assert np.abs(rm.compare(rm.Semicircle(), run).residuals.cdf).max() < 0.02


def test_a_window_leaves_the_outliers_out_of_a_comparison() -> None:
    matrix = goe(400, seed=3)
    matrix[[0, 1], [0, 1]] += 6.0
    for measure in (exact(matrix), rm.lanczos(matrix, steps=40, probes=6)):
        whole = rm.compare(rm.Semicircle(), measure)
        inside = rm.compare(rm.Semicircle(), measure, window=(-3.0, 3.0))
        assert inside.wasserstein < 0.8 * whole.wasserstein
        assert inside["second moment"].measured == pytest.approx(1.0, abs=0.05)
        assert whole["second moment"].measured > 1.1
        assert len(inside.outliers) == 2
    assert inside.agrees, inside
    prediction = rm.Prediction(400, rm.Semicircle(), (), None, ("x",), "theorem")
    with pytest.raises(ValueError, match=r"window=\(-3, 3\) is for a law"):
        rm.compare(prediction, measure, window=(-3, 3))
    with pytest.raises(ValueError, match=r"window must be \(left, right\)"):
        rm.compare(rm.Semicircle(), exact(matrix), window=(3.0, -3.0))


def test_the_error_of_the_distance_is_its_scatter_over_seeds() -> None:
    matrix = goe(300, seed=5)
    law = rm.Semicircle(1.3)
    found = [rm.compare(law, rm.lanczos(matrix, steps=20, probes=8, seed=s)) for s in range(12)]
    scatter = np.std([each.wasserstein for each in found], ddof=1)
    stated = np.mean([each.wasserstein_error for each in found])
    assert 0.5 < stated / scatter < 2


def test_a_sequence_is_compared_one_by_one() -> None:
    runs = {f"side {dim}": rm.lanczos(goe(dim, 1), steps=20, probes=4) for dim in (100, 200)}
    found = rm.compare_each(runs, rm.Semicircle())
    assert list(found) == ["side 100", "side 200"]
    fitted = rm.compare_each(list(runs.values()), lambda m: rm.Semicircle(m.moment(2)))
    assert list(fitted) == ["0", "1"]
    assert fitted["0"]["mean"].predicted == 0
    with pytest.raises(ValueError, match="nothing to compare"):
        rm.compare_each({}, rm.Semicircle())


def test_a_comparison_is_a_table_in_a_notebook() -> None:
    page = rm.compare(rm.Semicircle(), exact(goe(40, 1)))._repr_html_()
    assert page.count("<tr>") == 4
    assert "Semicircle(variance=1" in page
    with pytest.raises(KeyError, match="no row 'rank'; there are"):
        rm.compare(rm.Semicircle(), exact(goe(40, 1)))["rank"]


def test_rows_and_distances_are_those_of_the_measures() -> None:
    values = np.array([-1.7, 0.43, 0.9, 2.0])
    law, measure = rm.Semicircle(0.8, 0.4), DiscreteMeasure.from_eigenvalues(values)
    found = rm.compare(law, measure)
    assert found.law is law
    expected = {
        "mean": (0.4, values.mean()),
        "second moment": (0.8 + 0.4**2, (values**2).mean()),
        "mass below 0": (float(law.cdf(0.0)), 0.25),
    }
    for name, (predicted, measured) in expected.items():
        row = rows(found)[name]
        assert (row.predicted, row.measured) == (pytest.approx(predicted), pytest.approx(measured))
    fine = np.linspace(-3, 3, 600_001)
    gap = np.abs(law.cdf(fine) - measure.cdf(fine))
    assert found.kolmogorov == pytest.approx(gap.max(), abs=1e-4)
    assert found.wasserstein == pytest.approx(gap.sum() * 1e-5, rel=1e-3)


def test_zeros_that_rounding_made_negative_are_not_below_zero() -> None:
    matrix = wishart(250, 100, seed=1)
    assert (np.linalg.eigvalsh(matrix) < 0).any()
    for measure in (exact(matrix), rm.lanczos(matrix, steps=60, probes=2)):
        row = rows(rm.compare(rm.MarchenkoPastur(2.5), measure))["mass below 0"]
        assert row.predicted == 0
        assert row.measured == pytest.approx(0, abs=1e-7)  # what 60 steps leave open


def test_a_comparison_prints_as_a_table() -> None:
    found = rm.compare(rm.Semicircle(), rm.lanczos(goe(300, 2), steps=30, probes=4))
    head, titles, *lines = str(found).splitlines()
    assert head.startswith("Semicircle(variance=1, mean=0): W1 ")
    assert titles.split() == ["quantity", "predicted", "measured", "error", "verdict"]
    assert len(lines) == len(found.rows) == 5
    for line, row in zip(lines, found.rows, strict=True):
        assert line.startswith(row.quantity)
        assert line.endswith(row.verdict)
        assert len(line.removesuffix(row.verdict)) == len(titles.removesuffix("verdict"))
