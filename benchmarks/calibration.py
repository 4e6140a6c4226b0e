"""Are the errors of a fit its errors, and are the p-values of a true law uniform?

    python benchmarks/calibration.py            500 spectra a row, about an hour on an idle core
    python benchmarks/calibration.py --quick    40 a row
    python benchmarks/calibration.py --rows 2 3 these rows again; the others stay as they are

Prints a table and writes benchmarks/results/calibration.md after every row. The spectra have known
parameters. Those of GOE and Wishart matrices come from the tridiagonal models, exact at any side;
all others from matrices of the stated side, built here entry by entry and diagonalised, seen either
whole or by the Lanczos coefficients of random vectors: not by the samplers of the package.
"""

# ruff: noqa: E402 - the number of threads is set before NumPy is loaded

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kstest

import rmthess as rm
from rmthess import jacobi

RESULTS = Path(__file__).parent / "results" / "calibration.md"
DRAWS = 99  # matrices a fit; p-values are multiples of 1/100


@dataclass(frozen=True)
class Case:
    """A family with its true parameters, the side of its matrices, and the instrument."""

    name: str
    family: Callable[..., rm.Law]
    truth: Mapping[str, float]
    side: int
    steps: int = 0  # of Lanczos; 0: all eigenvalues
    probes: int = 4
    matrix: Callable[[int, np.random.Generator], np.ndarray] | None = None  # or a tridiagonal model

    @property
    def instrument(self) -> str:
        return f"Lanczos, {self.steps} steps, {self.probes} probes" if self.steps else "eigenvalues"

    def measure(self, seed: int) -> rm.DiscreteMeasure | rm.LanczosMeasure:
        law, rng = self.family(**self.truth), np.random.default_rng([self.side, self.steps, seed])
        whole = self.matrix and np.linalg.eigvalsh(self.matrix(self.side, rng))
        if not self.steps:
            values = law.sample(self.side, rng) if whole is None else whole
            return rm.DiscreteMeasure.from_eigenvalues(values)
        if whole is None:
            a, b = law.sample_jacobi(self.steps + 1, self.side, rng, self.probes)
        else:
            weights = rng.standard_normal((self.probes, self.side)) ** 2
            pairs = [jacobi.from_quadrature(whole, w / w.sum(), self.steps + 1) for w in weights]
            a, b = (np.array([pair[k] for pair in pairs]) for k in (0, 1))
        return rm.LanczosMeasure(a[:, :-1], b[:, :-1], b[:, -1], self.side)


def covariance(ratio: float, small: float, large: float) -> rm.Law:
    return rm.SampleCovariance(ratio, rm.DiscreteMeasure([small, large], [0.6, 0.4]))


def wigner(variance: float, low: float, high: float) -> rm.Law:
    return rm.DeformedWigner(rm.DiscreteMeasure([low, high], [0.6, 0.4]), variance)


def two_values(side: int, low: float, high: float) -> np.ndarray:
    return np.repeat([low, high], [round(0.6 * side), side - round(0.6 * side)])


def covariance_matrix(side: int, rng: np.random.Generator) -> np.ndarray:
    """XᵀX/samples, X (samples, side) of independent rows with the two variances."""
    samples = round(side / TWO["ratio"])
    x = rng.standard_normal((samples, side)) * np.sqrt(two_values(side, TWO["small"], TWO["large"]))
    return x.T @ x / samples


def wigner_matrix(side: int, rng: np.random.Generator) -> np.ndarray:
    """The two values on the diagonal, and a symmetric matrix of entries of variance v/side."""
    x = rng.standard_normal((side, side)) * np.sqrt(LEVELS["variance"] / (2 * side))
    return x + x.T + np.diag(two_values(side, LEVELS["low"], LEVELS["high"]))


