"""The Hessian of a head on class-structured features: one Gaussian, drawn mixtures, digits."""

from __future__ import annotations

import numpy as np
import pytest

import rmthess as rm
from rmthess.predictions.class_statistics import unspread
from rmthess.predictions.glm_classes import Mixture


def ks(p, q):
    """Kolmogorov distance of two lists of eigenvalues."""
    one, two = (rm.DiscreteMeasure.from_eigenvalues(values) for values in (p, q))
    return rm.kolmogorov(one, two)


def hessian(x, h):
    g = 1 / (4 * np.cosh(h / 2) ** 2)
    return (x.T * g) @ x / len(x)


def test_two_equal_white_classes_are_a_single_gaussian():
    """Against rm.glm: the median of the interval of mass 1/dim is its outlier, to O(1/dim)."""
    dim, samples = 60, 600
    w = np.eye(1, dim).ravel() * 2.0
    statistics = rm.ClassStatistics(
        np.array([0.5, 0.5]), np.zeros((2, dim)), np.array([np.eye(dim)] * 2)
    )
    found = rm.glm_classes("logistic", w, samples, statistics).eigenvalues()
    exact = rm.glm("logistic", w, samples).eigenvalues()
    assert found.shape == exact.shape
    assert ks(found, exact) <= 3 / dim
    assert np.abs(found / exact - 1).max() < 5 / dim


def drawn(rng, samples, dim=60):
    """Three classes with means and variances of their own, and a head that tells them apart."""
    means = 0.6 * rng.standard_normal((3, dim))
    spread = np.linspace(0.4, 1.6, dim)
    spreads = np.array([spread, spread[::-1], spread])
    labels = rng.integers(0, 3, samples)
    x = means[labels] + rng.standard_normal((samples, dim)) * spreads[labels]
    covariances = np.array([np.diag(one**2) for one in spreads])
    return x, rm.ClassStatistics(np.full(3, 1 / 3), means, covariances), (means[0] - means[1]) / 4


def test_a_drawn_mixture_has_the_predicted_spectrum_and_the_population_has_not():
    """KS of one draw of side 60: a handful of eigenvalues."""
    x, statistics, w = drawn(np.random.default_rng(1), 180)
    found = rm.glm_classes("logistic", w, 180, statistics, bias=0.3).eigenvalues()
    measured = np.linalg.eigvalsh(hessian(x, x @ w + 0.3))
    population = np.linalg.eigvalsh(
        Mixture(rm.Loss.logistic(), w, 0.3, 180, statistics).population()
    )
    assert ks(found, measured) < 5 / 60
    assert ks(population, measured) > 10 / 60
    assert np.allclose(found[-3:], measured[-3:], rtol=0.15)


def test_a_covariance_is_put_back_to_the_population_it_was_sampled_from():
    """Two levels, 1 and 4: the mean error of log λ falls to less than half."""
    rng = np.random.default_rng(5)
    spectrum = np.repeat([1.0, 4.0], 60)
    z = rng.standard_normal((400, 120)) * np.sqrt(spectrum)
    seen = z.T @ z / 400
    turn = unspread(seen, 400)
    before, after = (
        np.abs(np.log(np.linalg.eigvalsh(C) / spectrum)).mean() for C in (seen, turn @ seen @ turn)
    )
    assert after < before / 2
    trace = np.trace(turn @ seen @ turn) / np.trace(seen)
    assert trace == pytest.approx(1.0, abs=0.02)


def test_statistics_of_as_few_samples_as_the_hessian_are_not_spread_twice():
    rng = np.random.default_rng(1)
    x, statistics, w = drawn(rng, 180)
    measured = np.linalg.eigvalsh(hessian(x, x @ w))
    labels = rng.integers(0, 3, 180)
    fresh = statistics.means[labels]
    roots = np.sqrt(np.array([np.diag(C) for C in statistics.covariances]))
    fresh = fresh + rng.standard_normal(fresh.shape) * roots[labels]
    found = rm.glm_classes("logistic", w, 180, rm.ClassStatistics.of(fresh, labels))
    assert ks(found.eigenvalues(), measured) < 5 / 60


def test_statistics_of_fewer_samples_than_features_are_warned_of():
    with pytest.warns(UserWarning, match="30 samples for 40 features.*spreads them twice"):
        rm.ClassStatistics.of(RNG.standard_normal((30, 40)), np.arange(30) % 2)


