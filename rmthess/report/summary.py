"""summary.json: every number of the page of one spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmthess import __version__
from rmthess.measure import LanczosMeasure
from rmthess.report.reading import LawReading, Reading
from rmthess.report.wording import finite

Quantity = tuple[str, float, float]


def quantities(reading: Reading) -> list[Quantity]:
    """Name, value and standard error (0: exact to rounding; NaN: not known)."""
    measure, counted = reading.measure, reading.inertia
    error: Any = measure.standard_error if isinstance(measure, LanczosMeasure) else lambda f: 0.0

    def spread(rule: Any) -> float:
        return float(np.sqrt(max(rule.moment(2) - rule.moment(1) ** 2, 0.0)))

    rows: list[Quantity] = [
        ("mean", float(measure.moment(1)), float(error(lambda rule: rule.moment(1)))),
        ("standard deviation", spread(measure), float(error(spread))),
    ]
    if measure.dim is not None:
        mean, scatter = rows[0][1:]
        rows.append(("trace", measure.dim * mean, measure.dim * scatter))
    if isinstance(measure, LanczosMeasure):
        places = [np.unravel_index(f(measure.nodes), measure.nodes.shape)
                  for f in (np.nanargmin, np.nanargmax)]  # fmt: skip
        ends = [(float(measure.nodes[at]), float(measure.errors[at])) for at in places]
        ends += [(float(value), float(np.nanmin(measure.errors))) for value in measure.deflated]
        rows += [("least eigenvalue", *min(ends)), ("largest eigenvalue", *max(ends))]
        rows.append(("resolution", measure.resolution, float("nan")))
    else:
        rows += [("least eigenvalue", float(measure.nodes[0]), 0.0)]
        rows += [("largest eigenvalue", float(measure.nodes[-1]), 0.0)]
    if counted is not None and counted.null is not None:
        counts = zip(("negative", "null", "positive"), counted.errors, strict=True)
        rows += [
            (f"{name} eigenvalues", round(float(getattr(counted, name)), 3), round(scatter, 3))
            for name, scatter in counts
        ]
    return rows


def summary(reading: Reading, name: str, seed: int) -> dict[str, Any]:
    """Every number of the page; what is undefined is null."""
    measure, found = reading.measure, reading.outliers
    bulk = reading.bulk
    return {
        "generator": "rmthess",
        "version": __version__,
        "spectrum": name,
        "seed": seed,
        "dim": measure.dim,
        "numbers": [
            {"quantity": quantity, "value": finite(value), "error": finite(error)}
            for quantity, value, error in quantities(reading)
        ],
        "bulk": None if bulk is None else {
            "converged": bulk.converged,
            "edges": [finite(edge) for edge in bulk.edges],
            "errors": [finite(error) for error in bulk.errors],
            "message": bulk.message,
        },
        "outliers": found if isinstance(found, str) else {
            "rules": [str(rule) for rule in found.rules],
            "items": [
                {"location": item.location, "error": finite(item.error), "side": item.side,
                 "seen_by": item.seen_by, "strength": finite(item.strength),
                 "overlap": finite(item.overlap)}
                for item in found
            ],
        },
        "laws": [_law_summary(item) for item in reading.laws],
    }  # fmt: skip


def _law_summary(item: LawReading) -> dict[str, Any]:
    if item.fit is None or item.comparison is None:
        return {"law": item.name, "fitted": False, "message": item.why_not}
    return {
        "law": item.name,
        "fitted": True,
        "parameters": {key: finite(value) for key, value in item.fit.parameters.items()},
        "standard_errors": {
            key: finite(value) for key, value in item.fit.standard_errors.items()
        },
        "distance": finite(item.fit.distance),
        "expected_distance": finite(item.fit.expected_distance),
        "p_value": finite(item.fit.p_value),
        "accepted": item.fit.accepted(),
        "converged": item.fit.converged,
        "message": item.fit.message,
        "rows": [
            {"quantity": row.quantity, "predicted": finite(row.predicted),
             "measured": finite(row.measured), "error": finite(row.error),
             "verdict": row.verdict}
            for row in item.comparison.rows
        ],
    }  # fmt: skip
