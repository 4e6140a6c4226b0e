"""A measure at finite resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure

Array = NDArray[np.float64]

_MOST_NODES = 40001


def smooth(measure: SpectralMeasure, x: ArrayLike, width: float) -> Array:
    """The measure at the points ``x``, convolved with a Gaussian of that standard deviation."""
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}; it is a standard deviation")
    if isinstance(measure, Law):
        reach = float(np.ptp(measure.breakpoints))
        # nodes at most half a width apart, or the Gaussians would show one by one
        nodes, weights = measure.quadrature(int(np.clip(4 * reach / width, 512, _MOST_NODES)))
    else:
        rules = measure.pooled if isinstance(measure, LanczosMeasure) else measure
        if not isinstance(rules, DiscreteMeasure):
            raise TypeError(f"cannot smooth a {type(measure).__name__}")
        nodes, weights = rules.nodes, rules.weights
    points = np.asarray(x, float)
    total = np.zeros(points.shape)
    for start in range(0, nodes.size, 512):  # bounded memory for long lists of eigenvalues
        part = slice(start, start + 512)
        total += np.exp(-0.5 * ((points[..., None] - nodes[part]) / width) ** 2) @ weights[part]
    return np.asarray(total / (width * np.sqrt(2 * np.pi)))
