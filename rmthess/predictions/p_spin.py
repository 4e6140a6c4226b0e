"""The spherical p-spin model: the index of a critical point from its energy (theory/p_spin.md)."""

from __future__ import annotations

from rmthess.arithmetic import check_finite
from rmthess.laws.semicircle import Semicircle
from rmthess.measure import check_order
from rmthess.predictions.prediction import Prediction


def p_spin(order: int, energy: float, spins: int) -> Prediction:
    """Hessian = GOE of variance p(p-1) - pE: a semicircle of radius 2√(p(p-1)) about -pE.

    H(σ) Gaussian with covariance N (σ·σ'/N)^p on the sphere |σ|² = N; the share of negative
    eigenvalues is ``.bulk.cdf(0)``: ½ at E = 0, and 0 up to the threshold energy -2√((p-1)/p).

    Parameters
    ----------
    order : p >= 2, the spins in one product.
    energy : E = H/N, the energy of a spin.
    spins : N; the Riemannian Hessian lives on the tangent space, of dimension N - 1.

    Source
    ------
    Bray & Dean, PRL 98 (2007), 150201; Auffinger, Ben Arous, Černý, CPAM 66 (2013), 165-201.

    >>> p_spin(3, -1.0, 1001).bulk.support[0][0] < 0 < p_spin(3, -2.0, 1001).bulk.support[0][0]
    True
    """
    p = check_order("order", order, least=2)
    check_finite("energy", energy, "the energy of a spin")
    dim = check_order("spins", spins, least=2) - 1
    return Prediction(
        dim=dim,
        bulk=Semicircle(variance=float(p * (p - 1)), mean=-p * float(energy)),
        spikes=(),
        rank=None,
        assumptions=(
            f"a Gaussian energy of {p}-spin products on the sphere",
            "a point chosen by its energy and gradient alone",
        ),
        status="asymptotic",
    )


def threshold_energy(order: int) -> float:
    """E_th = -2√((p-1)/p): critical points above it are saddles of extensive index.

    >>> round(threshold_energy(3), 4)
    -1.633
    """
    p = check_order("order", order, least=2)
    return float(-2 * ((p - 1) / p) ** 0.5)
