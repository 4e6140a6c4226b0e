"""Edges and density straight from Lanczos coefficients, against laws that are known."""

from __future__ import annotations

import re

import numpy as np
import pytest
from chains import run_of

import rmthess as rm
from rmthess import jacobi
from rmthess.smoothing import smooth

SIDE, STEPS, PROBES = 2000, 64, 8
THIRDS = np.full(3, 1 / 3)
TWO = rm.DiscreteMeasure([-1.0, 1.0], [0.5, 0.5])
ONE_CUT = {
    "semicircle": rm.Semicircle(1.3, 0.4),
    "marchenko_pastur": rm.MarchenkoPastur(0.4, 1.7),
    "nearly_square": rm.MarchenkoPastur(0.9, 1.7),
    "three_variances": rm.SampleCovariance(0.5, rm.DiscreteMeasure([1.0, 1.5, 3.0], THIRDS)),
    "two_bumps": rm.DeformedWigner(TWO, 1.5),
    "wachter": rm.Wachter(0.3, 0.4),
}


def runs(law, seeds):
    """One Lanczos run a matrix of the law; without a tridiagonal model, of one with its quantiles
    for eigenvalues, which in a random one stray by 1/SIDE only."""
    chains, levels = [], (np.arange(SIDE) + 0.5) / SIDE
    nodes = None if law.ensemble is not None else law.quantile(levels)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        if nodes is None:
            chains.append(law.sample_jacobi(STEPS + 1, SIDE, rng, PROBES))
            continue
        weights = rng.standard_normal((PROBES, SIDE)) ** 2
        pairs = [jacobi.from_quadrature(nodes, w / w.sum(), STEPS + 1) for w in weights]
        chains.append(tuple(np.array([pair[k] for pair in pairs]) for k in (0, 1)))
    return [run_of(a, b, SIDE) for a, b in chains]


def grid(law):
    (left, _), (_, right) = law.support[0], law.support[-1]
    width = float(right - left)
    return np.linspace(left - 0.1 * width, right + 0.1 * width, 2001), width


@pytest.mark.parametrize("name", ONE_CUT)
def test_edges_and_density_of_a_one_cut_bulk(name):
    """Median over matrices: edges within 1% of the width; the density's L1 error below that of the
    best of six Gaussian smoothings of the same run, chosen with the truth in hand."""
    law = ONE_CUT[name]
    x, width = grid(law)
    step, truth = x[1] - x[0], law.density(x)
    gaps, scores, ours, best = [], [], [], []
    for measure in runs(law, 10):
        found = rm.bulk(measure)
        assert found.converged, found.message
        ends = np.array([law.support[0][0], law.support[-1][1]])
        gaps.append(np.abs(found.edges - ends) / width)
        scores.append((found.edges - ends) / found.errors)
        ours.append(np.sum(np.abs(found.density(x) - truth)) * step)
        best.append(
            min(
                np.sum(np.abs(smooth(measure, x, share * width) - truth)) * step
                for share in (0.01, 0.02, 0.03, 0.045, 0.06, 0.08)
            )
        )
    assert np.median(gaps, axis=0).max() < 0.01
    assert np.median(ours) < np.median(best)
    assert np.sqrt(np.mean(np.square(scores))) < 2  # errors of the right size; bias included


@pytest.mark.parametrize(
    ("law", "sentence"),
    [
        (rm.DeformedWigner(TWO, 0.1), "not one-cut: the coefficients scatter"),
        (
            rm.SampleCovariance(0.1, rm.DiscreteMeasure([1.0, 10.0], [0.5, 0.5])),
            "not one-cut: the coefficients scatter|still drift",
        ),
        (
            rm.SampleCovariance(
                0.5,
                rm.DiscreteMeasure.from_quantiles(lambda p: (1 - p) ** -1.5, 500),
            ),
            "not converged: the coefficients still drift",
        ),
    ],
    ids=["two intervals", "two far intervals", "power law"],
)
def test_two_cuts_and_heavy_tails_are_refused(law, sentence):
    for measure in runs(law, 3):
        found = rm.bulk(measure)
        assert not found.converged
        assert np.isnan([*found.edges, *found.errors]).all()
        assert np.isnan(found.density(np.array([0.0, 1.0]))).all()
        assert re.search(sentence, str(found))


def test_the_density_has_nearly_all_mass():
    for measure in runs(ONE_CUT["three_variances"], 5):
        found = rm.bulk(measure)
        x = np.linspace(*found.edges, 20001)
        assert np.trapezoid(found.density(x), x) == pytest.approx(1, abs=0.02)


def test_a_large_matrix_and_a_short_run_are_no_drift():
    """Side 500 000: k/dim is far below the noise of the slope."""
    a, b = rm.Semicircle().sample_jacobi(30, 500_000, np.random.default_rng(0), 2)
    assert rm.bulk(rm.LanczosMeasure(a, b, np.zeros(2), 500_000)).converged


def test_deflated_outliers_are_not_looked_at():
    (measure,) = runs(ONE_CUT["semicircle"], 1)
    more = rm.LanczosMeasure(
        measure.diagonals, measure.off_diagonals, measure.residuals, SIDE + 1, deflated=[50.0]
    )
    assert rm.bulk(more).edges == rm.bulk(measure).edges


def test_the_error_of_the_density_is_its_scatter():
    x = np.linspace(-1, 1.8, 15)
    found = [rm.bulk(measure) for measure in runs(ONE_CUT["semicircle"], 30)]
    depths = [bulk.depth for bulk in found]
    kept = [bulk for bulk in found if bulk.depth == max(depths, key=depths.count)]
    assert len(kept) > 10
    scatter = np.std([bulk.density(x) for bulk in kept], axis=0).mean()
    stated = np.mean([bulk.density_error(x) for bulk in kept])
    # with no step kept the density depends on the ends alone, which the jackknife holds fixed
    assert stated < 2 * scatter


def test_what_is_no_lanczos_run_is_refused():
    with pytest.raises(TypeError, match="bulk reads Lanczos coefficients, got DiscreteMeasure"):
        rm.bulk(rm.DiscreteMeasure.from_eigenvalues([1.0, 2.0]))
    a, b = rm.Semicircle().sample_jacobi(10, 500, np.random.default_rng(0), 2)
    short = rm.bulk(rm.LanczosMeasure(a, b, np.zeros(2), 500))
    assert "not converged: 9 steps before a breakdown, 16 are needed" in str(short)
