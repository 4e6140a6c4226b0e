"""What can be wrong with an operator, as exceptions that a caller can tell apart."""

from __future__ import annotations


class NonFiniteError(ValueError):
    """A parameter, a batch, a loss, a gradient or a product holds NaN or infinity."""


class NotSymmetricError(ValueError):
    """An operator that must be symmetric is not; the message holds the measured residual."""


class NonDeterministicError(ValueError):
    """The same evaluation gave two answers; the message names the likely modules."""


class NotLinearError(ValueError):
    """A(u + v) is not A u + A v; the message holds the measured difference."""
