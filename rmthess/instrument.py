"""What an instrument would show if a law were true.

A spectrum is never seen bare. An :class:`Instrument` turns a measurement, a law, and random
matrices of that law into vectors of the same coordinates, in which they are compared, fitted and
calibrated:

* all eigenvalues were computed: the sorted eigenvalues λ_i beside the law's quantiles at
  (i - 1/2)/dim; the distance of two such vectors is the Wasserstein distance W_2;
* all eigenvalues, on the logarithmic axis (``rmthess/log_axis.py``): the same of log10 λ, given
  that λ lies above a floor;
* Lanczos, on the logarithmic axis: the same of the Gauss rule of each probe, read at the middle of
  its steps, beside the law's own Gauss rule;
* Lanczos was run: the coefficients (a_k, 2 b_k), averaged over probes, beside the law's own Jacobi
  coefficients; the distance is the root mean square difference of the local band edges a_k ± 2 b_k.

The second choice was made on evidence: on a Wishart matrix of side 2000 seen through 64 steps and 8
probes, ratio and variance are estimated 14 and 10 times more precisely (standard deviation over 100
draws) than by matching the quantiles of the Gauss rules, because every depth is a fresh, nearly
independent look at the same two edges.

A distance adds up all depths and drowns what shows in few of them. So a verdict also looks at the
first moments against the law in question. Of a Lanczos run the modified moments ∫ p_k dν, p_k the
law's orthonormal polynomials: they vanish if the law is true, with independent errors of one size
(theory/lanczos.md). Of eigenvalues √2 ∫ cos(k π F) dν, F the law's cdf: beyond an edge and in a gap
polynomials explode, and where they are clipped they favour the law that was fitted to the data (two
times 500 fits of deformed Wigner matrices: p-values are uniform with a Kolmogorov–Smirnov p of .002
and .07; by cosines of .6 and .3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.laws.law import Law
from rmthess.log_axis import log_spectrum
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure, check_order
from rmthess.sampling import limit_chain, modified_moments, sample_chains, sample_spectra

Array = NDArray[np.float64]
Window = tuple[float, float]
Axis = Literal["linear", "log"]
Glance = tuple[Array, Callable[[Law], Array]]
T = TypeVar("T")

SHOWN = 2000  # eigenvalues that a fit looks at, of more
_EXACT = 600  # side up to which all eigenvalues of a GOE or Wishart matrix are drawn: 10 ms each
_BELOW = 2.0  # decades below a floor at which a Gauss rule's node counts, for a broken line
_DEGREES = 16  # smooth departures from a law show in so many moments, rough ones in the distance


class NoDraws(ValueError):
    """Why no random matrices of a law can be had; the message is a sentence for the user."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Random matrices of one law, a row each: coordinates (draws, n), moments (draws, K)."""

    coordinates: Array
    moments: Array


class Instrument(ABC):
    """Coordinates (n,) in which a measurement, a law and a draw of that law can be subtracted.

    The Euclidean norm of a difference is a distance in the units of the eigenvalues. ``dim`` is the
    side of the matrix, or None: then nothing can be said about finite-size fluctuations. Moments
    are K numbers that are 0 where the spectrum is that of a law called ``reference``.
    """

    dim: float | None

    @abstractmethod
    def observe(self) -> Array:
        """The measurement."""

    @abstractmethod
    def expect(self, law: Law) -> Array:
        """The law, as shown on average over its matrices.

        Where the law has no ensemble, or the side is unknown: as shown when the side grows without
        bound.
        """

    @abstractmethod
    def observed_moments(self, reference: Law) -> Array:
        """The moments of the measurement."""

    @abstractmethod
    def expected_moments(self, law: Law, reference: Law) -> Array:
        """The moments that go with ``expect(law)``."""

    @abstractmethod
    def draw(self, law: Law, count: int, seed: int) -> Draws:
        """``count`` random matrices of the law, of side ``dim``, moments against the law itself.

        Raises NoDraws where that cannot be done.
        """

    @abstractmethod
    def glance(self, count: int) -> Glance:
        """About ``count`` coordinates of the data, and the map from a law to the same of a law.

        Coarser than ``observe`` and ``expect``, at a hundredth of their cost: for a search.
        """

    def is_mean(self, law: Law) -> bool:
        """Whether ``expect(law)`` is the mean of draws, to O(1/dim) of their scatter."""
        return law.ensemble is not None


