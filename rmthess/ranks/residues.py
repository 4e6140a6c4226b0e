"""Matrices over the integers modulo a prime of 31 bits: exact, and ranks by python-flint."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PRIME = 2**31 - 1
SECOND_PRIME = 2**31 - 19
PRIMES = {PRIME: "2³¹ − 1", SECOND_PRIME: "2³¹ − 19"}

Residues = NDArray[np.int64]


def times(prime: int, first: Residues, *others: Residues) -> Residues:
    """The product of matrices of residues.  The left factor is split in two so that int64 holds."""
    product: Residues = first
    for factor in others:
        # 2^16 · 2^31 a term: sums of 2^15 terms stay below 2^62
        high, low = (product >> 16) @ factor % prime, (product & 0xFFFF) @ factor
        product = ((high << 16) + low) % prime
    return product


def kron(prime: int, first: Residues, second: Residues) -> Residues:
    return np.asarray(np.kron(first, second) % prime)


def random(
    prime: int, rng: np.random.Generator, rows: int, columns: int, rank: int | None = None
) -> Residues:
    """Uniform residues (rows, columns), or a product of such of the given rank."""
    if rank is None or rank >= min(rows, columns):
        return rng.integers(0, prime, (rows, columns), dtype=np.int64)
    left = rng.integers(0, prime, (rows, rank), dtype=np.int64)
    return times(prime, left, rng.integers(0, prime, (rank, columns), dtype=np.int64))


def rank(prime: int, matrix: Residues) -> int:
    if not matrix.size:
        return 0
    return int(_flint(prime, matrix).rank())


def null_space(prime: int, matrix: Residues) -> Residues:
    """Columns that the matrix maps to zero, a basis."""
    columns = matrix.shape[1]
    if not matrix.shape[0]:
        return np.eye(columns, dtype=np.int64)
    basis, nullity = _flint(prime, matrix).nullspace()
    entries = np.array([int(entry) for entry in basis.entries()], dtype=np.int64)
    return np.asarray(entries.reshape(columns, columns)[:, :nullity])


def _flint(prime: int, matrix: Residues) -> Any:
    from flint import nmod_mat

    rows, columns = matrix.shape
    return nmod_mat(rows, columns, matrix.ravel().tolist(), prime)
