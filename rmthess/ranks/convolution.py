"""Ranks for one-dimensional linear convolutional networks, where the same weight occurs often."""

from __future__ import annotations

from collections.abc import Sequence

from rmthess.ranks.network import RankBound, check_part, is_integer


def linear_convolution_rank(
    length: int,
    kernel: int,
    filters: int,
    outputs: int,
    part: str = "hessian",
) -> RankBound:
    """Rank of the Hessian of a convolution of one channel, many filters, and a dense layer.

    With P = d − k + 1 positions (no padding, stride 1), m filters, K outputs, q = min(k, m, KP)
    and inputs of full rank d, squared error or another strictly convex loss::

        functional      2m min(k, KP)
        outer_product   min(q(k + KP − q), Kd)
        hessian         min(q(k + KP − q) + 2qm − q², rank H_o + rank H_f − 1)

    The network is the two-layer one of widths k, m, KP, seen through P windows of the input.  Its
    hidden layer is not shared between weights, so the functional part is that of the two layers;
    the cap Kd is the number of entries of the linear map, and one direction is common to both parts
    since H_f θ = ∇ loss, which lies in the range of H_o.

    Parameters
    ----------
    length : d, samples of the input signal.
    kernel : k, at most d.
    filters : m, channels of the hidden layer.
    outputs : K.
    part : "hessian", "outer_product" or "functional".

    ``functional`` is proved, and attained almost everywhere.  The other two are proved upper bounds
    (status "bound"); that they are attained is verified, in every case that was counted exactly
    (``theory/linear_network_rank_conv.md``).

    >>> print(linear_convolution_rank(6, 3, 4, 2))
    rank ≤ 35, nullity ≥ 9 (bound)
    min(q(k + KP − q) + 2qm − q², rank H_o + rank H_f − 1) with q = 3, P = 4: \
min(3·(3+8−3) + 2·3·4 − 3², 12 + 24 − 1) = 35 of 44 parameters
    """
    check_part(part)
    for name, value in {
        "length": length,
        "kernel": kernel,
        "filters": filters,
        "outputs": outputs,
    }.items():
        _check_positive(name, value)
    if kernel > length:
        raise ValueError(f"kernel must be at most the length {length} of the signal, got {kernel}")
    positions = length - kernel + 1
    seen = outputs * positions
    q = min(kernel, filters, seen)
    numbers = f"with q = {q}, P = {positions}"
    free = q * (kernel + seen - q)
    outer, functional = min(free, outputs * length), 2 * filters * min(kernel, seen)
    product = f"{q}·({kernel}+{seen}−{q})"
    if part == "functional":
        value, status = functional, "proved"
        because = f"2m min(k, KP) {numbers}: 2·{filters}·{min(kernel, seen)}"
    elif part == "outer_product":
        value, status = outer, "bound"
        because = f"min(q(k + KP − q), Kd) {numbers}: min({product}, {outputs}·{length})"
    else:
        value, status = min(free + 2 * q * filters - q**2, outer + functional - 1), "bound"
        because = (
            f"min(q(k + KP − q) + 2qm − q², rank H_o + rank H_f − 1) {numbers}: "
            f"min({product} + 2·{q}·{filters} − {q}², {outer} + {functional} − 1)"
        )
    return _found(value, filters * (kernel + seen), status, because)


def convolution_chain_rank(kernels: Sequence[int], part: str = "hessian") -> RankBound:
    """Rank of the Hessian of linear convolutions in a row, of one channel each.

    The composed kernel is the product of polynomials of degrees k_l − 1; p = Σ_l k_l::

        outer_product   p − (L − 1)                  a factor can pass from one layer to another
        functional      p − max(0, (k_max − 1) − Σ_others (k_l − 1)),   L ≥ 2
        hessian         p

    Parameters
    ----------
    kernels : k_1, …, k_L, lengths of the kernels.  The signal has no fewer samples than the
        composed kernel, Σ k_l − L + 1, and its windows have full rank.
    part : "hessian", "outer_product" or "functional".

    >>> print(convolution_chain_rank([2, 3, 6], part="functional"))
    rank ≤ 9, nullity ≥ 2 (bound)
    p − max(0, (k_max − 1) − Σ_others (k_l − 1)) with p = 11, k_max = 6: 11 − 2 = 9 of 11 parameters
    """
    check_part(part)
    sizes = list(kernels)
    if not sizes:
        raise ValueError("kernels is empty; give the length of at least one kernel")
    for size in sizes:
        _check_positive("every kernel", size)
    total, longest, depth = sum(sizes), max(sizes), len(sizes)
    if part == "outer_product":
        because = f"p − (L − 1) with p = {total}: {total} − {depth - 1}"
        return _found(total - depth + 1, total, "proved", because)
    if part == "functional" and depth == 1:
        return _found(0, total, "proved", "one layer is linear in its parameters: 0")
    if part == "functional":
        excess = max(0, longest - 1 - (total - longest - (depth - 1)))
        because = (
            f"p − max(0, (k_max − 1) − Σ_others (k_l − 1)) with p = {total}, k_max = {longest}: "
            f"{total} − {excess}"
        )
        return _found(total - excess, total, "bound" if depth > 2 else "proved", because)
    return _found(total, total, "bound" if depth > 1 else "proved", f"p: {total}")


def _check_positive(name: str, value: object) -> None:
    if not is_integer(value) or value < 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def _found(value: int, parameters: int, status: str, because: str) -> RankBound:
    return RankBound(
        value=value,
        nullity=parameters - value,
        parameters=parameters,
        status=status,
        because=f"{because} = {value} of {parameters} parameters",
    )