@dataclass(frozen=True, eq=False)
class EigenvalueInstrument(Instrument):
    """Every eigenvalue was computed: coordinates are quantiles.

    ``chosen`` (n,): the levels of ``seen`` where it holds some eigenvalues of many.
    """

    seen: DiscreteMeasure
    chosen: Array | None = None

    @property
    def dim(self) -> float | None:  # type: ignore[override]
        return self.seen.dim

    @property
    def levels(self) -> Array:
        return _levels(self.seen) if self.chosen is None else self.chosen

    @property
    def is_matrix(self) -> bool:
        """Whether the nodes have equal weight, as all eigenvalues of a matrix do."""
        return bool(np.ptp(self.seen.weights) <= 1e-12)

    def observe(self) -> Array:
        return self.seen.nodes * np.sqrt(self.seen.weights)

    def expect(self, law: Law) -> Array:
        return self._quantiles(law) * np.sqrt(self.seen.weights)

    def observed_moments(self, reference: Law) -> Array:
        return self._moments(reference, self.seen.nodes)

    def expected_moments(self, law: Law, reference: Law) -> Array:
        return self._moments(reference, self._quantiles(law))

    def draw(self, law: Law, count: int, seed: int) -> Draws:
        """GOE and Wishart matrices up to side 600 as they are, else as ``sample_spectra`` says."""
        if self.dim is None:
            raise NoDraws("the side of the matrix is unknown; pass dim=.")
        if not self.is_matrix:
            raise NoDraws("nodes of unequal weight are not the eigenvalues of a matrix.")
        size, dim = self.seen.nodes.size, self.dim
        if law.ensemble is not None and dim == size <= _EXACT:
            children = np.random.SeedSequence(seed).spawn(count)
            spectra = np.array([law.sample(size, np.random.default_rng(c)) for c in children])
        else:
            spectra = _ensemble_of(law, lambda: sample_spectra(law, self.levels, dim, count, seed))
        return Draws(spectra / np.sqrt(size), self._moments(law, spectra))

    def glance(self, count: int) -> Glance:
        return _moment_glance(self.seen.moment, min(count, 2 * self.seen.nodes.size - 2))

    def _quantiles(self, law: Law) -> Array:
        return np.asarray(law.quantile(self.levels), float)

    def _moments(self, reference: Law, nodes: Array) -> Array:
        return _waves(nodes, self._quantiles(reference), self.levels, self.seen.weights)


@dataclass(frozen=True, eq=False)
class LogInstrument(Instrument):
    """Every eigenvalue was computed: coordinates are quantiles of log10 λ given λ > ``floor``.

    ``seen`` on that axis, at levels ``chosen`` of many.
    """

    seen: DiscreteMeasure
    floor: float
    chosen: Array | None = None

    @property
    def dim(self) -> float | None:  # type: ignore[override]
        return self.seen.dim

    @property
    def levels(self) -> Array:
        return _levels(self.seen) if self.chosen is None else self.chosen

    def observe(self) -> Array:
        return self.seen.nodes * np.sqrt(self.seen.weights)

    def expect(self, law: Law) -> Array:
        return self._quantiles(law, self.levels) * np.sqrt(self.seen.weights)

    def observed_moments(self, reference: Law) -> Array:
        return self._moments(reference, self.seen.nodes)

    def expected_moments(self, law: Law, reference: Law) -> Array:
        return self._moments(reference, self._quantiles(law, self.levels))

    def draw(self, law: Law, count: int, seed: int) -> Draws:
        """Matrices of such a side that as many eigenvalues are expected above the floor."""
        if self.dim is None:
            raise NoDraws("the side of the matrix is unknown; pass dim=.")
        if np.ptp(self.seen.weights) > 1e-12:
            raise NoDraws("nodes of unequal weight are not the eigenvalues of a matrix.")
        side = max(1, round(self.dim / (1 - float(law.cdf(self.floor)))))
        shown = min(side, 4 * self.seen.nodes.size)
        levels = (np.arange(shown) + 0.5) / shown
        spectra = _ensemble_of(law, lambda: sample_spectra(law, levels, side, count, seed))
        logs = []
        for values in spectra:
            above = np.sort(np.log10(values[values > self.floor]))
            if above.size == 0:
                raise NoDraws(f"a matrix of the law had no eigenvalue above {self.floor:g}.")
            logs.append(np.quantile(above, self.levels, method="hazen"))
        rows = np.array(logs)
        return Draws(rows * np.sqrt(self.seen.weights), self._moments(law, rows))

    def glance(self, count: int) -> Glance:
        levels = (np.arange(2 * count) + 0.5) / (2 * count)
        return self.seen.quantile(levels), lambda law: self._quantiles(law, levels)

    def _quantiles(self, law: Law, levels: Array) -> Array:
        return _log_quantiles(law, self.floor, levels)

    def _moments(self, reference: Law, logs: Array) -> Array:
        levels = self.levels
        return _waves(logs, self._quantiles(reference, levels), levels, self.seen.weights)


