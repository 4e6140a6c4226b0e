"""Start vectors: what a Lanczos run asks about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.floating[Any]]
Projector = Callable[[Tensor], Tensor]

_DRAW: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "sphere": lambda rng, dim: rng.standard_normal(dim),
    "rademacher": lambda rng, dim: rng.integers(0, 2, dim) * 2.0 - 1.0,
}


class Starts(ABC):
    """Unit vectors, one a probe: the same on every device and in every split into groups."""

    @abstractmethod
    def vector(self, probe: int) -> Array:
        """Start (dim,) of that probe, of any length but zero."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """For the provenance."""

    def unit(self, probe: int, device: torch.device, project: Projector | None = None) -> Tensor:
        """q_1 (dim,) in float64, within what ``project`` leaves of columns."""
        vector = self.vector(probe)
        vector = vector / np.abs(vector).max()  # so that no square overflows
        unit = torch.from_numpy(vector / np.linalg.norm(vector)).to(device)
        if project is None:
            return unit
        for _ in range(2):
            unit = project(unit[:, None])[:, 0]
        left = float(torch.linalg.vector_norm(unit))
        if left < 1e-8:
            raise ValueError(
                f"start {probe} lies in the span of the deflated vectors (its part outside is "
                f"{left:.0e} of it); nothing of it is left to measure"
            )
        return unit / left


@dataclass(frozen=True)
class RandomStarts(Starts):
    """Probe i is drawn on the CPU from child i of ``seed``: the first k of many are those of k.

    "sphere": uniform on the unit sphere. A Gaussian vector v = |v| u is the same thing: its
    direction u is uniform, and weighting the rule of u by |v|²/dim (Hutchinson) multiplies it by
    a factor that is independent of u and has mean 1 and variance 2/dim, so that an estimate t
    only gains the variance (2/dim) E t², and mass is no longer 1. "rademacher": random signs; its
    variance is 2 Σ_{i≠j} A_ij²/dim², where the sphere's is about 2 Σ_i (λ_i - mean)²/dim²: better
    for a matrix that is nearly diagonal in the given coordinates, no better otherwise.

    >>> RandomStarts(2, 0, "rademacher").vector(1)
    array([1., 1.])
    """

    dim: int
    seed: int
    distribution: str

    def __post_init__(self) -> None:
        if self.distribution not in _DRAW:
            hint = "; a Gaussian vector, normalised, is 'sphere'" * (
                self.distribution == "gaussian"
            )
            raise ValueError(
                f"distribution must be one of {sorted(_DRAW)}, got {self.distribution!r}{hint}"
            )

    def vector(self, probe: int) -> Array:
        child = np.random.SeedSequence(self.seed, spawn_key=(probe,))
        return _DRAW[self.distribution](np.random.default_rng(child), self.dim)

    def record(self) -> dict[str, Any]:
        return {"seed": int(self.seed), "distribution": self.distribution}


@dataclass(frozen=True)
class GivenStarts(Starts):
    """Columns of ``vectors`` (dim, k)."""

    vectors: Array

    @classmethod
    def read(cls, start: ArrayLike | Tensor, dim: int) -> GivenStarts:
        if isinstance(start, Tensor):
            start = start.detach().cpu().to(torch.float64).numpy()
        found = np.asarray(start, float)
        if found.ndim == 1:
            found = found[:, None]
        if found.ndim != 2 or found.shape[0] != dim or found.shape[1] == 0:
            raise ValueError(f"start must have shape ({dim},) or ({dim}, k), got {np.shape(start)}")
        if not np.isfinite(found).all() or not found.any(axis=0).all():
            raise ValueError("start must be finite and have no zero column")
        return cls(found)

    def vector(self, probe: int) -> Array:
        return self.vectors[:, probe]

    def record(self) -> dict[str, Any]:
        return {"seed": None, "distribution": "start"}
