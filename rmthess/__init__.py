"""Random-matrix theory of loss-surface Hessians: predict a spectrum, measure it, compare the two.

Public names are loaded on first use, so that ``import rmthess`` costs milliseconds and a saved
spectrum can be fitted and plotted on a machine without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "SpectralMeasure": "measure",
    "DiscreteMeasure": "measure",
    "LanczosMeasure": "measure",
    "Law": "laws.law",
    "Semicircle": "laws.semicircle",
    "MarchenkoPastur": "laws.marchenko_pastur",
    "tracy_widom": "extremes",
    "kolmogorov": "distance",
    "wasserstein": "distance",
    "resolvent_distance": "distance",
    "linear_network_rank": "ranks.linear_network",
    "numerical_rank": "ranks.numerical",
    "hessian": "operators.hessian",
    "dense": "operators.dense",
    "eigenvalues": "operators.dense",
    "lanczos": "krylov",
    "fit": "fitting",
    "outliers": "comparison",
    "compare": "comparison",
    "save": "storage",
    "load": "storage",
    "plot": "plots",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rmthess' has no public name {name!r}")
    value = getattr(import_module(f"rmthess.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