@dataclass(frozen=True, eq=False)
class LanczosInstrument(Instrument):
    """Lanczos ran for ``steps`` steps from each of several start vectors: Jacobi coordinates.

    ``diagonals`` (probes, steps) and ``off_diagonals`` (probes, steps - 1), without NaN.
    """

    diagonals: Array
    off_diagonals: Array
    dim: float | None

    @property
    def probes(self) -> int:
        return int(self.diagonals.shape[0])

    @property
    def steps(self) -> int:
        return int(self.diagonals.shape[1])

    def observe(self) -> Array:
        return _coordinates(self.diagonals, self.off_diagonals)

    def expect(self, law: Law) -> Array:
        return _coordinates(*self._chain(law))

    def observed_moments(self, reference: Law) -> Array:
        return self._moments(reference, self.diagonals, self.off_diagonals)

    def expected_moments(self, law: Law, reference: Law) -> Array:
        a, b = self._chain(law)
        return self._moments(reference, a[None], b[None])

    def draw(self, law: Law, count: int, seed: int) -> Draws:
        """By the tridiagonal models of GOE and Wishart matrices, else as ``sample_chains`` says."""
        a, b = self.chains(law, count, seed)
        return Draws(_coordinates(a, b), self._moments(law, a, b))

    def chains(self, law: Law, count: int, seed: int) -> jacobi.Coefficients:
        """Those of the draws, (count, probes, steps) and (count, probes, steps - 1)."""
        if self.dim is None:
            raise NoDraws("the side of the matrix is unknown; pass dim=.")
        steps, dim, probes = self.steps, self.dim, self.probes
        if law.ensemble is None:
            return _ensemble_of(law, lambda: sample_chains(law, steps, dim, probes, count, seed))
        children = np.random.SeedSequence(seed).spawn(count)
        chains = [
            law.sample_jacobi(steps, dim, np.random.default_rng(child), probes)
            for child in children
        ]
        return np.array([a for a, _ in chains]), np.array([b for _, b in chains])

    def glance(self, count: int) -> Glance:
        """From the moments of the Gauss rules, which are exact up to degree 2 steps - 1."""
        rules = [
            jacobi.gauss_quadrature(*pair)
            for pair in zip(self.diagonals, self.off_diagonals, strict=True)
        ]

        def moment(order: int) -> float:
            return float(np.mean([weights @ nodes**order for nodes, weights in rules]))

        return _moment_glance(moment, min(count, 2 * self.steps - 2))

    def _chain(self, law: Law) -> jacobi.Coefficients:
        if self.dim is None or law.ensemble is None:
            return limit_chain(law, self.steps, self.dim)
        return law.mean_jacobi(self.steps, self.dim)

    def _moments(self, reference: Law, diagonals: Array, off_diagonals: Array) -> Array:
        """Up to a degree of dim^(1/3): beyond it p_k grows over the reach of a stray eigenvalue.

        That is dim^(-2/3) of the width (Tracy–Widom), where cosh(2k √distance) is of order 1.
        """
        few = _DEGREES if self.dim is None else max(2, round(self.dim ** (1 / 3)))
        degrees = min(_DEGREES, self.steps - 1, few)
        alpha, beta = limit_chain(reference, degrees + 1, self.dim)
        each = modified_moments(diagonals, off_diagonals, alpha[:-1], beta)
        return np.asarray(each.mean(axis=-2))


