"""A deep linear network at a balanced minimum: every eigenvalue (theory/deep_linear_minimum.md)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmthess.arithmetic import check_positive
from rmthess.measure import DiscreteMeasure, check_order
from rmthess.predictions.prediction import Prediction
from rmthess.ranks.network import RankBound

Array = NDArray[np.float64]


def deep_linear_minimum(
    singular_values: ArrayLike, widths: Sequence[int], *, scale: float = 1.0
) -> Prediction:
    """λ_ab = Σ_l s_a^(2(L-l)/L) s_b^(2(l-1)/L), l = 1..L: one for each output a and input b.

    s_a = 0 beyond the rank, 0^0 = 1; all other eigenvalues are 0. The largest is L s_1^(2-2/L).

    Parameters
    ----------
    singular_values : s of the end-to-end map W_L ⋯ W_1, at most min(widths) of them; zeros may be
        left out.
    widths : [d, M_1, …, K], inputs first, outputs last; depth L = len(widths) - 1; no biases.
    scale : the loss is scale · ½ E|W_L ⋯ W_1 x - y|². torch's MSELoss has scale 2/K.

    The minimum is the best linear fit (the residual is uncorrelated with the inputs), the inputs
    are white, E x xᵀ = 1, and the layers balanced, W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ, as gradient flow
    from small weights leaves them.

    Source
    ------
    Saxe, McClelland, Ganguli, arXiv 1312.6120 (the balanced solutions); the spectrum is derived on
    the theory page.

    >>> deep_linear_minimum([3.0, 2.0], [2, 3, 2]).eigenvalues()
    array([0., 0., 0., 0., 0., 0., 0., 0., 4., 5., 5., 6.])
    """
    sizes = [check_order("each width", width) for width in widths]
    if len(sizes) < 2:
        raise ValueError(f"widths must hold at least inputs and outputs, got {list(widths)}")
    check_positive("scale", scale, "the factor of half the squared error")
    s = _checked(singular_values, min(sizes))
    depth, inputs, outputs = len(sizes) - 1, sizes[0], sizes[-1]
    found = scale * _spectrum(_padded(s, outputs), _padded(s, inputs), depth).ravel()
    found = found[found > 0]
    parameters = sum(out * fan_in for fan_in, out in pairwise(sizes))
    values = np.concatenate([found, np.zeros(parameters - found.size)])
    r = s.size
    rank = outputs * inputs if depth == 1 else r * (outputs + inputs - r)
    formula = "Kd" if depth == 1 else f"r(K + d − r) with r = {r}"
    return Prediction(
        dim=parameters,
        bulk=DiscreteMeasure.from_eigenvalues(values),
        spikes=(),
        rank=RankBound(
            rank, parameters - rank, parameters, "proved", f"{formula}: {rank} of {parameters}"
        ),
        assumptions=(
            "a linear network without biases at its best fit",
            "white inputs",
            "balanced layers",
            f"the loss {scale:g} times half the squared error",
        ),
        status="theorem",
    )


def _spectrum(s_out: Array, s_in: Array, depth: int) -> Array:
    """(K, d): λ_ab."""
    layer = np.arange(1, depth + 1)
    after = s_out[:, None] ** (2 * (depth - layer) / depth)
    before = s_in[:, None] ** (2 * (layer - 1) / depth)
    return np.asarray(after @ before.T)


def _padded(s: Array, size: int) -> Array:
    padded = np.zeros(size)
    padded[: s.size] = s
    return padded


def _checked(singular_values: ArrayLike, most: int) -> Array:
    s = np.asarray(singular_values, float)
    if s.ndim != 1:
        raise ValueError(f"singular_values must be a list of numbers, got shape {s.shape}")
    if not (np.isfinite(s).all() and (s >= 0).all()):
        raise ValueError(f"singular_values must be finite and not negative, got {s.tolist()}")
    s = s[s > 0]
    if s.size > most:
        raise ValueError(
            f"{s.size} singular values do not pass a width of {most}; such a network has at most "
            f"{most}, give those of its best fit"
        )
    return s
