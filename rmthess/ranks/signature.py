"""How many directions the functional part of a linear network's Hessian bends up, and down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmthess.ranks.factors import checked_data, checked_weights
from rmthess.ranks.linear_network import linear_network_rank
from rmthess.ranks.numerical import numerical_rank


@dataclass(frozen=True)
class FunctionalSignature:
    """``value == positive − negative``, ``rank == positive + negative``; ``because`` has λ ↦ τ."""

    value: int
    positive: int
    negative: int
    because: str

    @property
    def rank(self) -> int:
        return self.positive + self.negative

    def __str__(self) -> str:
        return f"signature {self.value}: {self.positive} up, {self.negative} down\n{self.because}"


def functional_signature(weights: Sequence[ArrayLike], residual: ArrayLike) -> FunctionalSignature:
    """Signature of H_f, the part of the Hessian with the second derivatives of the network::

        n₊ − n₋ = Σ_λ τ(λ),    τ(λ) = 2 clip(⌈(L − 1) |arg λ| / π⌉, 1, L − 1) − L

    over the nonzero eigenvalues λ of Ωᵀ W, W = W_L ⋯ W_1.  Two layers: always 0, eigenvalues come
    in pairs ±.  More layers: they do not.

    Parameters
    ----------
    weights : W_1, …, W_L of shapes (M_l, M_{l-1}).
    residual : Ω = Σ_n ∂loss/∂f_n x_nᵀ, (K, d); the sign matters.

    Source
    ------
    ``theory/functional_hessian_signature.md``.

    >>> one = np.ones((1, 1))
    >>> print(functional_signature([one, one, one], [[2.0]]))
    signature -1: 1 up, 2 down
    Σ_λ τ(λ) over the eigenvalues of Ωᵀ W: 2 ↦ -1
    """
    matrices = checked_weights(weights)
    outputs, inputs = matrices[-1].shape[0], matrices[0].shape[1]
    Omega = checked_data("residual", residual, inputs, rows=outputs)
    depth = len(matrices)
    if depth == 1:
        return FunctionalSignature(0, 0, 0, "one layer is linear in its parameters")
    s = _decided(np.linalg.svd(Omega, compute_uv=False), "the residual")
    W = matrices[0]
    for weight in matrices[1:]:
        W = weight @ W
    values = np.linalg.eigvals(Omega.T @ W)
    values = values[np.argsort(-np.abs(values), kind="stable")]
    found = _decided(np.abs(values), "Ωᵀ W")
    widths = [inputs, *(matrix.shape[0] for matrix in matrices)]
    most = min(s, *widths[1:-1])
    if found != most:
        raise ValueError(
            f"Ωᵀ W must have {most} nonzero eigenvalues as at a generic point, got {found}; "
            "a weight is rank-deficient, or the residual is orthogonal to the network"
        )
    turns = np.ceil((depth - 1) * np.abs(np.angle(values[:found])) / np.pi)
    tau = (2 * np.clip(turns, 1, depth - 1) - depth).astype(int)
    rank = linear_network_rank(widths, part="functional", residual_rank=s).value
    value = int(tau.sum())
    listed = ", ".join(f"{_short(z)} ↦ {t}" for z, t in zip(values[:found], tau))
    return FunctionalSignature(
        value=value,
        positive=(rank + value) // 2,
        negative=(rank - value) // 2,
        because=f"Σ_λ τ(λ) over the eigenvalues of Ωᵀ W: {listed}",
    )


def _decided(sizes: ArrayLike, of: str) -> int:
    rank = numerical_rank(sizes)
    if rank.value is None:
        raise ValueError(f"the rank of {of} cannot be decided: {rank.doubt}")
    return rank.value


def _short(value: complex) -> str:
    return f"{value.real:.3g}" if value.imag == 0 else f"{value:.3g}"
