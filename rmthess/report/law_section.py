"""One law beside one spectrum: verdict, four panels, parameters, rows."""

from __future__ import annotations

import numpy as np

from rmthess.fitting import LEVEL, Fit
from rmthess.measure import LanczosMeasure
from rmthess.plots import plot_fit, plot_jacobi_residuals, plot_quantiles, plot_residuals
from rmthess.report.document import Column, Section, Table, Verdict
from rmthess.report.panels import Panel, panels
from rmthess.report.reading import LawReading, Reading
from rmthess.report.wording import error_bar, number, sentence


def law_section(reading: Reading, item: LawReading) -> Section:
    title = f"Does {item.name} hold?"
    if item.fit is None or item.comparison is None:
        return Section(title, verdict=Verdict("missing", f"{sentence(item.why_not)}."))
    found, comparison = item.fit, item.comparison
    measure, law = reading.measure, item.fit.law
    shown = [
        Panel(lambda axes: plot_fit(measure, law, ax=axes)),
        Panel(lambda axes: plot_quantiles(measure, law, ax=axes)),
        Panel(lambda axes: plot_residuals(comparison, ax=axes)),
        Panel(lambda axes: plot_jacobi_residuals(measure, law, ax=axes))
        if isinstance(measure, LanczosMeasure)
        else Panel(lambda axes: plot_residuals(comparison, "cdf", ax=axes)),
    ]
    if reading.heavy:
        shown[:2] = [
            Panel(lambda axes: plot_fit(measure, law, ax=axes, axis="log")),
            Panel(lambda axes: plot_quantiles(measure, law, ax=axes, axis="log")),
        ]
    return Section(
        title=title,
        lead=(
            "The law is fitted in the coordinates that the instrument reads. Random matrices of "
            "the fitted law then go through the same run and the same fit: p is the share of them "
            f"that lie as far from their best fit as the data do. Refused at p ≤ {LEVEL:g}."
        ),
        verdict=_verdict(found),
        items=[
            panels(
                shown,
                caption=_caption(isinstance(measure, LanczosMeasure)),
                alt=f"Four panels: the spectrum beside {item.name}.",
            ),
            _parameters(found),
            Table(
                [Column("quantity"), Column("predicted", True), Column("measured", True),
                 Column("error", True), Column("verdict")],
                [
                    [row.quantity, number(row.predicted), number(row.measured),
                     error_bar(row.error), _ROW[row.verdict]]
                    for row in comparison.rows
                ],
                f"W₁ {comparison.wasserstein:.3g}, Kolmogorov distance "
                f"{comparison.kolmogorov:.3g}. A row agrees within 3 standard errors.",
            ),
        ],
        source="rmthess/fitting.py, rmthess/comparison.py",
    )  # fmt: skip


def _caption(is_run: bool) -> str:
    if not is_run:
        return (
            "Histogram beside the law; measured against predicted quantiles; what the law leaves "
            "of the density, both smoothed, and of the cdf."
        )
    return (
        "Density beside the law, as the instrument resolves it and exactly (dotted); measured "
        "against predicted quantiles; what the law leaves of the density, in a band of ± 3 "
        "standard errors; and what it leaves of the Lanczos coefficients."
    )


_ROW = {
    "agrees": Verdict("holds", word="agrees"),
    "differs": Verdict("refused", word="differs"),
    "no error bar": Verdict("missing", word="no error bar"),
}


def _verdict(found: Fit) -> Verdict:
    if found.accepted():
        return Verdict("holds", found.message, word="not refused")
    if found.p_value <= LEVEL:
        return Verdict("refused", found.message)
    return Verdict("undecided", found.message)


def _parameters(found: Fit) -> Table:
    remarks = {
        **dict.fromkeys(found.undetermined, "undetermined"),
        **dict.fromkeys(found.at_bound, "at the end of its range"),
    }
    distance = f"Distance {found.distance:.3g} standard deviations of the spectrum"
    if np.isfinite(found.expected_distance):
        distance += f"; expected if true {found.expected_distance:.3g}, p = {found.p_value:.3g}"
    return Table(
        [Column("parameter"), Column("value", True), Column("standard error", True), Column("")],
        [
            [name, number(value), error_bar(found.standard_errors[name]), remarks.get(name, "")]
            for name, value in found.parameters.items()
        ],
        f"{distance}, of {found.draws} random matrices.",
    )
