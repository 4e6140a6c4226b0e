"""A plot draws the measure itself: areas, coefficients, convolutions; and leaves the rest alone."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.stats import norm

import rmthess as rm
from rmthess.measure import DiscreteMeasure, LanczosMeasure
from rmthess.plots import (
    plot,
    plot_fit,
    plot_jacobi,
    plot_jacobi_residuals,
    plot_quantiles,
    plot_residuals,
    plot_ritz,
    plot_row,
    plot_rows,
)
from rmthess.predictions.prediction import Prediction
from rmthess.smoothing import smooth


def axes() -> Axes:
    return Figure().subplots()


def data(line: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def area(line: Any) -> float:
    x, y = data(line)
    return float(np.trapezoid(y, x))


def goe(dim: int, seed: int) -> np.ndarray:
    a = np.random.default_rng(seed).standard_normal((dim, dim))
    return (a + a.T) / np.sqrt(2 * dim)


EXACT = DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(goe(150, 1)))
RUN = rm.lanczos(goe(150, 1), steps=30, probes=4)
LAWS = [
    rm.Semicircle(1.7, 0.43),
    rm.MarchenkoPastur(0.43, 1.7),
    rm.MarchenkoPastur(2.7, 0.43),
    rm.MarchenkoPastur(0.98),
]


# ---- manners


@pytest.mark.parametrize(
    "draw",
    [
        plot,
        plot_jacobi,
        plot_ritz,
        lambda run, ax: plot_fit(run, rm.Semicircle(), ax=ax),
        lambda run, ax: plot_quantiles(run, rm.Semicircle(), ax=ax),
        lambda run, ax: plot_jacobi_residuals(run, rm.Semicircle(), ax=ax),
    ],
)
def test_the_axes_given_are_drawn_on_and_returned(draw: Any) -> None:
    ours = axes()
    assert draw(RUN, ax=ours) is ours
    assert ours.has_data()
    assert ours.get_xlabel()
    assert ours.get_ylabel()


def test_without_axes_there_is_a_new_figure_that_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda *a, **k: pytest.fail("show was called"))
    monkeypatch.setattr(Figure, "show", lambda *a, **k: pytest.fail("show was called"))
    before = pyplot.get_fignums()
    try:
        first, second = plot(EXACT), plot_jacobi(RUN)
        assert len(pyplot.get_fignums()) == len(before) + 2
        assert first.figure is not second.figure
    finally:
        for number in set(pyplot.get_fignums()) - set(before):
            pyplot.close(number)


def test_no_setting_of_matplotlib_changes() -> None:
    before = dict(matplotlib.rcParams)
    plot(EXACT, RUN, LAWS[0], ax=axes(), width=0.1, labels=("a", "b", "c"))
    plot(HEAVY, ax=axes(), axis="log")
    plot_jacobi(RUN, LAWS[0], ax=axes())
    plot_fit(RUN, LAWS[0], ax=axes())
    plot_ritz(RUN, ax=axes())
    plot_rows({"a": COMPARED}, ax=axes())
    assert dict(matplotlib.rcParams) == before


def test_on_given_axes_neither_pyplot_nor_a_display_is_needed() -> None:
    code = (
        "import sys, rmthess as rm\n"
        "from matplotlib.figure import Figure\n"
        "from rmthess.plots import plot_jacobi\n"
        "m = rm.DiscreteMeasure.from_eigenvalues([1.0, 2.0, 4.0])\n"
        "ax = rm.plot(m, rm.Semicircle(), ax=Figure().subplots())\n"
        "plot_jacobi(m, ax=Figure().subplots())\n"
        "ax.figure.savefig(sys.argv[1], format='svg')\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
        "rm.plot(m).figure.canvas.draw()\n"
    )
    bare = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    bare.pop("MPLBACKEND", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, os.devnull],
        capture_output=True, text=True, env=bare, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# ---- densities


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_curve_of_a_law_has_its_continuous_mass_and_its_atoms_stand_beside(law: Any) -> None:
    curve, *stems = plot(law, ax=axes()).lines
    atoms = sum(mass for _, mass in law.atoms)
    assert area(curve) == pytest.approx(1 - atoms, abs=1e-4)
    x, y = data(curve)
    assert (np.diff(x) >= 0).all()
    assert (y[0], y[-1]) == (0, 0)
    middle = len(x) // 2
    assert y[middle] == pytest.approx(float(law.stieltjes(x[middle] + 1e-12j).imag) / np.pi)
    assert [data(stem)[1].max() for stem in stems] == [mass for _, mass in law.atoms]
    assert [data(stem)[0][0] for stem in stems] == [location for location, _ in law.atoms]


def enclosed(ours: Axes) -> float:
    """The area of the histogram, by the shoelace formula; 0 where there is none."""
    if not ours.patches:
        return 0.0
    outline = ours.patches[0].get_path().vertices
    x, y = outline[:, 0], outline[:, 1]
    return float(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2)


def stems(ours: Axes) -> dict[float, float]:
    return {float(data(line)[0][0]): float(data(line)[1].max()) for line in ours.lines}


@pytest.mark.parametrize("values", [EXACT.nodes, np.geomspace(1e-8, 1, 50), 1e6 + EXACT.nodes])
def test_a_histogram_has_area_one(values: Any) -> None:
    ours = plot(DiscreteMeasure.from_eigenvalues(values), ax=axes())
    assert stems(ours) == {}
    assert enclosed(ours) == pytest.approx(1.0, abs=1e-9)


def test_what_coincides_is_a_stem_and_the_rest_keeps_its_mass() -> None:
    half = plot(DiscreteMeasure.from_eigenvalues([*EXACT.nodes, *np.full(150, 0.1)]), ax=axes())
    ((location, mass),) = stems(half).items()
    assert (location, mass) == (pytest.approx(0.1), pytest.approx(0.5))
    assert enclosed(half) == pytest.approx(0.5, abs=1e-9)
    for values, expected in (
        ([2.0, 2.0], {2.0: 1.0}),
        ([0.0], {0.0: 1.0}),
        ([1.0, 3.0, 3.0], {1.0: 1 / 3, 3.0: 2 / 3}),
    ):
        ours = plot(DiscreteMeasure.from_eigenvalues(values), ax=axes())
        assert stems(ours) == pytest.approx(expected)
        assert enclosed(ours) == 0


def test_a_histogram_counts_weights_and_not_nodes() -> None:
    nodes, weights = np.linspace(0, 1, 400), np.repeat([0.9 / 200, 0.1 / 200], 200)
    outline = plot(DiscreteMeasure(nodes, weights), ax=axes()).patches[0].get_path().vertices
    x, y = outline[:, 0], outline[:, 1]
    assert y[(x > 0.1) & (x < 0.4)].max() == pytest.approx(1.8, rel=0.06)
    assert y[(x > 0.6) & (x < 0.9)].max() == pytest.approx(0.2, rel=0.06)


@pytest.mark.parametrize("measure", [EXACT, RUN, *LAWS[:3]], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("width", [0.3, 0.002])
def test_a_smoothed_curve_is_the_convolution_with_a_gaussian_of_area_one(
    measure: Any, width: float
) -> None:
    line = plot(measure, ax=axes(), width=width).lines[0]
    x, y = data(line)
    beyond = 2 * norm.sf(4)  # the tails that are not drawn, if all mass were at the ends
    assert area(line) == pytest.approx(1, abs=beyond + 1e-6)
    for k in np.linspace(0, len(x) - 1, 7).astype(int):
        if isinstance(measure, rm.Law):
            (a, b), atoms = measure.support[0], measure.atoms
            near = max(a, x[k] - 10 * width), min(b, x[k] + 10 * width)
            expected = sum(mass * norm.pdf(x[k], at, width) for at, mass in atoms)
            if near[0] < near[1]:
                expected += quad(
                    lambda t, at=x[k]: measure.density(t) * norm.pdf(at, t, width), *near,
                    epsabs=1e-9, limit=400,
                )[0]  # fmt: skip
        else:
            rules = measure.quadratures() if isinstance(measure, LanczosMeasure) else [measure]
            sums = [norm.pdf(x[k], rule.nodes, width) @ rule.weights for rule in rules]
            expected = np.mean(sums)
        assert y[k] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_lanczos_is_drawn_at_its_resolution_with_a_band_of_one_standard_error() -> None:
    ours = plot(RUN, ax=axes())
    x, y = data(ours.lines[0])
    np.testing.assert_allclose(y, smooth(RUN, x, RUN.resolution), rtol=1e-12)
    each = np.array([smooth(rule, x, RUN.resolution) for rule in RUN.quadratures()])
    error = each.std(axis=0, ddof=1) / np.sqrt(4)
    band = ours.collections[0].get_paths()[0].vertices
    at = len(x) // 3
    here = np.sort(band[np.isclose(band[:, 0], x[at]), 1])[[0, -1]]
    np.testing.assert_allclose(here, [y[at] - error[at], y[at] + error[at]], rtol=1e-9)
    one = rm.lanczos(goe(80, 2), steps=10, probes=1)
    assert not plot(one, ax=axes()).collections  # one probe has no error to draw


def test_labels_name_the_measures_and_default_to_what_they_are() -> None:
    def legend(ours: Axes) -> list[str]:
        return [text.get_text() for text in ours.get_legend().get_texts()]

    assert set(legend(plot(RUN, EXACT, rm.Semicircle(0.25), ax=axes()))) == {
        "Lanczos, 4 × 30 steps", "150 eigenvalues", "Semicircle(variance 0.25, mean 0)"
    }  # fmt: skip
    assert legend(plot(RUN, ax=axes(), labels=("mine",))) == ["mine"]
    assert plot(RUN, ax=axes()).get_legend() is None


# ---- coefficients


def test_jacobi_lines_are_the_probe_average_of_a_plus_and_minus_2b() -> None:
    upper, lower = plot_jacobi(RUN, ax=axes()).lines
    a, b = RUN.diagonals[:, :-1].mean(axis=0), RUN.off_diagonals.mean(axis=0)
    np.testing.assert_array_equal(data(upper)[0], np.arange(29))
    np.testing.assert_allclose(data(upper)[1], a + 2 * b, rtol=1e-12)
    np.testing.assert_allclose(data(lower)[1], a - 2 * b, rtol=1e-12)
    shorter = plot_jacobi(RUN, ax=axes(), steps=7).lines[0]
    np.testing.assert_allclose(data(shorter)[1], (a + 2 * b)[:6], rtol=1e-12)


def test_jacobi_bands_are_one_standard_error_over_probes() -> None:
    upper, _ = plot_jacobi(RUN, ax=axes()).collections
    edge = RUN.diagonals[:, 4] + 2 * RUN.off_diagonals[:, 4]
    error = edge.std(ddof=1) / 2
    band = upper.get_paths()[0].vertices
    here = np.sort(band[band[:, 0] == 4, 1])[[0, -1]]
    np.testing.assert_allclose(here, [edge.mean() - error, edge.mean() + error], rtol=1e-9)


def test_a_law_is_drawn_as_its_ensemble_at_the_side_of_the_matrix() -> None:
    """b_k of the Gaussian orthogonal ensemble: E χ(dim - 1 - k)/√dim, not the limit 1."""
    from scipy.special import gammaln

    lines = plot_jacobi(RUN, rm.Semicircle(0.43, 1.7), ax=axes()).lines
    freedom = 150 - 1 - np.arange(29)
    chi = np.sqrt(2) * np.exp(gammaln((freedom + 1) / 2) - gammaln(freedom / 2))
    half = 2 * np.sqrt(0.43) * chi / np.sqrt(150)
    np.testing.assert_allclose(data(lines[2])[1], 1.7 + half, rtol=1e-9)
    np.testing.assert_allclose(data(lines[3])[1], 1.7 - half, rtol=1e-9)
    sideless = DiscreteMeasure(EXACT.nodes, EXACT.weights)
    limit = plot_jacobi(sideless, rm.Semicircle(0.43, 1.7), ax=axes()).lines[2]
    np.testing.assert_allclose(data(limit)[1], 1.7 + 2 * np.sqrt(0.43), rtol=1e-12)


def test_a_list_of_eigenvalues_is_drawn_by_its_own_coefficients() -> None:
    upper = plot_jacobi(EXACT, ax=axes(), steps=10).lines[0]
    a, b = EXACT.jacobi(10)
    np.testing.assert_allclose(data(upper)[1], a[:-1] + 2 * b, rtol=1e-12)


def test_a_run_that_broke_down_is_drawn_up_to_there() -> None:
    run = rm.lanczos(np.diag([1.0, 1.0, 2.0, 4.0]), steps=10, probes=2)
    y = data(plot_jacobi(run, rm.Semicircle(), ax=axes()).lines[0])[1]
    assert np.isfinite(y).sum() == 2
    assert area(plot(run, ax=axes()).lines[0]) == pytest.approx(1, abs=1e-4)


# ---- bad input


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plot(), "at least one measure"),
        (lambda: plot(EXACT, width=0.0), "width must be positive, got 0.0"),
        (lambda: plot(EXACT, width=float("nan")), "width must be positive, got nan"),
        (lambda: plot(EXACT, RUN, labels=("one",)), "2 measures need as many labels, got 1"),
        (lambda: smooth(EXACT, [0.0], -1.0), "width must be positive, got -1.0"),
        (lambda: plot_jacobi(RUN, steps=0), "steps must be an integer of at least 2, got 0"),
        (lambda: plot_jacobi(RUN, steps=-3), "steps must be an integer of at least 2, got -3"),
        (lambda: plot_jacobi(RUN, LAWS[0], labels=("a",)), "1 laws need as many labels, got 1"),
    ],
)
def test_bad_input_is_refused_before_a_figure_is_made(call: Any, sentence: str) -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    with pytest.raises(ValueError, match=sentence):
        call()
    assert pyplot.get_fignums() == before


def test_a_list_of_numbers_is_no_measure() -> None:
    with pytest.raises(TypeError, match=r"got list; DiscreteMeasure\.from_eigenvalues"):
        plot([1.0, 2.0], ax=axes())


# ---- a measurement beside theory


def test_a_fit_shows_both_at_one_resolution_and_the_law_itself() -> None:
    law = rm.Semicircle()
    measured, resolved, exact = plot_fit(RUN, law, ax=axes()).lines
    for line, of in ((measured, RUN), (resolved, law)):
        x, y = data(line)
        np.testing.assert_allclose(y, smooth(of, x, RUN.resolution), rtol=1e-9, atol=1e-12)
    x, y = data(exact)
    np.testing.assert_allclose(y, law.density(x), atol=1e-12)
    assert exact.get_linestyle() == ":"


def test_a_prediction_shows_its_outliers_on_the_axis() -> None:
    spikes = (rm.spikes.additive(rm.Semicircle(), 2.0), rm.spikes.additive(rm.Semicircle(), 0.5))
    theory = Prediction(150, rm.Semicircle(), spikes, None, ("a spike",), "theorem")
    ours = plot_fit(RUN, theory, ax=axes())
    (marks,) = [line for line in ours.lines if line.get_label() == "predicted outliers"]
    np.testing.assert_allclose(data(marks)[0], [2.5])  # 2 + 1/2; the other one is absorbed


def test_a_deflated_run_is_held_against_a_law_without_what_was_taken_out() -> None:
    u = np.ones((150, 1)) / np.sqrt(150)
    run = rm.lanczos(goe(150, 1) + 9 * u * u.T, steps=20, probes=3, deflate=1)
    ends = data(plot_fit(run, rm.Semicircle(), ax=axes()).lines[0])[0][[0, -1]]
    assert ends[1] < 4 < run.deflated[0]
    lines = plot_jacobi(run, rm.Semicircle(), ax=axes()).lines
    b = rm.Semicircle().mean_jacobi(20, 149)[1]
    np.testing.assert_allclose(data(lines[2])[1], 2 * b, rtol=1e-12)


# ---- the logarithmic axis


HEAVY = DiscreteMeasure.from_eigenvalues(
    np.concatenate([np.geomspace(1e-6, 10, 600), -np.geomspace(1e-5, 0.1, 300), np.zeros(100)])
)


def test_mass_per_decade_of_both_sides_and_what_is_left_out() -> None:
    """600 of 1000 over 7 decades upwards, 300 over 4 downwards, and a tenth at zero is stated."""
    ours = plot(HEAVY, ax=axes(), axis="log")
    heights = [np.asarray(patch.get_path().vertices)[:, 1] for patch in ours.patches]
    assert np.median(heights[0][heights[0] > 0]) == pytest.approx(0.6 / 7, rel=0.1)
    assert np.median(heights[1][heights[1] < 0]) == pytest.approx(-0.3 / 4, rel=0.1)
    (text,) = ours.get_legend().get_texts()
    assert "(0.1 of it within" in text.get_text()
    assert ours.get_xscale() == "log"
    assert ours.get_ylabel() == "mass per decade"


def test_a_run_is_drawn_from_its_floor_on_and_its_curve_has_the_resolved_mass() -> None:
    run = rm.lanczos(np.diag(HEAVY.nodes), steps=60, probes=4)
    found = rm.log_spectrum(run)
    x, y = data(plot(run, ax=axes(), axis="log", width=0.02).lines[0])
    assert x[0] >= found.floor * (1 - 1e-12)
    assert float(np.trapezoid(y, np.log10(x))) == pytest.approx(found.above, abs=0.02)


def test_a_law_on_the_log_axis_is_its_density_times_lambda_log_10() -> None:
    law = rm.MarchenkoPastur(0.43, 1.7)
    x, y = data(plot(law, ax=axes(), axis="log").lines[0])
    np.testing.assert_allclose(y, law.density(x) * x * np.log(10), atol=1e-9)
    mirrored = plot(law.dilate(-1), rm.Semicircle(), ax=axes(), axis="log", floor=1e-3)
    assert min(data(line)[1].min() for line in mirrored.lines) < -0.1


# ---- Ritz values


def test_a_rug_has_a_tick_for_each_ritz_value_and_a_bar_to_its_bound() -> None:
    bars, ticks, known = plot_ritz(RUN, ax=axes()).lines
    ends = data(bars)[0].reshape(-1, 3)[:, :2]
    np.testing.assert_allclose(ends.mean(axis=1), RUN.nodes.ravel(), atol=1e-12)
    np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, RUN.errors.ravel(), atol=1e-12)
    assert len(data(ticks)[0]) + len(data(known)[0]) == 3 * RUN.nodes.size


def test_a_converged_tick_is_an_eigenvalue() -> None:
    _, _, known = plot_ritz(rm.lanczos(np.diag([*np.linspace(0, 1, 90), 5.0]), steps=15),
                            ax=axes()).lines  # fmt: skip
    found = np.unique(data(known)[0][::3].round(8))
    assert 5.0 in found


def test_a_hundred_thousand_deflated_eigenvalues_are_few_ticks() -> None:
    run = LanczosMeasure([[0.0, 0.0]], [[1.0]], [0.5], 200_000, {}, np.linspace(5, 9, 100_000))
    assert max(len(data(line)[0]) for line in plot_ritz(run, ax=axes()).lines) < 4000


# ---- quantiles


def test_the_quantiles_of_a_law_seen_by_its_own_gauss_rule_lie_on_the_diagonal() -> None:
    law = rm.MarchenkoPastur(0.43, 1.7)
    a, b = law.jacobi(40)
    run = LanczosMeasure([a], [b], [0.0], dim=1000)
    x, y = data(plot_quantiles(run, law, ax=axes()).lines[0])
    assert len(x) > 150
    np.testing.assert_allclose(x, y, atol=0.01)  # the mid-step cdf errs by less than a step
    x, y = data(plot_quantiles(run, law, ax=axes(), axis="log").lines[0])
    np.testing.assert_allclose(np.log10(x), np.log10(y), atol=0.01)


def test_levels_are_those_of_exact_eigenvalues() -> None:
    x, y = data(plot_quantiles(EXACT, rm.Semicircle(), ax=axes()).lines[0])
    p = np.arange(1, 200) / 200
    np.testing.assert_allclose(y, np.interp(p, (np.arange(150) + 0.5) / 150, EXACT.nodes))
    np.testing.assert_allclose(x, rm.Semicircle().quantile(p))


# ---- residuals and sequences


COMPARED = rm.compare(rm.Semicircle(), RUN)


@pytest.mark.parametrize("of", ["density", "cdf"])
def test_residuals_are_those_of_the_comparison_in_three_standard_errors(of: Any) -> None:
    ours = plot_residuals(COMPARED, of, ax=axes())
    found = COMPARED.residuals
    np.testing.assert_array_equal(data(ours.lines[1])[1], getattr(found, of))
    band = ours.collections[0].get_paths()[0].vertices
    at = 77
    here = np.sort(band[np.isclose(band[:, 0], found.x[at]), 1])[[0, -1]]
    half = 3 * getattr(found, f"{of}_error")[at]
    np.testing.assert_allclose(here.mean(), getattr(found, of)[at], atol=1e-12)
    np.testing.assert_allclose(np.ptp(here) / 2, half, rtol=1e-9)


def test_residual_coefficients_of_a_true_law_stay_within_its_scatter() -> None:
    """Of 29 a_k about 5% fall beyond two standard deviations; six would be one in a thousand."""
    ours = plot_jacobi_residuals(RUN, rm.Semicircle(), ax=axes())
    a = RUN.diagonals[:, :-1].mean(axis=0)
    points = [line for line in ours.lines if len(data(line)[0]) == 29]
    np.testing.assert_allclose(data(points[0])[1], a, atol=1e-12)  # E a_k = 0
    band = ours.collections[0].get_paths()[0].vertices
    half = np.array([np.abs(band[np.isclose(band[:, 0], k), 1]).max() for k in range(29)])
    assert np.count_nonzero(np.abs(a) > half) < 6


def sequence() -> dict[str, rm.LanczosMeasure]:
    rng = np.random.default_rng(3)
    return {
        str(dim): rm.lanczos(np.diag(rm.Semicircle().sample(dim, rng)), steps=12, probes=4)
        for dim in (100, 200, 400)
    }


def test_a_row_is_drawn_at_its_numbers_with_its_error_and_its_prediction() -> None:
    found = rm.compare_each(sequence(), rm.Semicircle())
    ours = plot_row(found, "second moment", ax=axes())
    predicted, measured = ours.lines[:2]
    np.testing.assert_array_equal(data(predicted)[1], [1.0] * 3)
    np.testing.assert_array_equal(data(measured)[0], [100, 200, 400])
    rows = [each["second moment"] for each in found.values()]
    np.testing.assert_array_equal(data(measured)[1], [row.measured for row in rows])
    assert plot_row(found, "wasserstein", ax=axes()).get_ylabel() == "wasserstein"
    with pytest.raises(KeyError, match="no row 'colour'"):
        plot_row(found, "colour", ax=axes())


def test_rows_are_deviations_in_standard_errors_and_names_are_kept() -> None:
    found = {
        f"layer {name}": each for name, each in rm.compare_each(sequence(), rm.Semicircle()).items()
    }
    ours = plot_rows(found, ax=axes())
    (line,) = [each for each in ours.lines if each.get_label() == "mean"]
    rows = [each["mean"] for each in found.values()]
    expected = [(row.measured - row.predicted) / row.error for row in rows]
    np.testing.assert_allclose(data(line)[1], expected)
    assert [tick.get_text() for tick in ours.get_xticklabels()] == list(found)
    with pytest.raises(ValueError, match="comparisons must map names"):
        plot_rows({}, ax=axes())
