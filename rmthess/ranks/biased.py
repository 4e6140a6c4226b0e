"""Closed forms for a linear network with biases in any set of its layers."""

from __future__ import annotations

from rmthess.ranks.network import Formula, LinearNetwork


def hessian(network: LinearNetwork) -> Formula | None:
    if network.residual_rank == 0:
        value, status, because = outer_product(network)
        return value, status, f"without a residual the outer product alone: {because}"
    if network.residual_rank < network.largest_residual_rank:
        return None
    q, widths, biased = network.bottleneck, network.widths, network.biased
    value, terms = 0, []
    for layer in range(1, network.depth + 1):
        inputs, out, has_bias = widths[layer - 1], widths[layer], layer in biased
        leaving, entering = _strands_leaving(network, layer), inputs + has_bias
        free = (out - leaving) * (entering - _strands_entering(network, layer))
        value += out * entering - free
        terms.append(f"({out}·{entering}−{free})")
    return (
        value,
        "verified",
        f"Σ_l [M_l(M_{{l-1}} + bias_l) − free_l] {network.with_numbers(q=q)}: {' + '.join(terms)}",
    )


def _strands_leaving(network: LinearNetwork, layer: int) -> int:
    """Rank of what layer passes on: q, and the constant that an earlier bias carries through."""
    earlier = [b for b in network.biased if b < layer]
    if not earlier:
        return network.bottleneck
    return min(network.bottleneck + 1, *network.widths[max(earlier) :])


def _strands_entering(network: LinearNetwork, layer: int) -> int:
    q = network.bottleneck
    if layer not in network.biased:
        return _strands_leaving(network, layer)
    return q + 1 if layer == network.depth else min(q + 1, *network.widths[layer:])


def outer_product(network: LinearNetwork) -> Formula:
    q, r, outputs = network.bottleneck, network.widths[0], network.widths[-1]
    last = max(network.biased)
    # The constant function reaches every output unless the bottleneck lies behind the last bias.
    constant = outputs if min(network.widths[last:]) > q else q
    return (
        q * (r + outputs - q) + constant,
        "proved",
        f"q(r + K − q) + (dimension of the constants) {network.with_numbers(q=q)}: "
        f"{q}·({r}+{outputs}−{q}) + {constant}",
    )


def functional(network: LinearNetwork) -> Formula | None:
    s = network.residual_rank
    if network.depth == 1:
        return 0, "proved", "a network of one layer is linear in its parameters: 0"
    if s == 0:
        return 0, "proved", "Ω = 0 leaves no second derivative of the network: 0"
    if network.depth == 2 and 1 in network.biased:
        hidden = network.widths[1]
        because = f"2 M_1 s {network.with_numbers(s=s)}: 2·{hidden}·{s}"
        return 2 * hidden * s, "proved", because
    return None
