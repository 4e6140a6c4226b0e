"""Which of several families: by held-out probes, or by an information criterion.

Families are compared in the coordinates of the instrument (``rmthess/instrument.py``), which are
the same for all of them.

* Lanczos from at least four probes: each probe in turn is predicted from a fit to the others. The
  score of a family is the mean squared distance of the probes left out; two families are told apart
  where the difference exceeds twice its standard error over the probes. It needs no ensemble, and
  no law has to be right.
* Eigenvalues, or fewer probes: one matrix has nothing to hold out. The coordinates are condensed to
  twelve, and their likelihood is that of a Gaussian with the mean and the covariance of matrices
  drawn from each best fit (a synthetic likelihood: Wood, Nature 466, 2010). The score is Akaike's
  -2 log L + 2 parameters; families within 2 of each other are not told apart (Burnham & Anderson,
  *Model Selection and Multimodel Inference*, 2002, section 2.6).

Where two families cannot be told apart the one of fewer parameters is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rmthess.families import Family
from rmthess.fitting import Fit, fit
from rmthess.instrument import Axis, Instrument, NoDraws, Window, instrument_of
from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure

Array = NDArray[np.float64]

HELD_OUT = 4  # fewer probes say too little of each other
CLEAR = 2.0  # standard errors, or units of Akaike's criterion
_COORDINATES = 12
_DRAWS = 200


@dataclass(frozen=True)
class Candidate:
    """A family and its fit; ``score`` the lower the better, ``behind`` the best by that much.

    ``error`` of ``behind``: a standard error over the probes; 1 for an information criterion.
    ``tied`` where the data do not tell it from the best. ``why`` it has no score, if it has none.
    """

    name: str
    fit: Fit | None
    parameters: int
    score: float
    behind: float
    error: float
    tied: bool
    why: str = ""


@dataclass(frozen=True)
class Choice:
    """The families in order of their score, the chosen one, and the reason in a sentence."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    criterion: str
    reason: str

    @property
    def fit(self) -> Fit:
        assert self.chosen.fit is not None
        return self.chosen.fit

    def __str__(self) -> str:
        lines = [
            self.reason,
            f"{'family':<28}{'parameters':>10}{self.criterion:>20}{'behind':>12}{'p-value':>9}",
        ]
        for item in self.candidates:
            p_value = item.fit.p_value if item.fit is not None else np.nan
            mark = "  " + (item.why or ("not told apart" if item.tied else ""))
            lines.append(
                f"{item.name:<28}{item.parameters:>10}{item.score:>20.5g}{item.behind:>12.3g}"
                f"{p_value:>9.2g}{mark if item is not self.chosen else '  chosen'}"
            )
        return "\n".join(line.rstrip() for line in lines)


