"""Inertia of a measured spectrum: right where it answers, and silent where it cannot know."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import rmthess as rm
from rmthess.metrics import inertia

Array = NDArray[np.float64]


def spectrum(dim: int, rank: int, smallest: float, seed: int = 0) -> Array:
    """``rank`` eigenvalues of either sign with sizes from ``smallest`` to 1, and zeros."""
    rng = np.random.default_rng(seed)
    sizes = np.concatenate([[1.0, smallest], rng.uniform(smallest, 1, rank - 2)])
    return np.concatenate(
        [sizes * rng.choice([-1.0, 1.0], rank, p=[0.4, 0.6]), np.zeros(dim - rank)]
    )


def truth(values: Array) -> Array:
    return np.array([(values < 0).sum(), (values == 0).sum(), (values > 0).sum()])


def measured(values: Array, steps: int, probes: int = 8) -> rm.LanczosMeasure:
    return rm.lanczos(np.diag(values), steps=steps, probes=probes)


@pytest.mark.parametrize(
    ("dim", "rank", "smallest", "steps"),
    [(300, 40, 0.05, 40), (200, 100, 0.1, 80), (200, 200, 0.2, 20), (324, 240, 2e-3, 250)],
)
def test_lanczos_counts_within_its_errors_where_zero_stands_apart(
    dim: int, rank: int, smallest: float, steps: int
) -> None:
    values = spectrum(dim, rank, smallest)
    found = inertia(measured(values, steps))
    counts = np.array([found.negative, found.null, found.positive], float)
    assert (np.abs(counts - truth(values)) <= 4 * np.array(found.errors) + 1e-9).all(), found
    assert counts.sum() == pytest.approx(dim)
    assert max(found.errors) < 0.05 * dim


@pytest.mark.parametrize(
    ("dim", "rank", "smallest", "steps"),
    [
        (1000, 800, 3e-4, 160),  # counting small Ritz values calls this one full rank
        (1000, 1000, 3e-4, 160),
        (324, 240, 2e-3, 20),
        (324, 240, 2e-3, 40),
        (200, 200, 1e-3, 80),
    ],
)
def test_it_cannot_be_decided_where_small_eigenvalues_and_zeros_look_alike(
    dim: int, rank: int, smallest: float, steps: int
) -> None:
    found = inertia(measured(spectrum(dim, rank, smallest), steps))
    assert (found.negative, found.null, found.positive) == (None, None, None)
    assert "cannot be decided at this resolution" in str(found)
    assert f"after {steps} steps" in found.doubt


@pytest.mark.parametrize("steps", [20, 80, 160, 320])
@pytest.mark.parametrize("seed", range(5))
def test_no_answer_is_wrong_at_any_number_of_steps(steps: int, seed: int) -> None:
    values = spectrum(200, 140, 10.0 ** -(1 + seed / 2), seed)
    found = inertia(measured(values, steps))
    if found.null is not None:
        counts = np.array([found.negative, found.null, found.positive], float)
        assert (np.abs(counts - truth(values)) <= 4.5 * np.array(found.errors) + 1e-9).all(), found


def test_the_null_count_is_at_most_the_weight_that_fits_at_zero() -> None:
    values = spectrum(400, 250, 1e-3)
    most = [inertia(measured(values, steps)).most_null for steps in (10, 20, 40, 80, 160)]
    assert (np.diff(most) < 0).all()
    assert most[-1] > 150 - 4 * np.sqrt(2 * 150 * 250 / 400 / 8)


def test_after_a_breakdown_the_counts_have_the_error_of_the_probes_alone() -> None:
    values = np.repeat([-1.0, 0.0, 2.0], [10, 25, 15])
    found = inertia(measured(values, 10, probes=400))
    assert found.null == pytest.approx(25, abs=4 * found.errors[1])
    assert found.errors[1] == pytest.approx(np.sqrt(2 * 25 * 25 / 52 / 400), rel=0.2)


def test_a_definite_matrix_has_no_negative_eigenvalue() -> None:
    found = inertia(measured(np.linspace(1, 2, 100), 30))
    assert (found.negative, found.null) == pytest.approx((0, 0), abs=1e-6)
    assert found.positive == pytest.approx(100)
    assert str(found).endswith("null is exactly 0")


def test_one_probe_has_no_error() -> None:
    assert np.isnan(inertia(measured(spectrum(100, 20, 0.2), 60, probes=1)).errors).all()


def test_all_eigenvalues_are_counted_exactly() -> None:
    values = spectrum(100, 60, 1e-3)
    found = inertia(rm.DiscreteMeasure.from_eigenvalues(values + 1e-17))
    assert [found.negative, found.null, found.positive] == truth(values).tolist()
    assert found.errors == (0, 0, 0)
    assert "± 0" not in str(found)


def test_eigenvalues_without_a_gap_are_undecided() -> None:
    found = inertia(rm.DiscreteMeasure.from_eigenvalues(np.logspace(0, -16, 30)))
    assert found.null is None
    assert "the widest gap" in found.doubt


def test_a_linear_network_has_the_inertia_of_its_closed_forms() -> None:
    """The signature of the functional part, and the null count of the Hessian."""
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=(3, 6)), rng.normal(size=(7, 3)), rng.normal(size=(5, 7))]
    bound = rm.linear_network_rank([6, 3, 7, 5])
    X, g = rng.normal(size=(30, 6)), rng.normal(size=(30, 5))
    space = rm.null_space(weights, X, g)
    # The projector on what is not null, seen by Lanczos: two eigenvalues, exact after two steps.
    projector = np.eye(space.parameters) - space.project(np.eye(space.parameters))
    found = inertia(rm.lanczos(projector, steps=6, probes=200))
    assert found.null == pytest.approx(bound.nullity, abs=4 * found.errors[1])


def test_weighted_nodes_and_laws_have_no_eigenvalues_to_count() -> None:
    with pytest.raises(ValueError, match="no eigenvalues to count"):
        inertia(rm.DiscreteMeasure([0.0, 1.0], [0.25, 0.75], dim=4))
    with pytest.raises(TypeError, match=r"got Semicircle; .* law\.atoms"):
        inertia(rm.Semicircle())  # type: ignore[arg-type]
