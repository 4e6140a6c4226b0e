"""Pennington and Bahri's Hessian of a network from its widths (theory/wishart_plus_wigner.md)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rmthess.arithmetic import arithmetic, check_positive, plain
from rmthess.free.boxplus import boxplus
from rmthess.laws.free_compound_poisson import FreeCompoundPoisson
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.laws.wishart_plus_wigner import WishartPlusWigner
from rmthess.measure import DiscreteMeasure, check_order
from rmthess.predictions.prediction import Prediction

FUNCTIONALS = ("wigner", "relu")


def wishart_plus_wigner(
    widths: Sequence[int], samples: int, energy: float, *, functional: str = "wigner"
) -> Prediction:
    """R(w) = 1/(1 - φw) + R_1(w), φ = parameters/(outputs · samples), ε the loss a residual::

        functional = "wigner"    R_1 = 2ε w                      any network
        functional = "relu"      R_1 = εφ w/(2 - ε φ² w²)        one hidden layer, all widths equal

    Curvature is measured in units of the mean of the positive part. The index, the share of
    negative eigenvalues, is ``.bulk.cdf(0)``; it is 0 up to ``critical_energy`` of φ in
    ``rmthess.laws.wishart_plus_wigner``, or ``relu_critical_energy`` here. Near there it grows as
    C (ε - ε_c)^(3/2), a law that is 8% off at 1.1 ε_c and 80% at 2 ε_c for φ = 1/4: use the index.

    This is a baseline. The parts of a real Hessian share eigenvectors: on the digits the index of a
    ReLU network with one hidden layer stays near h(C-1) at any loss, and the size of its negative
    eigenvalues follows the loss. See ``one_hidden_relu``.

    Parameters
    ----------
    widths : [d, M_1, …, K], without biases.
    samples : number of data.
    energy : ε = ½ mean e² over samples and outputs: half of torch's MSELoss.

    Source
    ------
    Pennington & Bahri, ICML 2017.

    >>> wishart_plus_wigner([16, 16, 16], samples=64, energy=0.2).bulk
    WishartPlusWigner(ratio=0.5, energy=0.2)
    """
    sizes = [check_order("each width", width) for width in widths]
    if len(sizes) < 2:
        raise ValueError(f"widths must hold at least inputs and outputs, got {list(widths)}")
    check_order("samples", samples)
    check_positive("energy", energy, "half the mean squared residual")
    if functional not in FUNCTIONALS:
        raise ValueError(f"functional must be one of {', '.join(FUNCTIONALS)}, got {functional!r}")
    if functional == "relu" and (len(sizes) != 3 or len(set(sizes)) != 1):
        raise ValueError(
            f"the ReLU form is that of one hidden layer with all widths equal, got {sizes}; "
            "one_hidden_relu predicts any such widths from the data"
        )
    parameters = sum(out * fan_in for fan_in, out in pairwise(sizes))
    ratio = parameters / (sizes[-1] * samples)
    bulk: Law = WishartPlusWigner(ratio, float(energy))
    if functional == "relu":
        whole = boxplus(MarchenkoPastur(ratio), relu_functional(ratio, float(energy)))
        assert isinstance(whole, Law)
        bulk = whole
    return Prediction(
        dim=parameters,
        bulk=bulk,
        spikes=(),
        rank=None,
        assumptions=(
            "a positive part of random gradients and an independent indefinite part in general "
            "position, which the Hessians of real ReLU networks are not",
            "squared error",
            "curvature in units of the mean of the positive part",
        ),
        status="asymptotic",
    )


def relu_functional(ratio: float, energy: float) -> FreeCompoundPoisson:
    """R(w) = εφ w/(2 - ε φ² w²): jumps ±φ√(ε/2) at rate 1/φ; second moment εφ/2.

    The indefinite part for one hidden layer of ReLU units, all widths n, m samples, φ = 2n/m: a
    block [[0, B], [Bᵀ, 0]] a unit, B = Σ e xᵀ/m over the samples that switch it on, about half of
    them, with residuals e (n,) of variance 2ε and inputs x (n,) of variance 1.

    >>> relu_functional(0.5, 0.5).levy[1]
    array([-0.25,  0.25])
    """
    check_positive("ratio", ratio, "parameters per residual")
    check_positive("energy", energy, "half the mean squared residual")
    jump = float(ratio) * float(np.sqrt(energy / 2))
    return FreeCompoundPoisson(1 / ratio, DiscreteMeasure([-jump, jump], [0.5, 0.5]))


def relu_critical_energy(ratio: Any) -> Any:
    """ε_c = a³/((1 - a)(2 - φ - a)²), a = 4(2 - φ)(1 - φ)/(7 - 4φ + √(1 + 16φ - 8φ²)).

    The index of ``functional="relu"`` is 0 up to this energy; 0 for φ >= 1. Pennington & Bahri,
    ICML 2017, give it as (27 - 18χ - χ² + 8χ^(3/2))/(32φ(1-φ)³), χ = 1 + 16φ - 8φ².

    >>> round(relu_critical_energy(0.5), 12)
    0.081036709809
    """
    check_positive("ratio", ratio, "parameters per residual")
    xp = arithmetic(ratio)
    below = xp.positive_part(1 - ratio)
    root = xp.sqrt(xp.positive_part(1 + 16 * ratio - 8 * ratio**2))
    a = 4 * (1 + below) * below / (3 + 4 * below + root)
    return plain(a**3 / ((1 - a) * (1 + below - a) ** 2))
