"""The Hessian of softmax regression: two classes, exchangeable classes, dense matrices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import rmthess as rm
from rmthess import jacobi
from rmthess.predictions.softmax_glm import contrasts


def hessian(W, samples, rng):
    """(1/n) Σ (diag π - π πᵀ) ⊗ x xᵀ, entry by entry."""
    classes, dim = W.shape
    x = rng.standard_normal((samples, dim))
    p = np.exp(x @ W.T)
    p /= p.sum(axis=1, keepdims=True)
    H = np.zeros((classes, dim, classes, dim))
    for a in range(classes):
        for b in range(classes):
            H[a, :, b] = (x.T * (p[:, a] * ((a == b) - p[:, b]))) @ x / samples
    return H.reshape(classes * dim, classes * dim)


def test_two_classes_are_logistic_regression_twice():
    """G = σ(1 - σ) (1, -1)(1, -1)ᵀ, of length 2, and a zero for the common shift."""
    w = np.zeros((2, 100))
    w[:, 0] = 1.0, -1.0
    found, one = rm.softmax_glm(w, 1000), rm.glm("logistic", w[0] - w[1], 1000)
    assert np.allclose(found.bulk.support, 2 * np.array(one.bulk.support), rtol=1e-8)
    assert np.allclose(found.locations, 2 * one.locations, rtol=1e-8)
    assert np.isclose(found.spikes[0].overlap, one.spikes[0].overlap, rtol=1e-6)
    x = np.linspace(0.15, 0.5, 9)
    assert np.allclose(found.bulk.density(x), one.bulk.density(x / 2) / 4, rtol=1e-7)


def test_weights_of_zero_are_marchenko_pastur_for_each_contrast():
    found = rm.softmax_glm(np.zeros((3, 60)), 240)
    exact = rm.MarchenkoPastur(0.25, 1 / 3)
    assert np.allclose(found.bulk.support, exact.support, rtol=1e-7)
    x = np.linspace(0.1, 0.7, 13)
    assert np.allclose(found.bulk.density(x), 2 / 3 * exact.density(x), rtol=1e-7)
    assert found.bulk.atoms == ((0.0, 1 / 3),)


def test_exchangeable_classes_are_free_compound_poisson_with_the_eigenvalues_of_g():
    """By symmetry Δ is a number then, and its kernel sees G through its eigenvalues alone."""
    found = rm.softmax_glm(1.5 * np.eye(3, 100), 400)
    x, w = np.polynomial.hermite_e.hermegauss(60)
    s = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    weights = np.outer(w, w).ravel() / w.sum() ** 2
    U = contrasts(3)
    p = np.exp(1.5 * s @ U.T)
    p /= p.sum(axis=1, keepdims=True)
    G = U.T @ (p[:, :, None] * (np.eye(3) - p[:, None, :])) @ U
    values, shares = np.linalg.eigvalsh(G).ravel(), np.repeat(weights, 2) / 2
    nodes, masses = jacobi.gauss_quadrature(*jacobi.from_quadrature(values, shares, 32))
    exact = rm.FreeCompoundPoisson(4.0, rm.DiscreteMeasure(0.25 * nodes, masses / masses.sum()))
    assert np.allclose(found.bulk.support, exact.support, atol=2e-5)
    grid = np.linspace(0.06, 0.54, 15)
    assert np.allclose(found.bulk.density(grid), 2 / 3 * exact.density(grid), rtol=1e-4)


def test_the_trace_is_that_of_the_mean_curvature():
    """tr H/(K dim) = E tr G/K, by a plain average over logits."""
    found = rm.softmax_glm(np.eye(3, 80) * np.array([[2.0], [1.0], [0.5]]), 400)
    logits = np.random.default_rng(0).standard_normal((400_000, 3)) * [2.0, 1.0, 0.5]
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    x, w = found.bulk.quadrature(64)
    assert abs(x @ w - np.mean(1 - (p**2).sum(axis=1)) / 3) < 1e-3


def test_the_bulk_is_as_near_to_a_matrix_as_the_table_says():
    """Its weights are not given, only their scale; here they are orthogonal."""
    table = json.loads((Path(__file__).parent.parent / "reference" / "glm.json").read_text())
    (row,) = [r for r in table if "softmax" in r["prediction"] and r["value"] == 0]
    W = 1.5 * np.eye(3, 250)
    found = rm.softmax_glm(W, 1000)
    values = np.linalg.eigvalsh(hessian(W, 1000, np.random.default_rng(3)))
    values[np.abs(values) < 1e-9] = 0.0
    distance = rm.kolmogorov(found.bulk, rm.DiscreteMeasure.from_eigenvalues(values))
    assert distance < row["tolerance"]


@pytest.mark.parametrize(
    "lengths",
    [(2.5, 1.0, 3.0), pytest.param((2.0, 3.0, 2.0, 0.1), marks=pytest.mark.slow)],
    ids=["three", "four"],
)
def test_bulk_and_outlier_are_those_of_one_matrix(lengths):
    """0.02 in the CDF: outliers and the sampling of G, at side 100 a class."""
    W = np.diag(lengths) @ np.eye(len(lengths), 100)
    found = rm.softmax_glm(W, 1000)
    values, vectors = np.linalg.eigh(hessian(W, 1000, np.random.default_rng(7)))
    values = np.where(np.abs(values) < 1e-9, 0.0, values)
    assert rm.kolmogorov(found.bulk, rm.DiscreteMeasure.from_eigenvalues(values)) < 0.03
    (spike,), (direction,) = found.spikes, found.directions
    assert abs(values[100] / spike.location - 1) < 0.08
    assert abs((vectors[:, 100] @ direction) ** 2 - spike.overlap) < 0.08
    assert np.isclose(np.linalg.norm(direction), 1.0)
    assert found.rank.value == (len(lengths) - 1) * 100
    assert np.count_nonzero(values > 0) <= found.rank.value


@pytest.mark.parametrize(
    ("weights", "samples", "message"),
    [
        (np.zeros((1, 50)), 200, "at least 2 classes, got"),
        (np.zeros(50), 200, "at least 2 classes, got"),
        (np.zeros((300, 50)), 200, "300 classes are more than the 200 samples"),
        (np.full((3, 50), np.nan), 200, "weights must be finite"),
        (np.zeros((3, 5)), 200, "200 samples of 5 dimensions are too few"),
        (np.zeros((3, 50)), 50, "it needs more samples than dimensions"),
    ],
)
def test_bad_input_is_named(weights, samples, message):
    with pytest.raises(ValueError, match=message):
        rm.softmax_glm(weights, samples)