@dataclass(frozen=True, eq=False)
class LogLanczosInstrument(Instrument):
    """Lanczos ran: coordinates are quantiles of log10 λ given λ > ``floor`` of its Gauss rules.

    Each rule, that of the law too, is read as the broken line through the middles of the steps of
    its cdf over log10 λ; all are rules of as many nodes, and what they do not resolve is the same.
    ``seen`` the pooled rule on that axis, ``base`` the same run on the linear one.
    """

    base: LanczosInstrument
    seen: DiscreteMeasure
    floor: float

    @property
    def dim(self) -> float | None:  # type: ignore[override]
        return self.base.dim

    @property
    def _levels(self) -> Array:
        return np.asarray((np.arange(self.base.steps) + 0.5) / self.base.steps)

    def observe(self) -> Array:
        return np.asarray(self._seen() / np.sqrt(self.base.steps))

    def expect(self, law: Law) -> Array:
        logs = self._read(*limit_chain(law, self.base.steps, self.dim))
        return np.asarray(logs / np.sqrt(self.base.steps))

    def is_mean(self, law: Law) -> bool:
        return False  # a mean of quantiles is no quantile of a mean

    def observed_moments(self, reference: Law) -> Array:
        return self._moments(reference, self._seen())

    def expected_moments(self, law: Law, reference: Law) -> Array:
        return self._moments(reference, self._read(*limit_chain(law, self.base.steps, self.dim)))

    def draw(self, law: Law, count: int, seed: int) -> Draws:
        """The chains that a fit on the linear axis would draw, read on this one."""
        pairs = zip(*self.base.chains(law, count, seed), strict=True)
        rows = np.array([self._mean(a, b) for a, b in pairs])
        return Draws(rows / np.sqrt(self.base.steps), self._moments(law, rows))

    def glance(self, count: int) -> Glance:
        levels = (np.arange(2 * count) + 0.5) / (2 * count)
        return (
            np.interp(levels, self._levels, self._seen()),
            lambda law: _log_quantiles(law, self.floor, levels),
        )

    def _seen(self) -> Array:
        return self._mean(self.base.diagonals, self.base.off_diagonals)

    def _mean(self, diagonals: Array, off_diagonals: Array) -> Array:
        pairs = zip(diagonals, off_diagonals, strict=True)
        return np.asarray(np.mean([self._read(a, b) for a, b in pairs], axis=0))

    def _read(self, diagonal: Array, off_diagonal: Array) -> Array:
        nodes, weights = jacobi.gauss_quadrature(diagonal, off_diagonal)
        logs = np.log10(np.maximum(nodes, self.floor * 10**-_BELOW))
        middles = np.cumsum(weights) - weights / 2
        below = float(np.interp(np.log10(self.floor), logs, middles))
        if not below < 1 - 1e-9:
            raise ValueError(f"the law has no mass above {self.floor:g}")
        return np.interp(below + self._levels * (1 - below), middles, logs)

    def _moments(self, reference: Law, logs: Array) -> Array:
        expected = self._read(*limit_chain(reference, self.base.steps, self.dim))
        return _waves(logs, expected, self._levels, np.full(self._levels.size, 1 / self.base.steps))


def instrument_of(
    measure: SpectralMeasure,
    window: Window | None = None,
    dim: int | None = None,
    axis: Axis = "linear",
    floor: float | None = None,
) -> Instrument:
    """The instrument behind ``measure``, looking only at ``window`` (left, right) if one is given.

    Of more than 2000 eigenvalues 2000 are looked at, at even distances in rank. A window leaves out
    the nodes outside it and renormalises; the side shrinks with the mass. Of a Lanczos run it keeps
    three quarters of the depth: cutting converged outliers out of a Gauss rule leaves the rule of
    the rest, but for its last coefficients (40 spiked Wishart matrices, true law: with full depth
    47% are refused at the 5% level, with three quarters 5%). Deflated eigenvalues are left out in
    any case. ``dim`` replaces the side that the measure states.

    ``axis`` "log" looks at log10 λ of the λ above ``floor``; its default is the rounding of
    eigenvalues, and of a Lanczos run what its steps resolve (``log_spectrum``).
    """
    if axis not in ("linear", "log"):
        raise ValueError(f"axis must be 'linear' or 'log', got {axis!r}")
    if axis == "log" and isinstance(measure, LanczosMeasure):
        return _log_lanczos_instrument(measure, window, dim, floor)
    if axis == "log":
        return _log_instrument(measure, window, dim, floor)
    if floor is not None:
        raise ValueError(f"floor={floor} belongs to axis='log'; on the linear axis use window=")
    if isinstance(measure, DiscreteMeasure):
        inside = measure if window is None else measure.restrict(checked(window))
        known = inside.dim if dim is None else dim
        whole = DiscreteMeasure(inside.nodes, inside.weights, known)
        return EigenvalueInstrument(*_chosen(whole))
    if not isinstance(measure, LanczosMeasure):
        raise TypeError(
            f"a measured spectrum is a LanczosMeasure or a DiscreteMeasure, got "
            f"{type(measure).__name__}; for a list of eigenvalues use "
            "DiscreteMeasure.from_eigenvalues"
        )
    measure = measure.bulk
    side = float(measure.dim if dim is None else check_order("dim", dim))
    if window is not None:
        measure, mass = within(measure, window)
        side *= mass
    pairs = zip(measure.diagonals, measure.off_diagonals, strict=True)
    chains = [jacobi.leading_block(a, b) for a, b in pairs]
    steps = min(a.size for a, _ in chains)
    return LanczosInstrument(
        np.array([a[:steps] for a, _ in chains]),
        np.array([b[: steps - 1] for _, b in chains]),
        side,
    )


