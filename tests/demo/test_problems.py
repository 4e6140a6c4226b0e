"""The demo's inputs are what the report says they are, and making them disturbs nobody."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from rmthess.demo import problems
from rmthess.demo.problems import DemoUnavailable, Digits


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits.load()


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in model.parameters()])


def trained(digits: Digits, seed: int) -> torch.Tensor:
    model = problems.relu_classifier(seed)
    problems.train(
        model, nn.CrossEntropyLoss(), digits.inputs, digits.labels, epochs=1, rate=0.1, seed=seed
    )
    return weights(model)


def test_the_digits_are_centred_with_one_global_scale(digits: Digits) -> None:
    x = digits.inputs.numpy()
    assert x.shape == (1797, 64)
    assert x.dtype == np.float64
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-12)
    assert (x**2).mean() == pytest.approx(1, abs=1e-12)
    spread = x.std(axis=0)
    assert spread.max() > 1.4 * spread[spread > 0].mean()  # not scaled pixel by pixel
    assert np.unique(digits.labels.numpy()).tolist() == list(range(problems.CLASSES))


def test_whitened_inputs_have_identity_covariance_in_all_directions_of_the_data(
    digits: Digits,
) -> None:
    w, x = digits.whitened().numpy(), digits.inputs.numpy()
    rank = np.linalg.matrix_rank(x)
    assert w.shape == (1797, rank)
    np.testing.assert_allclose(w.T @ w / 1797, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose(w.mean(axis=0), 0, atol=1e-10)
    back = np.linalg.lstsq(w, x, rcond=None)[0]
    np.testing.assert_allclose(w @ back, x, atol=1e-10)  # nothing of the data is lost


def test_training_is_reproducible_and_depends_on_the_seed(digits: Digits) -> None:
    first, again, other = trained(digits, 3), trained(digits, 3), trained(digits, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_learns(digits: Digits) -> None:
    model, loss = problems.relu_classifier(0), nn.CrossEntropyLoss()
    with torch.no_grad():
        before = float(loss(model(digits.inputs), digits.labels))
    problems.train(model, loss, digits.inputs, digits.labels, epochs=1, rate=0.1, seed=0)
    with torch.no_grad():
        after = float(loss(model(digits.inputs), digits.labels))
    assert after < before / 4


def test_the_order_of_batches_comes_from_the_seed(digits: Digits) -> None:
    """From the same weights: the shuffling alone differs."""
    outcomes = []
    for seed in (1, 2):
        model = problems.relu_classifier(0)
        problems.train(
            model, nn.CrossEntropyLoss(), digits.inputs, digits.labels,
            epochs=1, rate=0.1, seed=seed,
        )  # fmt: skip
        outcomes.append(weights(model))
    assert not torch.equal(*outcomes)


def test_no_global_random_state_is_touched(digits: Digits) -> None:
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002, it is what must not move
    torch_before = torch.get_rng_state()
    inputs_before = digits.inputs.clone()
    trained(digits, 5)
    problems.linear_network((6, 4, 2), 5)
    problems.gaussian_covariance(4, 9, 5)
    problems.relu_feature_gram(digits, 5, 5)
    digits.whitened()
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert torch.equal(digits.inputs, inputs_before)


def test_training_does_not_depend_on_the_global_random_state(digits: Digits) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        first = trained(digits, 3)
        torch.manual_seed(100)
        assert torch.equal(trained(digits, 3), first)


def test_the_classifier_has_1810_parameters_in_float64() -> None:
    found = weights(problems.relu_classifier(0))
    assert found.shape == (1810,)
    assert found.dtype == torch.float64


def test_a_linear_network_has_its_widths_no_biases_and_variance_one_over_fan_in() -> None:
    widths = (300, 200, 100)
    model = problems.linear_network(widths, seed=1)
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [(200, 300), (100, 200)]
    first, second = (p.detach() for p in model.parameters())
    for p, fan_in in ((first, 300), (second, 200)):
        assert float((p**2).mean()) * fan_in == pytest.approx(1, rel=4 * np.sqrt(2 / p.numel()))
        assert p.dtype == torch.float64
    x = torch.randn(5, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x).detach(), x @ (second @ first).T)


def test_the_gaussian_covariance_is_a_sample_covariance() -> None:
    matrix = problems.gaussian_covariance(30, 3000, 1)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix, np.eye(30), atol=5 * np.sqrt(2 / 3000))
    assert np.linalg.matrix_rank(problems.gaussian_covariance(30, 12, 1)) == 12
    assert not (matrix == problems.gaussian_covariance(30, 3000, 2)).all()


def test_the_relu_gram_is_that_of_centred_features(digits: Digits) -> None:
    """Ones are taken out: the Gram matrix is a covariance, without the eigenvalue of the mean."""
    matrix = problems.relu_feature_gram(digits, 40, 1)
    x = digits.inputs.numpy()
    w = np.random.default_rng(1).standard_normal((64, 40))
    features = np.clip(x @ w / 8, 0, None)
    np.testing.assert_allclose(matrix, np.cov(features, rowvar=False, bias=True), atol=1e-12)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DemoUnavailable, match=r"scikit-learn.*pip install 'rmthess\[demo\]'"):
        Digits.load()
