"""The semicircle at an energy against dense Hessians of sampled spin glasses."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from predictions.oracles import rows
from scipy.integrate import quad

import rmthess as rm
from rmthess.predictions.p_spin import threshold_energy


def riemannian_hessian(spins: int, energy: float, seed: int) -> np.ndarray:
    """Of one 3-spin glass at a random point, given its energy there.

    Given H(σ₀) = N E, the Gaussian field is H + (E - H(σ₀)/N) N (σ·σ₀/N)³. Coordinates are those of
    the projection onto the sphere, of second order, so the Euclidean Hessian there is Riemannian.
    """
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(spins, spins, spins, generator=generator, dtype=torch.float64)
    frame = torch.linalg.qr(torch.randn(spins, spins, generator=generator, dtype=torch.float64))[0]
    pole, tangent = frame[:, 0] * spins**0.5, frame[:, 1:]
    symmetric = sum(J.permute(order) for order in permutations(range(3))) / 6

    def field(sigma):
        value = torch.einsum("ijk,i,j,k->", symmetric, sigma, sigma, sigma) / spins
        return value + shift * spins * (sigma @ pole / spins) ** 3

    shift = 0.0
    shift = energy - float(field(pole)) / spins

    def chart(t):
        point = pole + tangent @ t
        return field(point * (spins**0.5 / point.norm()))

    return torch.autograd.functional.hessian(chart, torch.zeros(spins - 1).double()).numpy()


@pytest.mark.parametrize("energy", [0.3, -1.0, -1.7])
def test_the_hessian_of_a_sampled_glass_has_the_semicircle_of_its_energy(energy):
    found = rm.p_spin(3, energy, spins=140)
    values = np.linalg.eigvalsh(riemannian_hessian(140, energy, seed=11))
    assert values.size == found.dim
    # eigenvalues repel: moments and counts scatter by units of radius/dim
    assert rm.wasserstein(rm.DiscreteMeasure.from_eigenvalues(values), found.bulk) < 8 / found.dim
    assert abs(np.mean(values < 0) - found.bulk.cdf(0.0)) < 3 / found.dim


@pytest.mark.parametrize("row", rows("spherical p-spin"))
def test_mean_and_index_have_the_tabulated_values(row):
    law = rm.p_spin(**row["parameters"]).bulk
    found = law.cdf(0.0) if row["quantity"].startswith("index") else law.moment(1)
    assert found == pytest.approx(row["value"], abs=1e-12)


@pytest.mark.parametrize("order", [2, 3, 7])
def test_the_index_vanishes_at_the_threshold_energy_and_is_the_mass_below_zero_above(order):
    at = threshold_energy(order)
    assert rm.p_spin(order, at, 100).bulk.cdf(0.0) == pytest.approx(0, abs=1e-15)
    assert rm.p_spin(order, 1.01 * at, 100).bulk.cdf(0.0) == 0
    law = rm.p_spin(order, 0.4 * at, 100).bulk
    below = quad(law.density, law.support[0][0], 0, epsabs=1e-12)[0]
    assert law.cdf(0.0) == pytest.approx(below, abs=1e-9)
    assert rm.p_spin(order, 0.0, 100).bulk.cdf(0.0) == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((1, 0.0, 10), "order"), ((3, np.nan, 10), "energy"), ((3, 0.0, 1), "spins")],
)
def test_bad_arguments_are_refused_by_name(arguments, said):
    with pytest.raises(ValueError, match=said):
        rm.p_spin(*arguments)
