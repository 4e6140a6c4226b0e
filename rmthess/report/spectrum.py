"""The report of one measured spectrum: figures first, numbers in tables, provenance last."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from rmthess.detection import Outliers
from rmthess.measure import LanczosMeasure
from rmthess.plots import plot, plot_jacobi, plot_ritz
from rmthess.report.document import Column, Document, Figure, Section, Table, Text, Verdict
from rmthess.report.law_section import law_section
from rmthess.report.panels import Panel, panels
from rmthess.report.provenance import SPECTRUM, provenance
from rmthess.report.reading import Reading
from rmthess.report.summary import quantities, summary
from rmthess.report.wording import error_bar, number, sentence
from rmthess.storage import encode

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def document(reading: Reading, name: str, command: str, seed: int) -> Document:
    """The page. ``name`` of the spectrum; ``command`` is what to type for the same page."""
    return Document(
        title=f"The spectrum {name}",
        lead=_lead(reading),
        items=_first_figures(reading),
        sections=[
            _numbers(reading),
            *([_bulk(reading)] if reading.bulk is not None else []),
            _outliers(reading),
            *(law_section(reading, item) for item in reading.laws),
        ],
        provenance=provenance(reading, command, seed),
    )


def files(reading: Reading, name: str, seed: int) -> dict[str, bytes]:
    """summary.json and the spectrum itself, to be written beside the page."""
    text = json.dumps(summary(reading, name, seed), indent=2, ensure_ascii=False, allow_nan=False)
    return {"summary.json": (text + "\n").encode(), SPECTRUM: encode(reading.measure)}


def _lead(reading: Reading) -> str:
    measure = reading.measure
    if isinstance(measure, LanczosMeasure):
        deflated = measure.deflated.size
        return (
            f"A matrix of side {measure.dim}, seen by Lanczos: {measure.steps} steps from each of "
            f"{measure.probes} random vectors"
            + (f", {deflated} eigenvalues known beforehand." if deflated else ".")
        )
    if measure.dim == measure.nodes.size:
        return f"All {measure.nodes.size} eigenvalues of a matrix."
    side = "of unknown side" if measure.dim is None else f"of side {measure.dim}"
    return f"{measure.nodes.size} weighted nodes of the spectrum of a matrix {side}."


def _first_figures(reading: Reading) -> list[Figure]:
    measure = reading.measure
    figures = [panels(_density_panels(reading), columns=1, **_density_words(reading))]
    if reading.heavy:
        figures.append(
            panels(
                [Panel(lambda axes: plot(measure, ax=axes, labels=("measured",), axis="log"))],
                caption=(
                    "Mass per decade of |λ|, positive eigenvalues above the line and negative ones "
                    "below it. What is not resolved near 0 is stated in the legend and not drawn."
                ),
                alt="Density on a logarithmic axis.",
            )
        )
    return figures


def _density_panels(reading: Reading) -> list[Panel]:
    measure, found = reading.measure, reading.outliers
    ends = np.asarray(measure.breakpoints, float)[[0, -1]]
    margin = 0.04 * float(np.ptp(ends)) or 1.0
    limits = (ends[0] - margin, ends[1] + margin)

    def density(axes: Axes) -> None:
        plot(measure, ax=axes, labels=("measured",))
        axes.set_xlim(*limits)
        if reading.heavy or _is_peaked(axes):
            top = axes.dataLim.y1
            axes.set_yscale("log")
            axes.set_ylim(top * 3e-6, top * 2)

    def rug(axes: Axes) -> None:
        assert isinstance(measure, LanczosMeasure)
        threshold = None if isinstance(found, str) else (found.left, found.right)
        plot_ritz(measure, ax=axes, threshold=threshold)
        axes.set_xlim(*limits)

    if not isinstance(measure, LanczosMeasure):
        return [Panel(density)]
    return [Panel(density, height=0.85), Panel(rug, height=0.35 + 0.04 * min(measure.probes, 16))]


def _is_peaked(axes: Axes) -> bool:
    """Whether a linear axis would show one spike and a flat line."""
    heights = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    curve = max(heights, key=len, default=np.empty(0))
    positive = curve[curve > 1e-9]
    return bool(positive.size and positive.max() > 100 * np.median(positive))


def _density_words(reading: Reading) -> dict[str, str]:
    measure = reading.measure
    if isinstance(measure, LanczosMeasure):
        return {
            "caption": (
                f"Density at the resolution of the run, {measure.resolution:.3g} (range/steps), in "
                "a band of ± 1 standard error over probes. Below: every Ritz value with its error "
                "bound; a converged one is an eigenvalue. Dashed: beyond these lines eigenvalues "
                "count as outliers."
            ),
            "alt": "Spectral density and Ritz values of every probe.",
        }
    return {
        "caption": "Histogram of the eigenvalues; what many share is a stem of that mass.",
        "alt": "Histogram of the eigenvalues.",
    }


def _numbers(reading: Reading) -> Section:
    counted = reading.inertia
    undecided = counted is not None and counted.null is None
    return Section(
        title="Numbers",
        lead=(
            "Errors are standard errors over probes; of an extreme eigenvalue the bound on its "
            "distance to the Ritz value."
            if isinstance(reading.measure, LanczosMeasure)
            else "Of all eigenvalues, exact to rounding."
        ),
        items=[
            Table(
                [Column("quantity"), Column("value", True), Column("error", True)],
                [
                    [name, number(value), error_bar(error)]
                    for name, value, error in quantities(reading)
                ],
                "Numbers read off the measurement.",
            ),
            *([Text(f"{str(counted)[0].upper()}{str(counted)[1:]}.")] if undecided else []),
        ],
        source="rmthess/metrics.py",
    )


def _bulk(reading: Reading) -> Section:
    measure, bulk = reading.measure, reading.bulk
    assert isinstance(measure, LanczosMeasure)
    assert bulk is not None
    laws = {item.name: item.fit.law for item in reading.laws if item.fit is not None}
    shown = [Panel(lambda axes: plot_jacobi(
        measure, *laws.values(), ax=axes, labels=("measured", *laws)))]  # fmt: skip

    def density(axes: Axes) -> None:
        left, right = bulk.edges
        x = left + (right - left) * np.sin(np.linspace(0, np.pi / 2, 601)) ** 2
        middle, error = bulk.density(x), bulk.density_error(x)
        (line,) = axes.plot(x, middle, label="density, no bandwidth")
        axes.fill_between(
            x, middle - error, middle + error, color=line.get_color(), alpha=0.25, linewidth=0
        )
        axes.set_xlabel("eigenvalue λ")
        axes.set_ylabel("density ρ(λ)")
        axes.legend()

    if bulk.converged:
        shown.append(Panel(density))
    return Section(
        title="The bulk",
        lead=(
            "Of one interval with square-root edges the Lanczos coefficients settle, aₖ → a and "
            "bₖ → b, and the edges are a ± 2b; the continued fraction that ends in a and b is a "
            "density without a bandwidth."
        ),
        verdict=Verdict(
            "holds" if bulk.converged else "undecided",
            f"{sentence(str(bulk))}.",
            word="one cut" if bulk.converged else "no one-cut bulk",
        ),
        items=[
            panels(
                shown,
                caption=(
                    "Local edges aₖ ± 2bₖ at each step, averaged over probes."
                    + (" Lines: the fitted laws at this side." if laws else "")
                ),
                alt="Lanczos coefficients against the step.",
            )
        ],
        source="rmthess/one_cut.py",
    )


def _outliers(reading: Reading) -> Section:
    found = reading.outliers
    source = "rmthess/detection.py"
    if isinstance(found, str):
        return Section("Outliers", verdict=Verdict("missing", found), source=source)
    strengths = any(np.isfinite(item.strength) for item in found)
    columns = [Column("location", True), Column("error bound", True), Column("probes", True)]
    if strengths:
        columns += [Column("spike strength", True), Column("overlap", True)]
    rows: list[list[str | Verdict]] = [
        [number(item.location), error_bar(item.error), str(item.seen_by),
         *([number(item.strength), f"{item.overlap:.3f}"] if strengths else [])]
        for item in sorted(found, key=lambda item: -abs(item.location))[:201]
    ]  # fmt: skip
    table = Table(columns, rows, _outlier_caption(found, len(rows)))
    return Section(
        title="Outliers",
        lead=(
            "An eigenvalue counts only where its value and its error bound clear the threshold; "
            "quadrature weights never do. Of three rules the first that applies is followed."
        ),
        verdict=Verdict(
            "undecided" if found.rules[0].name == "gap" else "holds",
            f"{sentence(str(found.rules[0]))}.",
            word=f"{len(found)} found",
        ),
        items=[
            Table(
                [Column("rule"), Column("outliers", True), Column("beyond", True),
                 Column("because")],
                [
                    [
                        rule.name, "—" if rule.count is None else str(rule.count),
                        "—" if rule.count is None
                        else f"{number(rule.left)} and {number(rule.right)}",
                        rule.because,
                    ]
                    for rule in found.rules
                ],
                "What each rule says; the first was followed.",
            ),
            *([table] if rows else []),
            *_deflation_advice(reading, len(found)),
        ],
        source=source,
    )  # fmt: skip


def _deflation_advice(reading: Reading, count: int) -> list[Text]:
    measure = reading.measure
    if not (count and reading.laws and isinstance(measure, LanczosMeasure)):
        return []
    if measure.deflated.size >= count:
        return []
    return [
        Text(
            "Outliers are no part of a law of the bulk and may refuse it below. Measure again with "
            f"`deflate={count}` to fit the bulk alone."
        )
    ]


def _outlier_caption(found: Outliers, shown: int) -> str:
    most = "The 200 largest in modulus; all" if shown > 200 else "All"
    return f"{most} {len(found)} stand in summary.json."
