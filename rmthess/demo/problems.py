"""What the demo measures: two networks on the digits, and two matrices that are no Hessians."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]

CLASSES = 10
HIDDEN = 24
LINEAR_WIDTHS = (16, 12, CLASSES)


class DemoUnavailable(RuntimeError):
    """The demo's data cannot be had; the message says what to install."""


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1797 handwritten digits: inputs (1797, 64), labels (1797,).

    Centred, and divided by one global standard deviation.
    """

    inputs: Tensor
    labels: Tensor

    @classmethod
    def load(cls) -> Digits:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DemoUnavailable(
                "the demo's digits come with scikit-learn, which is not installed; "
                "install the extra: pip install 'rmthess[demo]'"
            ) from error
        inputs, labels = load_digits(return_X_y=True)
        centred = inputs - inputs.mean(axis=0)
        return cls(torch.tensor(centred / centred.std()), torch.tensor(labels))

    def whitened(self) -> Tensor:
        """Inputs (1797, 61) with identity covariance: the directions in which they vary at all."""
        left, singular, _ = torch.linalg.svd(self.inputs, full_matrices=False)
        rank = int((singular > 1e-10 * singular[0]).sum())
        whitened: Tensor = left[:, :rank] * len(self.inputs) ** 0.5
        return whitened


def relu_classifier(seed: int) -> nn.Module:
    """64-24-10, ReLU, biases, float64: 1810 parameters, few enough for every eigenvalue."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)).double()


def linear_network(widths: tuple[int, ...], seed: int) -> nn.Module:
    """Linear layers without biases, Gaussian weights of variance 1/fan-in, float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # the layers' own first weights are drawn globally
        layers = [nn.Linear(i, o, bias=False) for i, o in pairwise(widths)]
    for layer in layers:
        layer.double()
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
    return nn.Sequential(*layers)


def train(
    model: nn.Module, loss: nn.Module, inputs: Tensor, targets: Tensor, *, epochs: int, rate: float,
    seed: int,
) -> None:  # fmt: skip
    """Stochastic gradient descent with momentum 0.9 and batches of 50."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(50):
            optimiser.zero_grad()
            loss(model(inputs[batch]), targets[batch]).backward()
            optimiser.step()


def gaussian_covariance(dim: int, samples: int, seed: int) -> Array:
    """XᵀX/samples, X (samples, dim) with independent standard normal entries: the law holds."""
    data = np.random.default_rng(seed).standard_normal((samples, dim))
    return np.asarray(data.T @ data / samples)


def relu_feature_gram(digits: Digits, features: int, seed: int) -> Array:
    """FᵀF/samples of centred random ReLU features of the digits: correlated, so the law fails."""
    inputs = digits.inputs.numpy()
    weights = np.random.default_rng(seed).standard_normal((inputs.shape[1], features))
    hidden = np.maximum(inputs @ weights / np.sqrt(inputs.shape[1]), 0.0)
    hidden -= hidden.mean(axis=0)
    return np.asarray(hidden.T @ hidden / len(hidden))