def test_the_population_matrix_is_the_mean_hessian():
    x, statistics, w = drawn(np.random.default_rng(2), 200_000)
    exact = Mixture(rm.Loss.logistic(), w, 0.3, 200, statistics).population()
    assert np.allclose(hessian(x, x @ w + 0.3), exact, atol=0.01)


def test_fewer_samples_than_features_leave_zeros():
    _, statistics, w = drawn(np.random.default_rng(3), 40)
    found = rm.glm_classes("logistic", w, 40, statistics).eigenvalues()
    assert np.count_nonzero(found == 0) == 20


RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((90, 30)), np.repeat([0, 1, 2], 30)
GOOD = rm.ClassStatistics.of(X, Y)


@pytest.mark.parametrize(
    ("features", "classes", "message"),
    [
        (X, np.zeros(90), r"one class only, \[0.0\]: rm.glm is the prediction"),
        (X, np.arange(90), "90 classes of 90 samples, the smallest of 1"),
        (np.where(np.arange(30) == 4, 2.0, X), Y, "1 features have zero variance: columns 4"),
        (np.full((90, 30), np.nan), Y, "features must be finite"),
        (X, Y[:5], r"classes \(samples,\), got \(90, 30\) and \(5,\)"),
    ],
)
def test_bad_features_are_named(features, classes, message):
    with pytest.raises(ValueError, match=message):
        rm.ClassStatistics.of(features, classes)


def test_bad_statistics_are_named():
    shares, means, C = GOOD.shares, GOOD.means, GOOD.covariances
    for arguments, message in (
        ((shares, means, -C), "covariance of class 0 must be positive semidefinite"),
        ((shares, means, C[:, :5]), "covariances must have shape"),
        ((shares[:2], means, C), "means must have shape"),
        ((2 * shares, means, C), "shares must be positive and sum to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            rm.ClassStatistics(*arguments)
    with pytest.raises(ValueError, match="shrinkage must lie in"):
        rm.ClassStatistics.of(X, Y, shrinkage=2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": np.ones(5)}, r"weights must have shape \(30,\)"),
        ({"samples": 20}, "20 samples of 30 dimensions are too few"),
        ({"loss": "huber"}, "depends on labels, which is not covered"),
        ({"loss": lambda h: np.cos(h)}, "is not positive, which is not covered"),
    ],
)
def test_bad_heads_are_named(arguments, message):
    given = {"loss": "logistic", "weights": np.ones(30), "samples": 90, **arguments}
    with pytest.raises(ValueError, match=message):
        rm.glm_classes(statistics=GOOD, **given)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 102, 103, 104, 105])
def test_a_logistic_head_on_digits(seed):
    """0-4 against 5-9, random ReLU features; weights, statistics, measurement on disjoint thirds.

    Ten other draws are in the table of theory/glm_classes.md.
    """
    datasets = pytest.importorskip("sklearn.datasets")
    linear = pytest.importorskip("sklearn.linear_model")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images - images.mean(axis=0)) / (images - images.mean(axis=0)).std()
    rng = np.random.default_rng(seed)
    thirds = np.array_split(rng.permutation(len(labels)), 3)
    x = np.maximum(images @ rng.standard_normal((64, 200)) / 8, 0)
    head = linear.LogisticRegression(C=0.3, max_iter=5000).fit(x[thirds[0]], labels[thirds[0]] >= 5)
    w, bias = head.coef_[0], float(head.intercept_[0])
    statistics = rm.ClassStatistics.of(x[thirds[1]], labels[thirds[1]])
    found = rm.glm_classes("logistic", w, len(thirds[2]), statistics, bias=bias).eigenvalues()
    population = np.linalg.eigvalsh(
        Mixture(rm.Loss.logistic(), w, bias, len(thirds[2]), statistics).population()
    )
    measured = np.linalg.eigvalsh(hessian(x[thirds[2]], x[thirds[2]] @ w + bias))
    assert abs(found[-1] / measured[-1] - 1) < 0.1
    assert np.abs(np.log(found[-8:] / measured[-8:])).mean() < 0.12
    assert ks(found, measured) < 0.05 < ks(population, measured)
    one = rm.ClassStatistics(
        np.ones(1), x[thirds[1]].mean(axis=0)[None], np.cov(x[thirds[1]].T, bias=True)[None]
    )
    single = Mixture(rm.Loss.logistic(), w, bias, len(thirds[2]), one).population()
    assert np.linalg.eigvalsh(single)[-1] > 1.2 * measured[-1]
