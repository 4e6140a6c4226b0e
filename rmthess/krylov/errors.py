"""What a run that did not finish leaves behind."""

from __future__ import annotations

from rmthess.measure import LanczosMeasure


class LanczosError(RuntimeError):
    """A run that stopped at product ``product``; ``partial`` holds the steps before it, or None."""

    def __init__(self, message: str, product: int, partial: LanczosMeasure | None = None) -> None:
        super().__init__(message)
        self.product = product
        self.partial = partial


class LanczosInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run; ``partial`` holds the completed steps, or None before the first."""

    def __init__(self, message: str, partial: LanczosMeasure | None) -> None:
        super().__init__(message)
        self.partial = partial
