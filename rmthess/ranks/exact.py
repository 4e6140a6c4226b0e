"""The exact rank of a linear network's Hessian at a random point, over a prime field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rmthess.ranks.elimination import elimination_rank, elimination_side
from rmthess.ranks.linear_network import LARGEST, closed_form, rank_bound
from rmthess.ranks.network import Formula, LinearNetwork, RankBound, check_part, linear_network
from rmthess.ranks.residues import PRIME, PRIMES, SECOND_PRIME

SECONDS_AT_4000 = 20.0  # one core, building the matrix included
BYTES_AN_ENTRY = 80


def exact_rank(
    widths: Sequence[int],
    input_rank: int | None = None,
    bias: bool | Iterable[int] = False,
    loss: str = "mse",
    part: str = "hessian",
    residual_rank: int | None = None,
    seed: int = 0,
    *,
    weight_ranks: Sequence[int] | None = None,
    optimum: bool = False,
    layers: tuple[int, int] | None = None,
    largest: int = LARGEST,
) -> RankBound:
    """Rank at one random point, by elimination over the integers modulo 2³¹ − 1, without rounding.

    A rank modulo a prime is at most the rank at the real point that the residues stand for, and
    that one is at most any bound.  So a count that meets a proved bound proves that the bound is
    attained there, and hence at almost every point of the kind.  A count below the closed form is
    repeated modulo 2³¹ − 19, and the larger one returned: by bad luck alone a rank is missed with
    a chance of about (parameters · depth) / 2³¹.

    Parameters
    ----------
    widths, input_rank, bias, loss, part, residual_rank, weight_ranks, optimum, layers : as of
        ``linear_network_rank``.
    seed : of the point.
    largest : rows of a matrix that is still eliminated; the time grows as the cube, the memory as
        the square.

    >>> print(exact_rank([7, 5, 3, 4, 6]))
    rank 75, nullity 11 (computed)
    counted modulo 2³¹ − 1 at a random point, seed 0; meets the proved bound, which proves that \
this point attains it: 75 of 86 parameters
    """
    check_part(part)
    network = linear_network(
        widths,
        input_rank,
        bias,
        loss,
        residual_rank,
        weight_ranks=weight_ranks,
        optimum=optimum,
        layers=layers,
    )
    known = closed_form(network, part)
    _check_size(network, part, known, largest)
    value, primes = elimination_rank(network, part, seed, PRIME), PRIMES[PRIME]
    if known is not None and value < known[0]:
        value = max(value, elimination_rank(network, part, seed, SECOND_PRIME))
        primes = f"{primes} and {PRIMES[SECOND_PRIME]}"
    said = f"counted modulo {primes} at a random point, seed {seed}; {_verdict(value, known)}"
    return rank_bound(network, value, "computed", f"{said}: {value}")


def _verdict(value: int, known: Formula | None) -> str:
    if known is None:
        return "no closed form is known"
    formula, status, _ = known
    if value != formula:
        where = "below" if value < formula else "above"
        return f"{where} the {status} closed form {formula}, which is worth a report"
    if status == "proved":
        return "meets the proved bound, which proves that this point attains it"
    return f"equals the {status} closed form"


def _check_size(network: LinearNetwork, part: str, known: Formula | None, largest: int) -> None:
    side = elimination_side(network, part)
    if side <= largest:
        return
    minutes = SECONDS_AT_4000 * (side / 4000) ** 3 / 60
    other = "linear_network_rank bounds it" if known is None else "linear_network_rank has it"
    raise ValueError(
        f"the exact rank of this network eliminates a {side} × {side} matrix: about "
        f"{minutes:.1f} minutes and {BYTES_AN_ENTRY * side**2 / 2**30:.0f} GiB, and the limit is "
        f"{largest} rows; {other} in closed form, largest={side} does it all the same"
    )
