"""The demo's report: the study's numbers as tables, figures and sentences, and as summary.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rmthess import __version__
from rmthess.demo.problems import CLASSES, HIDDEN
from rmthess.demo.study import EPOCHS, PROBES, STEPS, Network, Study, verdict
from rmthess.detection import Outlier
from rmthess.fitting import Fit, format_uncertain
from rmthess.measure import DiscreteMeasure, LanczosMeasure
from rmthess.plots import plot, plot_jacobi
from rmthess.report.document import Column, Document, Figure, Section, Table, Text, Verdict
from rmthess.report.svg import NARROW, WIDE, drawing_style, legend_above, to_svg
from rmthess.storage import encode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "initial": "Hessian at initialisation",
    "trained": f"Hessian after {EPOCHS} epochs",
    "gaussian_covariance": "covariance of Gaussian data",
    "relu_features": "Gram matrix of ReLU features",
}
LAWS = {"semicircle": "semicircle", "marchenko_pastur": "Marchenko–Pastur"}
LEADING = 12


def files(study: Study) -> dict[str, bytes]:
    """summary.json and the measured spectra, ready to be written beside the page."""
    spectra = {f"{name}.safetensors": encode(m) for name, m in study.measured.items()}
    text = json.dumps(summary(study), indent=2, ensure_ascii=False, allow_nan=False)
    return {"summary.json": (text + "\n").encode(), **spectra}


def summary(study: Study) -> dict[str, Any]:
    """Every number of the report; what is undefined is null."""
    assert study.rank is not None
    rank = study.rank
    return {
        "generator": "rmthess",
        "version": __version__,
        "seed": study.seed,
        "steps": STEPS,
        "probes": PROBES,
        "networks": [
            {
                "name": name,
                "dim": network.measured.dim,
                "loss": network.loss,
                "accuracy": network.accuracy,
                "w1_over_range": network.w1_over_range,
                "largest": _extreme(network, -1),
                "smallest": _extreme(network, 0),
            }
            for name, network in study.networks.items()
        ],
        "fits": [
            {
                "law": law,
                "spectrum": name,
                "parameters": {key: _finite(v) for key, v in found.parameters.items()},
                "standard_errors": {key: _finite(v) for key, v in found.standard_errors.items()},
                "distance": _finite(found.distance),
                "expected_distance": _finite(found.expected_distance),
                "p_value": _finite(found.p_value),
                "accepted": found.accepted(),
                "converged": found.converged,
                "message": found.message,
            }
            for name, spectrum in study.spectra.items()
            for law, found in spectrum.fits.items()
        ],
        "outliers": [
            {
                "network": name,
                "location": item.location,
                "error": item.error,
                "seen_by": item.seen_by,
                "exact": _nearest(study.networks[name], item),
            }
            for name in study.networks
            for item in study.spectra[name].outliers
        ],
        "outlier_rules": {name: study.spectra[name].outliers.rule for name in study.networks},
        "classes": CLASSES,
        "rank": {
            "widths": list(rank.widths),
            "bound": rank.bound.value,
            "formula": rank.bound.because,
            "numerical": rank.numerical.value,
            "gap": _finite(rank.numerical.gap),
            "verdict": rank.numerical.verdict(rank.bound),
            "parameters": rank.bound.parameters,
        },
    }


def document(study: Study, command: str) -> Document:
    """The page. ``command`` is what to type for the same numbers."""
    assert study.rank is not None
    trained = study.networks["trained"]
    return Document(
        title="The Hessian of a small network, measured and predicted",
        lead=(
            f"A 64-{HIDDEN}-{CLASSES} ReLU classifier of 1797 handwritten digits "
            f"({trained.measured.dim} parameters, accuracy {trained.accuracy:.1%} after training). "
            "Its Hessian's spectrum is measured by Lanczos without forming the matrix, held "
            "against every exact eigenvalue, and set beside what random matrix theory says."
        ),
        items=[_density_figure(study)],
        sections=[_measurement(study), _laws(study), _outliers(study), _rank(study)],
        provenance={
            "command": command,
            "seed": str(study.seed),
            "Lanczos": f"{STEPS} steps from each of {PROBES} random start vectors, float64, cpu",
            "data": "scikit-learn digits, 1797 images of 8 × 8, centred, one global scale",
            "rmthess": __version__,
            "numpy": np.__version__,
            "torch": str(trained.measured.provenance["versions"]["torch"]),
            "python": platform.python_version(),
            "numbers": "every number of this page stands in summary.json beside it",
            "spectra": ", ".join(f"`{name}.safetensors`" for name in study.measured),
        },
    )


def _measurement(study: Study) -> Section:
    rows = []
    for name, network in study.networks.items():
        top, bottom = _extreme(network, -1), _extreme(network, 0)
        rows.append(
            [
                NAMES[name],
                f"{network.loss:.3g}",
                f"{network.w1_over_range:.2e}",
                f"{top['exact']:.6g}",
                f"{abs(top['lanczos'] - top['exact']):.1e}",
                f"{bottom['exact']:.6g}",
                f"{abs(bottom['lanczos'] - bottom['exact']):.1e}",
            ]
        )
    worst = max(network.w1_over_range for network in study.networks.values())
    good = worst < 1 / STEPS
    return Section(
        title="Does Lanczos see the spectrum?",
        lead=(
            f"{STEPS} steps from {PROBES} random vectors give a Gauss rule of {STEPS} nodes each. "
            "Its distance to the exact spectrum is dominated by the few probes, not by the method: "
            "the extreme eigenvalues have converged to many digits."
        ),
        verdict=Verdict(
            "holds" if good else "refused",
            f"Wasserstein distance at most {worst:.1e} of the spectral range; "
            f"one node in {STEPS} resolves {1 / STEPS:.1e}.",
        ),
        items=[
            Table(
                columns=[
                    Column("spectrum"),
                    Column("loss", numeric=True),
                    Column("W₁ / range", numeric=True),
                    Column("largest λ", numeric=True),
                    Column("Lanczos off by", numeric=True),
                    Column("smallest λ", numeric=True),
                    Column("Lanczos off by", numeric=True),
                ],
                rows=rows,
                caption="The Lanczos estimate against every exact eigenvalue.",
            )
        ],
        source="rmthess/krylov/run.py, rmthess/distance.py",
    )


def _laws(study: Study) -> Section:
    trained = study.spectra["trained"].fits
    refused = all(verdict(found) == "refused" for found in trained.values())
    columns = [
        Column("spectrum"),
        Column("law"),
        Column("fitted parameters"),
        Column("distance", numeric=True),
        Column("expected if true", numeric=True),
        Column("p", numeric=True),
        Column("verdict"),
    ]
    rows = [
        [NAMES[name], LAWS[law], *_fit_cells(found)]
        for name, spectrum in study.spectra.items()
        for law, found in spectrum.fits.items()
    ]
    return Section(
        title="Does a law hold?",
        lead=(
            "Each law is fitted to the bulk in the coordinates that Lanczos reads, the Jacobi "
            "coefficients aₖ, bₖ. Then 200 random matrices of the fitted law go through the same "
            "run and the same fit: p is the share of them that lie as far from their best fit as "
            "the data do. A law is refused at p ≤ 0.01."
        ),
        verdict=Verdict(
            "refused" if refused else "undecided",
            "On the trained network both laws are refused: its bulk is heavy-tailed and spans many "
            "decades, which no law of one scale does. Standard errors of a refused law say how "
            "well the best fit is determined, not how near it is."
            if refused
            else "On the trained network not every law is refused; see the table.",
        ),
        items=[
            _figure(
                _draw_coefficients(study),
                caption=(
                    "Local band edges aₖ ± 2bₖ at each Lanczos step, with the best fit of each "
                    "law as it would appear at this size. A law with one bulk shows as two nearly "
                    "level lines. On the Gaussian data Marchenko–Pastur lies within the scatter of "
                    "the points, elsewhere no law does."
                ),
                alt="Four panels of Lanczos coefficients against step, measured and fitted.",
                panels=4,
            ),
            Table(
                columns=columns,
                rows=rows,
                caption="Eight fits; distance in standard deviations of the spectrum.",
            ),
            Text(
                "The Gaussian covariance is the control where Marchenko–Pastur is true; ReLU "
                "features of real images are correlated, so there theory itself says that it must "
                "fail."
            ),
        ],
        source="rmthess/fitting.py, rmthess/instrument.py",
    )


def _fit_cells(found: Fit) -> list[str | Verdict]:
    values = ", ".join(
        f"{name} {format_uncertain(value, found.standard_errors[name])}"
        for name, value in found.parameters.items()
    )
    badge = {
        "accepted": Verdict("holds", word="accepted"),
        "refused": Verdict("refused"),
        "undecided": Verdict("undecided", found.message),
    }[verdict(found)]
    return [
        values,
        f"{found.distance:.3f}",
        f"{found.expected_distance:.3f}",
        f"{found.p_value:.3f}" if np.isfinite(found.p_value) else "undefined",
        badge,
    ]


def _outliers(study: Study) -> Section:
    name = "trained"
    network, found = study.networks[name], study.spectra[name].outliers
    count = len(found)
    measured = network.measured
    leading = network.exact[::-1][: LEADING + 1]
    rows = []
    for exact, following in pairwise(leading):
        at = np.unravel_index(np.nanargmin(np.abs(measured.nodes - exact)), measured.nodes.shape)
        outside = any(abs(item.location - exact) <= item.error + 1e-9 * exact for item in found)
        rows.append(
            [
                f"{measured.nodes[at]:.6g}",
                f"{measured.errors[at]:.1e}",
                f"{exact:.6g}",
                f"{exact / following:.2f}",
                Verdict("holds", word="outlier") if outside else "",
            ]
        )
    return Section(
        title="How many outliers?",
        lead=(
            f"Rule: {found.rule}. Only Ritz values whose error bound clears the gap count, never "
            "quadrature weights."
        ),
        verdict=Verdict(
            "undecided",
            f"{count} by the gap rule after training, {len(study.spectra['initial'].outliers)} at "
            f"initialisation; there are {CLASSES} classes. "
            + (
                "The others run into the bulk, and a count depends on its rule."
                if count
                else "The leading eigenvalues run into the bulk: a heavy tail shows gaps as wide."
            ),
            word=f"{count} found, {CLASSES} classes",
        ),
        items=[
            Table(
                columns=[
                    Column("Ritz value", numeric=True),
                    Column("error bound", numeric=True),
                    Column("exact eigenvalue", numeric=True),
                    Column("ratio to the next", numeric=True),
                    Column(""),
                ],
                rows=rows,
                caption=f"The {LEADING} largest eigenvalues of the trained network's Hessian.",
            )
        ],
        source="rmthess/comparison.py",
    )


def _rank(study: Study) -> Section:
    assert study.rank is not None
    rank = study.rank
    outcome = rank.numerical.verdict(rank.bound)
    widths = "-".join(map(str, rank.widths))
    status = {"equal": "holds", "below": "holds", "violated": "refused"}.get(outcome, "undecided")
    return Section(
        title="The rank of a deep linear network",
        lead=(
            f"The widths {widths} alone bound the rank of the squared-error Hessian everywhere: "
            f"{rank.bound.because}."
        ),
        verdict=Verdict(status, rank.numerical.explain(rank.bound) + "."),  # type: ignore[arg-type]
        items=[
            _figure(
                [lambda axes: _draw_rank(axes, study)],
                caption=(
                    "Magnitudes of all eigenvalues, sorted. They fall off a cliff exactly at the "
                    f"bound; the drop there is a factor of {rank.numerical.gap:.0e}. Inputs are "
                    "whitened: on raw pixels the smallest eigenvalues of the data fill the gap."
                ),
                alt="Sorted eigenvalue magnitudes on a log scale with a cliff at the bound.",
                panels=1,
            )
        ],
        source="rmthess/ranks/linear_network.py, rmthess/ranks/numerical.py",
    )


Draw = Callable[["Axes"], object]


def _figure(draws: list[Draw], *, caption: str, alt: str, panels: int) -> Figure:
    """The panels side by side, and below each other for a phone."""
    from matplotlib.figure import Figure as Canvas

    def drawn(narrow: bool) -> Any:
        columns = 1 if narrow else min(2, panels)
        rows = -(-panels // columns)
        width, height = NARROW if narrow else WIDE
        share = {(False, 4): 1.45, (True, 4): 2.9, (True, 2): 1.7}.get((narrow, panels), 1.0)
        with drawing_style():
            canvas = Canvas(figsize=(width, height * share))
            grid = canvas.subplots(rows, columns, squeeze=False).ravel()
            for axes, draw in zip(grid, draws, strict=True):
                draw(axes)
                if axes.get_legend() is not None:
                    axes.get_legend().remove()
            legend_above(grid[0])
            return to_svg(canvas)

    return Figure(drawn(False), caption, alt, narrow=drawn(True))


def _density_figure(study: Study) -> Figure:
    def panel(name: str) -> Draw:
        network, spectrum = study.networks[name], study.spectra[name]
        exact = DiscreteMeasure.from_eigenvalues(network.exact)
        law = spectrum.fits["semicircle"].law
        width = network.measured.resolution

        def draw(axes: Axes) -> None:
            plot(
                network.measured, exact, law, ax=axes, width=width,
                labels=("Lanczos ± 1 s.e.", "exact eigenvalues", "best semicircle"),
            )  # fmt: skip
            peak = max(line.get_ydata().max() for line in axes.lines)  # type: ignore[union-attr]
            axes.set_yscale("log")
            axes.set_ylim(peak * 3e-5, peak * 2)
            axes.set_title(NAMES[name])

        return draw

    return _figure(
        [panel(name) for name in study.networks],
        caption=(
            "Spectral density of the Hessian, every curve at the resolution of the instrument "
            f"(range/{STEPS}). Lanczos lies on the exact spectrum; the best semicircle does not."
        ),
        alt="Densities at initialisation and after training: Lanczos, exact, best semicircle.",
        panels=len(study.networks),
    )


def _draw_coefficients(study: Study) -> list[Draw]:
    def panel(name: str, measured: LanczosMeasure) -> Draw:
        fits = study.spectra[name].fits

        def draw(axes: Axes) -> None:
            laws = [found.law for found in fits.values()]
            plot_jacobi(measured, *laws, ax=axes, labels=("measured", *LAWS.values()))
            axes.set_title(NAMES[name])

        return draw

    return [panel(name, measured) for name, measured in study.measured.items()]


def _draw_rank(axes: Axes, study: Study) -> None:
    assert study.rank is not None
    sizes = np.sort(np.abs(study.rank.exact))[::-1]
    floor = np.finfo(float).tiny
    axes.semilogy(np.arange(1, sizes.size + 1), np.maximum(sizes, floor), label="|λ|, sorted")
    axes.axvline(study.rank.bound.value, color="C1", linestyle="--", label="bound from the widths")
    axes.set_ylim(bottom=max(sizes[sizes > 0].min() / 3, sizes[0] * 1e-20))
    axes.set_xlabel("index of the eigenvalue")
    axes.set_ylabel("magnitude |λ|")


def _extreme(network: Network, end: int) -> dict[str, float]:
    nodes, errors = network.measured.nodes, network.measured.errors
    at = np.unravel_index(np.nanargmax(nodes) if end else np.nanargmin(nodes), nodes.shape)
    exact = float(network.exact[end])
    return {"exact": exact, "lanczos": float(nodes[at]), "error_bound": float(errors[at])}


def _nearest(network: Network, item: Outlier) -> float:
    return float(network.exact[np.argmin(np.abs(network.exact - item.location))])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
