"""The demo's measurements and verdicts: every number of the report comes from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rmthess.demo import problems
from rmthess.detection import Outliers, outliers
from rmthess.distance import wasserstein
from rmthess.fitting import LEVEL, Fit, fit
from rmthess.krylov.errors import LanczosInterrupted
from rmthess.krylov.run import lanczos
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.laws.semicircle import Semicircle
from rmthess.measure import DiscreteMeasure, LanczosMeasure
from rmthess.operators.dense import eigenvalues
from rmthess.operators.hessian import hessian
from rmthess.ranks.linear_network import RankBound, linear_network_rank
from rmthess.ranks.numerical import NumericalRank, numerical_rank

Array = NDArray[np.float64]
Progress = Callable[[str, float], object]

STEPS, PROBES = 96, 8
EPOCHS = 4
LAWS: dict[str, type[Law]] = {"semicircle": Semicircle, "marchenko_pastur": MarchenkoPastur}


@dataclass(frozen=True)
class Network:
    """A Hessian seen twice: by Lanczos, and eigenvalue by eigenvalue."""

    loss: float
    accuracy: float
    measured: LanczosMeasure
    exact: Array

    @property
    def w1_over_range(self) -> float:
        """W_1 between the estimate and the exact spectrum, divided by the exact range."""
        exact = DiscreteMeasure.from_eigenvalues(self.exact)
        return wasserstein(self.measured, exact) / float(np.ptp(self.exact))


@dataclass(frozen=True)
class Spectrum:
    """A measured spectrum with its outliers and one fit a law to what is left."""

    measured: LanczosMeasure
    outliers: Outliers
    fits: dict[str, Fit]


@dataclass(frozen=True)
class Rank:
    """A deep linear network's rank: from its widths, and from its exact Hessian."""

    widths: tuple[int, ...]
    exact: Array
    bound: RankBound
    numerical: NumericalRank


@dataclass
class Study:
    """What is known so far; after an interruption ``measured`` holds the spectra up to there."""

    seed: int
    networks: dict[str, Network] = field(default_factory=dict)
    spectra: dict[str, Spectrum] = field(default_factory=dict)
    measured: dict[str, LanczosMeasure] = field(default_factory=dict)
    rank: Rank | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: products this small lose more to waiting than they win from a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def run(study: Study, progress: Progress = lambda stage, share: None) -> None:
    """Fill ``study``. ``progress(stage, share)`` is told what is going on, share in [0, 1]."""
    digits = problems.Digits.load()
    seed, loss = study.seed, nn.CrossEntropyLoss()
    data = (digits.inputs, digits.labels)
    model = problems.relu_classifier(seed)

    def measure(name: str, operator: object) -> LanczosMeasure:
        stage = f"Lanczos: {name}"
        progress(stage, 0.0)
        try:
            study.measured[name] = lanczos(
                operator, steps=STEPS, probes=PROBES, seed=seed,
                progress=lambda done, total: progress(stage, done / total),
            )  # fmt: skip
        except LanczosInterrupted as stop:
            if stop.partial is not None:
                study.measured[name] = stop.partial
            raise
        return study.measured[name]

    for name, epochs in (("initial", 0), ("trained", EPOCHS)):
        progress(f"training: {epochs} epochs", 0.0)
        problems.train(model, loss, *data, epochs=epochs, rate=0.1, seed=seed)
        operator = hessian(model, loss, data, backend="shared")  # same bytes on any machine
        measured = measure(name, operator)
        progress(f"every eigenvalue: {name}", 0.0)
        with torch.no_grad():
            outputs = model(digits.inputs)
            accuracy = float((outputs.argmax(dim=1) == digits.labels).double().mean())
            value = float(loss(outputs, digits.labels))
        study.networks[name] = Network(value, accuracy, measured, eigenvalues(operator))
    measure("gaussian_covariance", problems.gaussian_covariance(1000, 2500, seed))
    measure("relu_features", problems.relu_feature_gram(digits, 600, seed))
    for name, measured in study.measured.items():
        progress(f"fits: {name}", 0.0)
        study.spectra[name] = examine(measured, seed)
    progress("rank of a deep linear network", 0.0)
    study.rank = measure_rank(digits, seed)


def examine(measured: LanczosMeasure, seed: int) -> Spectrum:
    """Take the outliers off by the gap rule, and fit each law to what is left."""
    found = outliers(measured)
    slack = 1e-9 * (found.right - found.left)
    window = (found.left - slack, found.right + slack) if len(found) else None
    fits = {name: fit(family, measured, window=window, seed=seed) for name, family in LAWS.items()}
    return Spectrum(measured, found, fits)


def verdict(found: Fit) -> Literal["accepted", "refused", "undecided"]:
    """Undecided without a p-value, or where too few matrices were drawn to refuse anything."""
    if found.accepted():
        return "accepted"
    return "refused" if found.p_value <= LEVEL else "undecided"


def measure_rank(digits: problems.Digits, seed: int) -> Rank:
    """Whitened inputs: on raw ones the smallest eigenvalues of the data hide the gap."""
    inputs = digits.whitened()
    targets = nn.functional.one_hot(digits.labels, problems.CLASSES).double()
    widths = (inputs.shape[1], *problems.LINEAR_WIDTHS)
    model, loss = problems.linear_network(widths, seed), nn.MSELoss()
    problems.train(model, loss, inputs, targets, epochs=1, rate=0.02, seed=seed)
    exact = eigenvalues(hessian(model, loss, (inputs, targets)))
    return Rank(widths, exact, linear_network_rank(list(widths)), numerical_rank(exact))
