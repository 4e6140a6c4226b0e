"""Layer spectra of the Gauss–Newton matrix from Kronecker factors (theory/kronecker.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmthess.measure import DiscreteMeasure
from rmthess.predictions.batch_extrapolation import all_samples
from rmthess.predictions.prediction import Prediction
from rmthess.ranks.network import RankBound

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = NDArray[np.float64]


def kronecker(model: nn.Module, loss: Callable[..., Any], data: Any) -> dict[str, Prediction]:
    """Eigenvalues a_i g_j of A ⊗ D for the weight and bias of each Linear layer, by its name.

    The exact block of the Gauss–Newton matrix is 1/N Σ_n ã_n ã_nᵀ ⊗ J_nᵀ B_n J_n with ã = (input,
    1), J the Jacobian of the outputs in the layer's own outputs and B = ∂²ℓ/∂f². Taken as
    independent, the two factors have the means A = E ã ãᵀ, eigenvalues a_i, and D = E JᵀBJ, g_j.

    This is a baseline: on the digits good for a network that was just drawn, and off by a factor of
    3 to 30 in the median after training, where a few hard samples carry the curvature.
    ``gauss_newton(params=...)`` is exact.

    Parameters
    ----------
    model : a module whose parameters are those of ``Linear`` layers, each called once, on inputs
        (samples, features).
    loss : softmax cross-entropy or squared error, torch's own means.
    data : (inputs, targets), tensors whose first dimension counts samples, or several such batches.

    Raises ValueError for another layer with parameters, named, and for another loss.

    Source
    ------
    Martens & Grosse, ICML 2015.

    >>> import torch
    >>> x = torch.eye(3, dtype=torch.float64)
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False)).double()
    >>> found = kronecker(model, torch.nn.MSELoss(), (x, x[:, :2]))
    >>> found["0"].eigenvalues()  # of a linear model all samples have one factor: exact
    array([0.33333333, 0.33333333, 0.33333333, 0.33333333, 0.33333333,
           0.33333333])
    """
    import torch

    curvature = _curvature(loss)
    layers = _linear_layers(model)
    x, _ = all_samples(model, data)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in seen or output.ndim != 2:
                what = (
                    "is called twice"
                    if name in seen
                    else f"has outputs of shape {tuple(output.shape)}"
                )
                raise ValueError(
                    f"layer {name!r} {what}; a Kronecker factor is that of one row a sample"
                )
            seen[name] = inputs[0].detach(), output

        return hook

    handles = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            outputs = model(x)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if name not in seen]
    if missing:
        raise ValueError(f"layer {missing[0]!r} is not used by the model")
    if outputs.ndim != 2:
        raise ValueError(f"the model's outputs must be (samples, K), got {tuple(outputs.shape)}")
    root = curvature(outputs.detach())
    squares = _second_moments(outputs, [seen[name][1] for name in layers], root)
    return {
        name: _prediction(name, layer, seen[name][0], D)
        for (name, layer), D in zip(layers.items(), squares, strict=True)
    }


def _second_moments(outputs: Tensor, inside: list[Tensor], root: Tensor) -> list[Array]:
    """E JᵀBJ of each layer: the mean over samples of Σ_k g gᵀ, g = Jᵀ (column k of B^½)."""
    import torch

    found = [torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64) for z in inside]
    for k in range(root.shape[2]):
        gradients = torch.autograd.grad(outputs, inside, root[:, :, k], retain_graph=True)
        for total, g in zip(found, gradients, strict=True):
            total += (g.double().T @ g.double()).cpu() / len(outputs)
    return [total.numpy() for total in found]


def _prediction(name: str, layer: nn.Linear, inputs: Tensor, D: Array) -> Prediction:
    a = inputs.double().cpu().numpy()
    if layer.bias is not None:
        a = np.column_stack([a, np.ones(len(a))])
    A = a.T @ a / len(a)
    of_inputs, of_outputs = (np.maximum(np.linalg.eigvalsh(M), 0.0) for M in (A, D))
    values = np.outer(of_inputs, of_outputs).ravel()
    rank = int(np.linalg.matrix_rank(A, hermitian=True) * np.linalg.matrix_rank(D, hermitian=True))
    return Prediction(
        dim=values.size,
        bulk=DiscreteMeasure.from_eigenvalues(values),
        spikes=(),
        rank=RankBound(
            rank,
            values.size - rank,
            values.size,
            "bound",
            f"layer {name}: both ranks multiplied; that of the exact block is at most it",
        ),
        assumptions=(
            "inputs of the layer independent of the curvature that comes back to it, which fails "
            "after training (a baseline)",
            "the Gauss-Newton matrix, this layer alone",
        ),
        status="heuristic",
    )


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    from torch import nn

    found: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            found[name] = module
        elif next(module.parameters(recurse=False), None) is not None:
            raise ValueError(
                f"layer {name!r} is a {type(module).__name__}; Kronecker factors here are those "
                "of Linear layers"
            )
    if not found:
        raise ValueError("the model has no Linear layer")
    for name, layer in found.items():
        for kind, part in layer.named_parameters():
            if not bool(part.isfinite().all()):
                raise ValueError(f"{kind} of layer {name!r} has entries that are NaN or infinite")
    return found


def _curvature(loss: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """Outputs (N, K) → B^½ (N, K, K) of one sample's loss."""
    import torch
    from torch import nn

    name = getattr(loss, "__name__", type(loss).__name__)
    plain = getattr(loss, "reduction", "mean") == "mean"
    plain = plain and getattr(loss, "weight", None) is None
    plain = plain and getattr(loss, "label_smoothing", 0.0) == 0.0

    def softmax(f: Tensor) -> Tensor:
        p = torch.softmax(f, dim=1)
        return torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]

    def squared(f: Tensor) -> Tensor:
        root = torch.full_like(f, (2 / f.shape[1]) ** 0.5)
        return torch.diag_embed(root)

    if plain and (type(loss) is nn.CrossEntropyLoss or name == "cross_entropy"):
        return softmax
    if plain and (type(loss) is nn.MSELoss or name == "mse_loss"):
        return squared
    raise ValueError(
        f"the loss must be torch's plain mean of softmax cross-entropy or of squared errors, got "
        f"{name}"
    )