SEMICIRCLE = {"variance": 1.7, "mean": 0.43}
WHITE = {"ratio": 0.43, "variance": 1.7}
WIDE = {"ratio": 2.5, "variance": 1.7}
TWO = {"ratio": 0.4, "small": 0.5, "large": 2.0}
LEVELS = {"variance": 0.3, "low": -1.0, "high": 1.0}
CASES = [
    Case("semicircle", rm.Semicircle, SEMICIRCLE, 100_000, 32),
    Case("Marchenko–Pastur", rm.MarchenkoPastur, WHITE, 100_000, 32),
    Case("sample covariance, two atoms", covariance, TWO, 400, 20, matrix=covariance_matrix),
    Case("deformed Wigner, two atoms", wigner, LEVELS, 400, 20, matrix=wigner_matrix),
    Case("semicircle", rm.Semicircle, SEMICIRCLE, 300),
    Case("Marchenko–Pastur", rm.MarchenkoPastur, WHITE, 300),
    Case("Marchenko–Pastur, singular", rm.MarchenkoPastur, WIDE, 300),
    Case("deformed Wigner, two atoms", wigner, LEVELS, 200, matrix=wigner_matrix),
    Case("sample covariance, two atoms", covariance, TWO, 200, matrix=covariance_matrix),
]


def row(case: Case, count: int) -> str:
    """One line of the table; standard errors of the coverages and shares are binomial."""
    begun = time.process_time()
    z, p_values = [], []
    for seed in range(count):
        start = {name: 1.1 * value for name, value in case.truth.items()}
        found = rm.fit(case.family, case.measure(seed), start=start, bootstrap=DRAWS, seed=seed)
        p_values.append(found.p_value)
        z.append(
            [
                (found.parameters[name] - value) / found.standard_errors[name]
                for name, value in case.truth.items()
            ]
        )
    scores, p = np.array(z), np.array(p_values)
    covered = ", ".join(
        f"{name} {share:.1%}"
        for name, share in zip(case.truth, (np.abs(scores) < 1.96).mean(axis=0), strict=True)
    )
    # p is discrete: a uniform shift within its step makes the test exact
    jitter = np.random.default_rng(0).uniform(0, 1 / (DRAWS + 1), p.size)
    uniform = kstest(p[np.isfinite(p)] - jitter[np.isfinite(p)], "uniform").pvalue
    seconds = (time.process_time() - begun) / count
    return (
        f"| {case.name} | {case.instrument} | {case.side} | {count} | {covered} | "
        f"{np.mean(p <= 0.05):.1%} | {np.mean(p <= 0.01):.1%} | {uniform:.2g} | {seconds:.2g} s |"
    )


HEAD = (
    "| family | instrument | side | fits | 95% intervals that hold the truth | p ≤ 5% | "
    "p ≤ 1% | uniform? (Kolmogorov–Smirnov p) | CPU a fit |\n|" + "---|" * 9
)


def kept() -> dict[int, str]:
    """Rows of the table as it is, by the place of their case."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    starts = {k: f"| {c.name} | {c.instrument} | {c.side} |" for k, c in enumerate(CASES)}
    return {k: line for k, start in starts.items() for line in lines if line.startswith(start)}


def write(rows: Mapping[int, str]) -> None:
    table = "\n".join(rows[k] for k in sorted(rows))
    RESULTS.write_text(
        f"# Calibration of fits\n\nWritten by `python benchmarks/calibration.py`: python "
        f"{platform.python_version()}, numpy {np.__version__}, {platform.machine()}, one thread, "
        f"{DRAWS} draws a fit. The nominal coverage is 95%, its standard error at 500 fits "
        f"{100 * np.sqrt(0.05 * 0.95 / 500):.1f}%; the nominal shares of p ≤ 5% and p ≤ 1% are 5% "
        "and 1%. The ratio of a singular matrix is counted, and its interval is the rounding to "
        f"whole numbers.\n\n{HEAD}\n{table}\n",
        encoding="utf-8",
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--quick", action="store_true", help="40 spectra a row instead of 500")
    options.add_argument("--count", type=int, help="spectra a row")
    options.add_argument("--rows", type=int, nargs="+", help="only these, from 0")
    chosen = options.parse_args()
    count = chosen.count or (40 if chosen.quick else 500)
    warnings.simplefilter("error", RuntimeWarning)
    rows = kept() if chosen.rows else {}
    print(HEAD, flush=True)
    for place in chosen.rows or range(len(CASES)):
        rows[place] = row(CASES[place], count)
        print(rows[place], flush=True)
        write(rows)


if __name__ == "__main__":
    main()
