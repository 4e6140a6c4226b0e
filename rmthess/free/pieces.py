"""Real intervals of one measure on which its level is monotone, and the level's inverse there.

Outside the supports a free convolution pairs real points of one level, F₁(w₁) = F₂(w₂) for a sum
and E₁(w₁) = E₂(w₂) for a product (theory/free_convolution.md, "Gaps"). F = w + H has the slope
1 + H' > 1 wherever it is real; E = w N of a signed measure can turn, and is cut where it does. On
each piece the level is then tabulated once and inverted by Newton's method inside a bracket.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.free.excess import Excess

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_LOGITS = np.linspace(-32, 32, 105)  # of the position in a gap


class Pieces:
    """Real intervals of one measure on which its level (F or E) is monotone, tabulated.

    ``level`` runs over all reals on most of them, so it is kept as φ = 1/2 + arctan(level/scale)/π.
    """

    def __init__(
        self,
        gaps: list[tuple[float, float]],
        values: Callable[[Array], Any],
        term: Excess,
        unit: float,
        folds: bool,
    ):
        self.values, self.unit = values, unit
        tables = []
        for a, b in gaps:
            # a pole of H inside, where N = 0: next to one of small residue the level turns steep
            cuts = [a, *term.ends[(term.ends > a) & (term.ends < b)], b]
            w = np.concatenate([_positions(*pair, term.radius) for pair in pairwise(cuts)])
            for end in (a, b):  # H' is sampled next to a wall, H cancels next to its zeros
                near = term.finest * abs(end) if end in term.walls else 1e-8 * term.radius
                w = w[np.abs(w - end) > near]
            levels, slope, strains = values(w)
            sound = (np.abs(levels) < 1e13 * unit) & np.isfinite(slope)  # φ is 0 or 1 beyond
            w, levels, slope, strains = w[sound], levels[sound], slope[sound], strains[sound]
            turned = self._turned(w, slope) if folds else np.array([])
            if turned.size:
                w = np.sort(np.concatenate([w, turned]))
                levels, _, strains = values(w)
            for low, high in pairwise([-np.inf, *turned, np.inf]):
                here = (w >= low) & (w <= high)
                part, level, strain = w[here], levels[here], strains[here]
                if part.size < 2:
                    continue
                if level[-1] < level[0]:
                    part, level, strain = part[::-1], level[::-1], strain[::-1]
                phi = self.squeeze(level)
                rising = np.concatenate([[True], np.diff(np.maximum.accumulate(phi)) > 0])
                tables.append((phi[rising], part[rising], strain[rising]))
        self.tables = [table for table in tables if table[0].size > 1]
        self.keys = np.concatenate([2.0 * k + t[0] for k, t in enumerate(self.tables)])
        self.points = np.concatenate([t[1] for t in self.tables])
        self.starts = np.cumsum([0] + [t[0].size for t in self.tables])

    def _turned(self, w: Array, slope: Array) -> Array:
        """Where the level has an extremum, by bisection on the sign of its slope."""
        sign = np.sign(slope)
        k = np.flatnonzero(sign[:-1] * sign[1:] < 0)
        low, high, first = w[k], w[k + 1], sign[k]
        for _ in range(60 if k.size else 0):
            middle = (low + high) / 2
            same = np.sign(self.values(middle)[1]) == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return np.asarray((low + high) / 2)

    def limit(self, piece: int, phi: float) -> Array:
        """w on that piece, at an end of its table the end itself."""
        at, w, _ = self.tables[piece]
        for end in (0, -1):
            if phi == at[end]:
                return np.asarray(w[[end]])
        return self.invert(np.array([piece]), np.array([phi]))

    def squeeze(self, level: Any) -> Any:
        return 0.5 + np.arctan(level / self.unit) / np.pi

    def unsqueeze(self, phi: Any) -> Any:
        return self.unit * np.tan(np.pi * (phi - 0.5))

    def invert(self, piece: NDArray[np.intp], phi: Array) -> Array:
        """w on that piece with that level: Newton's method in the bracket that the table gives."""
        level = self.unsqueeze(phi)
        k = np.searchsorted(self.keys, 2.0 * piece + phi, side="right")
        k = np.clip(k, self.starts[piece] + 1, self.starts[piece + 1] - 1)
        share = (2.0 * piece + phi - self.keys[k - 1]) / (self.keys[k] - self.keys[k - 1])
        w = self.points[k - 1] + np.clip(share, 0, 1) * (self.points[k] - self.points[k - 1])
        # a point more on either side: next to φ = 1 the keys are too coarse to tell the bracket
        below = self.points[np.maximum(k - 2, self.starts[piece])]
        above = self.points[np.minimum(k + 1, self.starts[piece + 1] - 1)]
        return self.solve(level, below, above, w)[0]

    def solve(
        self, level: Array, below: Array, above: Array, start: Array
    ) -> tuple[Array, Array, Array]:
        """w of that level by Newton's method in a bracket; the slope and log B₁'B₂' of its side."""
        w, slopes, strain = start.copy(), np.empty_like(start), np.empty_like(start)
        active = np.arange(w.size)
        for _ in range(60):
            at = w[active]
            value, slope, strain[active] = self.values(at)
            slopes[active] = slope
            error = value - level[active]
            low = error < 0
            below[active] = np.where(low, at, below[active])
            above[active] = np.where(low, above[active], at)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = at - error / slope
            left = np.minimum(below[active], above[active])
            right = np.maximum(below[active], above[active])
            inside = (step > left) & (step < right)
            new = np.where(inside, step, (left + right) / 2)
            moved = np.abs(new - at) > 4 * _EPS * np.abs(at)
            moved &= np.abs(error) > 8 * _EPS * np.abs(level[active])
            w[active] = np.where(moved, new, at)
            active = active[moved]
            if not active.size:
                break
        return w, slopes, strain


def _positions(a: float, b: float, size: float) -> Array:
    """Points in (a, b), ever denser towards finite ends, ever sparser towards infinite ones."""
    if np.isfinite(a) and np.isfinite(b):
        share = 1 / (1 + np.exp(np.abs(_LOGITS)))  # of the way from the nearer end
        w = np.where(_LOGITS < 0, a + (b - a) * share, b - (b - a) * share)
    elif np.isfinite(a):
        w = a + size * np.exp(_LOGITS)
    else:
        w = b - size * np.exp(-_LOGITS)
    w = np.unique(w)
    return np.asarray(w[(w > a) & (w < b)])
