"""Random numbers that belong to a place instead of a stream: the same in every order and split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seed: int, first: int, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """u[i, k, j] in (0, 1), a function of seed, sample ``first + i``, draw k and entry j alone.

    ``shape`` (samples, draws, entries). A counter-based generator: SplitMix64's finaliser applied
    once a level. Source: Steele, Lea & Flood, OOPSLA 2014, figure 14; on counters: Salmon, Moraes,
    Dror & Shaw, SC 2011.

    >>> whole, part = uniforms(0, 0, (5, 2, 3)), uniforms(0, 4, (1, 1, 2))
    >>> bool((whole[4:, :1, :2] == part).all())
    True
    """
    hashed = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    for start, size in zip((first, 0, 0), shape, strict=True):
        counters = np.arange(start + 1, start + size + 1, dtype=np.uint64)
        hashed = _mix(hashed[..., None] + counters * _GOLDEN)
    # The upper 53 bits, centred in their interval so that neither 0 nor 1 occurs.
    found: NDArray[np.float64] = ((hashed[0] >> np.uint64(11)) + 0.5) * 2.0**-53
    return found


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
