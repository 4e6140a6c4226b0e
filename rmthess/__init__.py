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
    "Uniform": "laws.uniform",
    "Arcsine": "laws.arcsine",
    "FussCatalan": "laws.fuss_catalan",
    "Wachter": "laws.wachter",
    "KestenMcKay": "laws.kesten_mckay",
    "mixture": "laws.mixture",
    "SampleCovariance": "laws.sample_covariance",
    "FreeCompoundPoisson": "laws.free_compound_poisson",
    "DeformedWigner": "laws.deformed_wigner",
    "WishartPlusWigner": "laws.wishart_plus_wigner",
    "boxplus": "free.boxplus",
    "boxtimes": "free.boxtimes",
    "compress": "free.compress",
    "Prediction": "predictions.prediction",
    "glm": "predictions.glm",
    "softmax_glm": "predictions.softmax_glm",
    "glm_classes": "predictions.glm_classes",
    "ClassStatistics": "predictions.class_statistics",
    "Loss": "predictions.losses",
    "deep_linear_minimum": "predictions.deep_linear_minimum",
    "one_hidden_relu": "predictions.one_hidden_relu",
    "init_cluster": "predictions.init_cluster",
    "batch_extrapolation": "predictions.batch_extrapolation",
    "batch_noise": "predictions.batch_noise",
    "kronecker": "predictions.kronecker",
    "p_spin": "predictions.p_spin",
    "shallow_relu": "predictions.shallow_relu",
    "shallow_relu_hessian": "predictions.shallow_relu",
    "wishart_plus_wigner": "predictions.wishart_plus_wigner",
    "tracy_widom": "extremes",
    "inertia": "metrics",
    "kolmogorov": "distance",
    "wasserstein": "distance",
    "resolvent_distance": "distance",
    "linear_network_rank": "ranks.linear_network",
    "exact_rank": "ranks.exact",
    "null_space": "ranks.null_space",
    "functional_signature": "ranks.signature",
    "linear_convolution_rank": "ranks.convolution",
    "convolution_chain_rank": "ranks.convolution",
    "numerical_rank": "ranks.numerical",
    "hessian": "operators.hessian",
    "gauss_newton": "operators.gauss_newton",
    "residual_hessian": "operators.residual_hessian",
    "fisher": "operators.fisher",
    "gradient_covariance": "operators.gradient_covariance",
    "read_linear_network": "operators.linear_network",
    "heuristic_rank": "operators.linear_network",
    "as_operator": "operators.as_operator",
    "LowRank": "operators.low_rank",
    "deflate": "operators.deflated",
    "block": "operators.restricted",
    "precondition": "operators.preconditioned",
    "adam_diagonal": "operators.preconditioned",
    "dense": "operators.dense",
    "eigenvalues": "operators.dense",
    "lanczos": "krylov.run",
    "eigenpairs": "krylov.eigenpairs",
    "bulk": "one_cut",
    "fit": "fitting",
    "family": "families",
    "choose": "choice",
    "log_spectrum": "log_axis",
    "from_quadratures": "adapters",
    "from_ritz": "adapters",
    "from_density": "adapters",
    "from_csv": "adapters",
    "outliers": "detection",
    "compare": "comparison",
    "compare_each": "comparison",
    "save": "storage",
    "load": "storage",
    "plot": "plots.density",
}

_MODULES = ("plots", "spikes")

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"rmthess.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'rmthess' has no public name {name!r}")
    value = getattr(import_module(f"rmthess.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
