"""What notebooks/real_spectra.ipynb says of four matrices made of digits, with other seeds."""

from __future__ import annotations

import numpy as np
import pytest

import rmthess as rm
from rmthess.demo.problems import Digits, relu_classifier, relu_feature_gram, train

pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow
HIDDEN, CLASSES = 24, 10


@pytest.fixture(scope="module")
def digits():
    return Digits.load()


def eigenvalues(operator):
    return rm.DiscreteMeasure.from_eigenvalues(rm.eigenvalues(operator))


@pytest.fixture(scope="module")
def networks(digits):
    """The same network at initialisation and trained: H, H - G, and the predictions."""
    import torch

    model, loss = relu_classifier(3), torch.nn.CrossEntropyLoss()
    data = (digits.inputs, digits.labels)
    found = {}
    for name in ("initial", "trained"):
        if name == "trained":
            train(model, loss, *data, epochs=20, rate=0.05, seed=3)
        found[name] = (
            rm.lanczos(rm.hessian(model, loss, data), steps=64, probes=8, seed=3, deflate=12),
            eigenvalues(rm.hessian(model, loss, data)),
            eigenvalues(rm.residual_hessian(model, loss, data)),
            rm.one_hidden_relu(*data, model),
        )
    return found


def test_the_indefinite_part_at_initialisation_is_the_average_over_networks(digits, networks):
    """0.2/√24 = 0.04 is what one network scatters; it holds without anything fitted."""
    prediction = rm.one_hidden_relu(digits.inputs, digits.labels, HIDDEN, seed=3)
    initial, trained = networks["initial"][2], networks["trained"][2]
    assert rm.kolmogorov(prediction.bulk, initial) < 0.04
    assert rm.kolmogorov(prediction.bulk, trained) > 0.1
    assert np.ptp(trained.nodes) < 0.1 * np.ptp(initial.nodes)


@pytest.mark.parametrize("name", ["initial", "trained"])
def test_at_its_own_weights_it_is_exact_and_bounds_the_negative_eigenvalues(networks, name):
    _, whole, indefinite, exact = networks[name]
    levels = (np.arange(indefinite.nodes.size) + 0.5) / indefinite.nodes.size
    gap = np.abs(exact.bulk.quantile(levels) - indefinite.nodes).max()
    assert gap < 1e-10 * np.ptp(indefinite.nodes)
    negative = np.count_nonzero(whole.nodes < -1e-10 * np.ptp(whole.nodes))
    assert 0.9 * HIDDEN * (CLASSES - 1) < negative <= HIDDEN * (CLASSES - 1)


@pytest.mark.parametrize("name", ["initial", "trained"])
def test_lanczos_sees_a_network_and_no_textbook_law_holds(networks, name):
    measured, whole, _, _ = networks[name]
    assert rm.wasserstein(measured, whole) < 0.005 * np.ptp(whole.nodes)
    assert not rm.bulk(measured).converged
    for law in (rm.Semicircle, rm.MarchenkoPastur):
        assert not rm.fit(law, measured, bootstrap=100).accepted()


def test_the_gram_matrix_of_random_features_is_no_marchenko_pastur_matrix(digits):
    matrix = relu_feature_gram(digits, 600, 3)
    measured = rm.lanczos(matrix, steps=48, probes=8, seed=3, deflate=20)
    fit = rm.fit(rm.MarchenkoPastur, measured, bootstrap=100)
    assert not fit.accepted()
    assert fit.distance > 5 * fit.expected_distance


def test_logistic_regression_is_predicted_on_gaussian_inputs_and_not_on_digits(digits):
    inputs = digits.whitened().numpy()
    rng = np.random.default_rng(3)
    weights = rng.standard_normal(inputs.shape[1])
    weights *= 4 / np.linalg.norm(weights)
    prediction = rm.glm("logistic", weights, len(inputs))

    def compared(x):
        p = 1 / (1 + np.exp(-x @ weights))
        matrix = (x.T * (p * (1 - p))) @ x / len(x)
        spectrum = rm.DiscreteMeasure.from_eigenvalues(np.linalg.eigvalsh(matrix))
        return rm.compare(prediction, spectrum)

    control, real = compared(rng.standard_normal(inputs.shape)), compared(inputs)
    assert control["outliers"].measured == control["outliers"].predicted == 1
    assert control.kolmogorov < 0.1
    assert real["outliers"].measured > 5
    assert real.wasserstein > 3 * control.wasserstein