def within(measure: LanczosMeasure, window: Window) -> tuple[LanczosMeasure, float]:
    """A Lanczos run on the eigenvalues within ``window`` alone, and their mean share.

    Three quarters of the depth that is left once the others are cut out of the Gauss rules.
    """
    left, right = checked(window)
    rules = measure.bulk.quadratures()
    masses = [rule.cdf(right) - rule.cdf(np.nextafter(left, -np.inf)) for rule in rules]
    if min(masses) == 0:
        raise ValueError(
            f"window {left:g} to {right:g} holds no node of some probe; the measure lies on "
            f"{measure.bulk.quantile(0.0):g} to {measure.bulk.quantile(1.0):g}"
        )
    cut = [rule.restrict(window) for rule in rules]
    chains = [jacobi.leading_block(*rule.jacobi(rule.nodes.size)) for rule in cut]
    steps = max(1, 3 * min(a.size for a, _ in chains) // 4)
    mass = float(np.mean(masses))
    found = LanczosMeasure(
        [a[:steps] for a, _ in chains],
        [b[: steps - 1] for _, b in chains],
        [b[steps - 1] if b.size >= steps else 0.0 for _, b in chains],
        max(1, round(measure.bulk.dim * mass)),
        measure.provenance,
    )
    return found, mass


def _log_instrument(
    measure: SpectralMeasure, window: Window | None, dim: int | None, floor: float | None
) -> LogInstrument:
    if not isinstance(measure, DiscreteMeasure):
        raise TypeError(
            "a measured spectrum is a LanczosMeasure or a DiscreteMeasure, got "
            f"{type(measure).__name__}; for a list of eigenvalues use "
            "DiscreteMeasure.from_eigenvalues"
        )
    if window is not None:
        floor = max(floor or 0.0, np.nextafter(checked(window)[0], -np.inf))
        measure = measure.restrict(window)
    whole = DiscreteMeasure(measure.nodes, measure.weights, measure.dim if dim is None else dim)
    found = log_spectrum(whole, floor)
    assert isinstance(found.measure, DiscreteMeasure)
    seen, levels = _chosen(found.measure)
    return LogInstrument(seen, found.floor, levels)


def _log_lanczos_instrument(
    measure: LanczosMeasure, window: Window | None, dim: int | None, floor: float | None
) -> LogLanczosInstrument:
    base = instrument_of(measure, window, dim)
    assert isinstance(base, LanczosInstrument)
    found = log_spectrum(measure.bulk, floor)
    lowest, logs = found.floor, found.measure
    assert isinstance(logs, DiscreteMeasure)
    if window is not None:
        lowest = max(lowest, float(checked(window)[0]))
        logs = logs.restrict(
            (float(np.log10(lowest)) if lowest > 0 else -np.inf, np.log10(window[1]))
        )
    if not lowest > 0:
        raise ValueError(
            f"floor={floor} of a Lanczos run must be positive: its steps resolve nothing down to 0"
        )
    return LogLanczosInstrument(base, logs, lowest)


def _log_quantiles(law: Law, floor: float, levels: Array) -> Array:
    """Quantiles of log10 λ given λ > floor; ValueError where the law has next to nothing."""
    below = float(law.cdf(floor))
    if not below < 1 - 1e-9:
        raise ValueError(f"the law has no mass above {floor:g}")
    values = np.asarray(law.quantile(np.minimum(below + levels * (1 - below), 1.0)), float)
    return np.asarray(np.log10(np.maximum(values, floor if floor > 0 else 1e-300)))


def _waves(nodes: Array, expected: Array, levels: Array, weights: Array) -> Array:
    """√2 ∫ cos(k π F) over ``nodes`` (..., n), k = 1, 2, ..., F the cdf with quantiles expected.

    At an atom the middle of its jump, on whichever side of it roundings lie.
    """
    near = 1e-9 * float(np.ptp(expected))
    share = (
        np.interp(nodes - near, expected, levels) + np.interp(nodes + near, expected, levels)
    ) / 2
    degree = np.arange(1, min(_DEGREES, levels.size - 1) + 1)
    waves = np.sqrt(2) * np.cos(np.pi * share[..., None] * degree)
    return np.asarray(np.einsum("n,...nk->...k", weights, waves))


def _chosen(seen: DiscreteMeasure) -> tuple[DiscreteMeasure, Array | None]:
    """Of many eigenvalues 2000 at even distances in rank, and their levels."""
    many = seen.nodes.size
    if many <= SHOWN or np.ptp(seen.weights) > 1e-12:
        return seen, None
    place = ((np.arange(SHOWN) + 0.5) * many / SHOWN).astype(int)
    nodes = DiscreteMeasure(seen.nodes[place], np.full(SHOWN, 1 / SHOWN), seen.dim)
    return nodes, (place + 0.5) / many


def _levels(seen: DiscreteMeasure) -> Array:
    """Levels of the nodes' middles: (i - 1/2)/n for eigenvalues."""
    return np.asarray(np.clip(np.cumsum(seen.weights) - seen.weights / 2, 0.0, 1.0))


def _moment_glance(moment: Callable[[int], float], count: int) -> Glance:
    """The first Jacobi coefficients (a_k, 2 b_k), from as many raw moments."""
    order = 2 * max(1, (count + 1) // 2)
    center = float(moment(1))
    unit = float(np.sqrt(max(moment(2) - center**2, 0.0))) or 1.0

    def coordinates(of: Callable[[int], float]) -> Array:
        raw = [1.0, *(float(of(k)) for k in range(1, order + 1))]
        central = [
            sum(comb(k, j) * raw[j] * (-center) ** (k - j) for j in range(k + 1)) / unit**k
            for k in range(order + 1)
        ]
        return _chebyshev(np.array(central))

    return coordinates(moment), lambda law: coordinates(law.moment)


def _chebyshev(moments: Array) -> Array:
    """a_0, 2 b_0, a_1, ... from moments 0 .. 2n: Golub & Welsch, Math. Comp. 23 (1969), section 4.

    Raises LinAlgError where they are no moments.
    """
    n = moments.size // 2
    upper = np.linalg.cholesky(moments[np.add.outer(np.arange(n + 1), np.arange(n + 1))]).T
    diagonal = np.diag(upper)
    slope = np.diag(upper, 1) / diagonal[:-1]
    a = np.diff(slope, prepend=0.0)
    return np.column_stack([a, 2 * diagonal[1:] / diagonal[:-1]]).ravel()


def _ensemble_of(law: Law, draw: Callable[[], T]) -> T:
    try:
        return draw()
    except NotImplementedError:
        raise NoDraws(f"{type(law).__name__} has no canonical matrix ensemble.") from None


def checked(window: Window) -> Window:
    """The window (left, right), left < right, or a sentence that says what was given."""
    left, right = window
    if not left < right:
        raise ValueError(f"window must be (left, right) with left < right, got {window}")
    return left, right


def _coordinates(diagonals: Array, off_diagonals: Array) -> Array:
    """(a, 2 b) averaged over probes, scaled so that a distance is a root mean square over steps.

    (..., probes, steps) and (..., probes, steps - 1) to (..., 2 steps - 1).
    """
    a, b = np.atleast_2d(diagonals), np.atleast_2d(off_diagonals)
    both = np.concatenate([a.mean(axis=-2), 2 * b.mean(axis=-2)], axis=-1)
    return np.asarray(both / np.sqrt(a.shape[-1]))
