"""Pennington and Bahri's prediction: tabulated values, sampled blocks, and what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest
from predictions.oracles import rows

import rmthess as rm
from rmthess.laws.wishart_plus_wigner import critical_energy, index_coefficient
from rmthess.predictions.wishart_plus_wigner import relu_critical_energy, relu_functional


def of_the_law(row):
    law = rm.WishartPlusWigner(row["parameters"]["ratio"], row["parameters"]["energy"])
    quantity = row["quantity"]
    if quantity.startswith("density"):
        return law.density(float(quantity.split("(")[1].rstrip(")")))
    if quantity.startswith("moment"):
        return law.moment(int(quantity[-1]))
    if quantity.startswith("outlier"):
        return rm.spikes.additive(law, row["parameters"]["strength"]).location
    if quantity.endswith("edge"):
        return law.support[0][quantity.startswith("right")]
    assert quantity == "index"
    return law.index


@pytest.mark.parametrize("row", rows("Pennington-Bahri", "PB bulk", "Edge-of-bulk"))
def test_the_law_has_the_tabulated_values(row):
    if row["quantity"].startswith(("mean of", "sd of")):
        limit = rm.tracy_widom(1)
        found = limit.mean if row["quantity"].startswith("mean") else np.sqrt(limit.variance)
    elif row["quantity"].startswith("critical"):
        found = critical_energy(row["parameters"]["ratio"])
    elif row["quantity"].startswith("3/2"):
        found = index_coefficient(row["parameters"]["ratio"])
    else:
        found = of_the_law(row)
    # the table's standard deviation of Tracy and Widom's law is right to six digits
    digits = 1e-6 if row["quantity"].startswith("sd of") else 1e-9
    assert found == pytest.approx(row["value"], rel=digits)


@pytest.mark.parametrize("row", rows("PB ReLU"))
def test_the_relu_part_has_the_tabulated_values(row):
    law = relu_functional(**row["parameters"])
    found = {
        "second moment": law.moment(2),
        "fourth moment": law.moment(4),
        "edge": law.support[0][1],
    }
    assert found[row["quantity"]] == pytest.approx(row["value"], rel=1e-12)


@pytest.mark.parametrize(("ratio", "energy"), [(0.5, 0.3), (1.6, 0.07)])
def test_the_relu_part_is_the_spectrum_of_masked_products(ratio, energy):
    """Also where fewer than n samples are active: an atom of mass 1 - 1/φ at 0."""
    n, rng = 300, np.random.default_rng(21)
    samples = round(2 * n / ratio)
    x = rng.standard_normal((samples, n))
    e = np.sqrt(2 * energy) * rng.standard_normal((samples, n))
    law = relu_functional(2 * n / samples, energy)
    for _ in range(2):
        on = x @ rng.standard_normal(n) > 0
        singular = np.linalg.svd(e[on].T @ x[on] / samples, compute_uv=False)
        block = rm.DiscreteMeasure.from_eigenvalues(np.concatenate([singular, -singular]))
        # half the samples up to √samples/2, and eigenvalues up to 1/n
        assert rm.wasserstein(block, law) < law.support[-1][1] * (1 / np.sqrt(samples) + 1 / n)
    assert sum(mass for _, mass in law.atoms) == pytest.approx(max(0, 1 - samples / (2 * n)))


def test_the_relu_transform_is_that_of_the_paper():
    w, ratio, energy = np.linspace(-0.7, 0.7, 9), 0.43, 0.9
    wanted = energy * ratio * w / (2 - energy * ratio**2 * w**2)
    np.testing.assert_allclose(relu_functional(ratio, energy).r_transform(w), wanted, atol=1e-15)


@pytest.mark.parametrize("samples", [3600, 720, 419, 200])
@pytest.mark.parametrize(
    ("functional", "critical"), [("wigner", critical_energy), ("relu", relu_critical_energy)]
)
def test_the_index_is_zero_exactly_up_to_the_critical_energy(samples, functional, critical):
    def predict(energy):
        return rm.wishart_plus_wigner([90] * 3, samples, energy, functional=functional).bulk

    at = critical(180 / samples)
    assert predict(0.999 * at).cdf(0.0) == pytest.approx(0, abs=1e-12)
    assert predict(at).support[0][0] == pytest.approx(0, abs=1e-13)
    assert predict(1.5 * at).cdf(0.0) > 1e-5


def test_there_is_no_critical_energy_from_as_many_parameters_as_residuals_on():
    assert relu_critical_energy(1.0) == relu_critical_energy(3.0) == 0
    assert rm.wishart_plus_wigner([9, 9, 9], 12, 1e-3, functional="relu").bulk.cdf(-1e-9) > 0


def test_the_three_halves_law_is_off_by_8_percent_at_1_point_1_and_80_at_2_critical_energies():
    at = critical_energy(0.25)

    def power_over_exact(factor):
        power = index_coefficient(0.25) * ((factor - 1) * at) ** 1.5
        return power / rm.WishartPlusWigner(0.25, factor * at).index

    assert power_over_exact(1.1) == pytest.approx(1.08, abs=0.01)
    assert power_over_exact(2.0) == pytest.approx(1.80, abs=0.02)


def test_parameters_and_residuals_are_counted_from_the_widths():
    found = rm.wishart_plus_wigner([20, 30, 10, 5], samples=500, energy=0.1)
    assert found.dim == 20 * 30 + 30 * 10 + 10 * 5
    assert found.bulk.ratio == pytest.approx(950 / 2500)
    assert "real ReLU networks are not" in str(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([5], 10, 0.1), "at least inputs and outputs"),
        (([5, 5], 0, 0.1), "samples"),
        (([5, 5], 10, -0.1), "energy must be a positive"),
        (([5, 5], 10, np.nan), "energy"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, said):
    with pytest.raises(ValueError, match=said):
        rm.wishart_plus_wigner(*arguments)


@pytest.mark.parametrize("widths", [[5, 6, 5], [5, 5], [5, 5, 5, 5]])
def test_the_relu_form_refuses_other_shapes_and_says_what_to_use(widths):
    with pytest.raises(ValueError, match="one_hidden_relu predicts any such widths"):
        rm.wishart_plus_wigner(widths, 10, 0.1, functional="relu")
    with pytest.raises(ValueError, match="one of wigner, relu, got 'tanh'"):
        rm.wishart_plus_wigner(widths, 10, 0.1, functional="tanh")