def choose(
    families: Sequence[Callable[..., Law]],
    measure: DiscreteMeasure | LanczosMeasure,
    *,
    window: Window | None = None,
    dim: int | None = None,
    axis: Axis = "linear",
    floor: float | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> Choice:
    """The family that predicts best what was not fitted; options as of :func:`fit`.

    >>> from rmthess import MarchenkoPastur, Semicircle
    >>> values = MarchenkoPastur(0.3).sample(100, np.random.default_rng(0))
    >>> found = choose([Semicircle, MarchenkoPastur], DiscreteMeasure.from_eigenvalues(values))
    >>> found.chosen.name
    'MarchenkoPastur'
    """
    if len(families) < 2:
        raise ValueError(f"a choice needs at least two families, got {len(families)}")
    names = [_name(each) for each in families]
    if len(set(names)) < len(names):
        raise ValueError(f"families need different names, got {', '.join(names)}")
    instrument = instrument_of(measure, window, dim, axis, floor)
    fits: list[Fit | str] = []
    for family in families:
        try:
            fits.append(
                fit(family, measure, window=window, dim=dim, axis=axis, floor=floor,
                    bootstrap=bootstrap, seed=seed)
            )  # fmt: skip
        except (ValueError, np.linalg.LinAlgError) as error:
            fits.append(f"no fit: {error}")
    held_out = isinstance(measure, LanczosMeasure) and measure.probes >= HELD_OUT
    if held_out:
        assert isinstance(measure, LanczosMeasure)
        scores: list[Array | float | str] = [
            _left_out(family, found, measure, window, dim, axis, getattr(instrument, "floor", None))
            for family, found in zip(families, fits, strict=True)
        ]
    else:
        scores = [_criterion(found, instrument, seed) for found in fits]
    return _ranked(names, fits, scores, held_out)


def _name(family: Callable[..., Law]) -> str:
    if isinstance(family, Family):
        return family.name
    return getattr(family, "__name__", repr(family))


# ---------------------------------------------------------------------------- scores


def _left_out(
    family: Callable[..., Law],
    found: Fit | str,
    measure: LanczosMeasure,
    window: Window | None,
    dim: int | None,
    axis: Axis,
    floor: float | None,
) -> Array | str:
    """Squared distance of each probe from a fit to the others."""
    if isinstance(found, str):
        return found
    scores = []
    for probe in range(measure.probes):
        rest = _probes(measure, [k for k in range(measure.probes) if k != probe])
        try:
            trained = fit(
                family, rest, window=window, dim=dim, axis=axis, floor=floor,
                start=found.parameters, bootstrap=0,
            )  # fmt: skip
        except ValueError as error:
            return f"no fit without probe {probe + 1}: {error}"
        seen = instrument_of(_probes(measure, [probe]), window, dim, axis, floor)
        scores.append(float(np.sum((seen.observe() - seen.expect(trained.law)) ** 2)))
    return np.array(scores)


def _probes(measure: LanczosMeasure, kept: list[int]) -> LanczosMeasure:
    return LanczosMeasure(
        measure.diagonals[kept], measure.off_diagonals[kept], measure.residuals[kept],
        measure.dim, measure.provenance, measure.deflated,
    )  # fmt: skip


def _criterion(found: Fit | str, instrument: Instrument, seed: int) -> float | str:
    """-2 log L + 2 parameters, L Gaussian in the condensed coordinates."""
    if isinstance(found, str):
        return found
    try:
        draws = instrument.draw(found.law, _DRAWS, seed + 1).coordinates
    except NoDraws as reason:
        return f"no score: {reason}"
    condensed, seen = _condensed(draws), _condensed(instrument.observe()[None])[0]
    mean, covariance = condensed.mean(axis=0), np.cov(condensed.T)
    rest = np.linalg.solve(covariance, seen - mean)
    # the inverse of an estimated covariance is too large by this (Hartlap et al., A&A 464, 2007)
    unbiased = (_DRAWS - seen.size - 2) / (_DRAWS - 1)
    squared = unbiased * float((seen - mean) @ rest)
    volume = float(np.linalg.slogdet(covariance)[1])
    return float(squared + volume + 2 * len(found.parameters))


def _condensed(coordinates: Array) -> Array:
    """Means of twelve blocks of neighbouring coordinates, (draws, n) to (draws, at most 12)."""
    blocks = np.array_split(
        np.arange(coordinates.shape[1]), min(_COORDINATES, coordinates.shape[1])
    )
    return np.array([coordinates[:, block].mean(axis=1) for block in blocks]).T


# ---------------------------------------------------------------------------- verdict


def _ranked(
    names: list[str], fits: list[Fit | str], scores: Sequence[Array | float | str], held_out: bool
) -> Choice:
    means = [np.inf if isinstance(score, str) else float(np.mean(score)) for score in scores]
    if not np.isfinite(means).any():
        reasons = "; ".join(f"{name}: {score}" for name, score in zip(names, scores, strict=True))
        raise ValueError(f"none of the families has a score ({reasons})")
    best = int(np.argmin(means))
    candidates = []
    for name, found, score, mean in zip(names, fits, scores, means, strict=True):
        ahead = scores[best]
        behind, error = mean - means[best], 1.0
        if held_out and not isinstance(score, str) and not isinstance(ahead, str):
            apart = np.asarray(score) - np.asarray(ahead)
            error = float(apart.std(ddof=1) / np.sqrt(apart.size))
        whole = found if isinstance(found, Fit) else None
        candidates.append(
            Candidate(
                name, whole, len(whole.parameters) if whole else 0, mean, behind, error,
                bool(behind <= CLEAR * error), score if isinstance(score, str) else "",
            )
        )  # fmt: skip
    ordered = sorted(candidates, key=lambda item: item.score)
    tied = [item for item in ordered if item.tied]
    # ties break to fewer parameters, then to the better score
    chosen = min(tied, key=lambda item: item.parameters)
    tied = [item for item in tied if item is not chosen]
    chosen = replace(chosen, tied=True)
    ordered = [chosen if item.name == chosen.name else item for item in ordered]
    criterion = "held-out distance²" if held_out else "AIC"
    return Choice(tuple(ordered), chosen, criterion, _reason(chosen, ordered, tied, held_out))


def _reason(
    chosen: Candidate, ordered: list[Candidate], tied: list[Candidate], held_out: bool
) -> str:
    how = "predicts the probes left out best" if held_out else "has the lowest AIC"
    if tied:
        others = ", ".join(item.name for item in tied)
        fewest = all(chosen.parameters < item.parameters for item in tied)
        why = "it has fewer parameters" if fewest else "no other has fewer parameters"
        text = f"{chosen.name} and {others} cannot be told apart; {chosen.name}: {why}."
    else:
        following = ordered[1] if len(ordered) > 1 else None
        if following is not None and np.isfinite(following.score):
            unit = f"{following.behind / following.error:.2g} standard errors" if held_out else (
                f"{following.behind:.3g}"
            )  # fmt: skip
            text = f"{chosen.name} {how}, by {unit} before {following.name}."
        else:
            text = f"{chosen.name} is the only one with a score."
    if chosen.fit is not None and np.isfinite(chosen.fit.p_value) and not chosen.fit.accepted():
        text += " It is the best of these, and refused by the data all the same."
    return text
