"""Which parameters the curvature is taken in, and how they lie in one flat vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from rmthess.operators.errors import NonFiniteError

Selection = Iterable[str] | Callable[[str], bool] | None


@dataclass(frozen=True, eq=False)
class Parameters:
    """The flat coordinates: parameter i fills entries offsets[i] to offsets[i + 1].

    ``names`` in the order of ``model.named_parameters()``, tied parameters once; ``values`` are
    copies made at construction, so later training does not move the point of evaluation.
    """

    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    offsets: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def dim(self) -> int:
        return self.offsets[-1]

    def split(self, vector: Tensor) -> list[Tensor]:
        """The vector (dim,) as tensors of the parameters' shapes."""
        return [
            part.to(value.device, value.dtype)
            for part, value in zip(self.views(vector), self.values, strict=True)
        ]

    def views(self, vector: Tensor) -> list[Tensor]:
        """The same in the memory, dtype and device of the vector, to be written through."""
        parts = vector.split([value.numel() for value in self.values])
        return [part.view(value.shape) for part, value in zip(parts, self.values, strict=True)]

    @staticmethod
    def add_to(views: Sequence[Tensor], tensors: Sequence[Tensor | None], scale: float) -> None:
        """views += scale * tensors, None being zero."""
        found = zip(views, tensors, strict=True)
        live = [(view, tensor.to(view.device)) for view, tensor in found if tensor is not None]
        if live:
            torch._foreach_add_(*zip(*live, strict=True), alpha=scale)  # one call for all

    def name_of_entry(self, entry: int) -> str:
        """The parameter to which this entry of the flat vector belongs."""
        index = sum(stop <= entry for stop in self.offsets[1:])
        return self.names[index]


def select(model: nn.Module, params: Selection = None) -> Parameters:
    """Copy the chosen parameters of ``model``.

    ``params``: None for all that require a gradient; a predicate on the name narrows these; names
    are taken as they are, frozen ones too. A tied parameter answers to each of its names.

    Raises ValueError for an unknown name or an empty selection, TypeError for integer, complex,
    sparse or uninitialised parameters, NonFiniteError for NaN; warns of half precision.

    >>> select(nn.Linear(3, 2), ["bias"]).dim
    2
    """
    first_name = {id(p): name for name, p in model.named_parameters()}
    aliases: dict[str, list[str]] = {name: [] for name in first_name.values()}
    for alias, parameter in model.named_parameters(remove_duplicate=False):
        aliases[first_name[id(parameter)]].append(alias)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]

    if params is None:
        chosen = set(trainable)
    elif callable(params):
        chosen = {name for name in trainable if any(params(alias) for alias in aliases[name])}
    else:
        wanted = [params] if isinstance(params, str) else list(params)
        home = {alias: name for name, all_names in aliases.items() for alias in all_names}
        unknown = [name for name in wanted if name not in home]
        if unknown:
            raise ValueError(
                f"params names no parameter of the model: {unknown}; it has {sorted(home)}"
            )
        chosen = {home[name] for name in wanted}

    kept = [(name, p) for name, p in model.named_parameters() if name in chosen]
    if not kept:
        raise ValueError(_nothing_chosen(len(aliases), len(trainable)))
    for name, parameter in kept:
        _check(name, parameter)
    _warn_of_half(kept)
    dtype = kept[0][1].dtype
    for _, parameter in kept[1:]:
        dtype = torch.promote_types(dtype, parameter.dtype)
    return Parameters(
        names=tuple(name for name, _ in kept),
        values=tuple(p.detach().clone() for _, p in kept),
        offsets=(0, *accumulate(p.numel() for _, p in kept)),
        dtype=dtype,
        device=kept[0][1].device,
    )


def _nothing_chosen(all_of_them: int, trainable: int) -> str:
    if all_of_them == 0:
        return "the model has no parameters, so it has no Hessian"
    if trainable == 0:
        return (
            f"the model has no trainable parameters: all {all_of_them} have requires_grad=False; "
            "call model.requires_grad_(True), or name some in params="
        )
    return f"params selects none of the {trainable} trainable parameters"


def _check(name: str, parameter: nn.Parameter) -> None:
    if nn.parameter.is_lazy(parameter):
        raise TypeError(f"parameter {name!r} has no shape yet; run the model once on a batch first")
    if not parameter.dtype.is_floating_point:
        raise TypeError(
            f"parameter {name!r} has dtype {parameter.dtype}; curvature needs real floating-point "
            "parameters: convert it, or leave it out with params="
        )
    if parameter.layout != torch.strided:
        raise TypeError(f"parameter {name!r} is {parameter.layout}; pass a dense one")
    if parameter.is_meta:
        raise TypeError(
            f"parameter {name!r} is on the meta device, which holds no numbers; load the weights"
        )
    finite = torch.isfinite(parameter)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise NonFiniteError(
            f"parameter {name!r} holds {bad} values that are not finite (NaN or Inf) of "
            f"{parameter.numel()}; the model has diverged: load an earlier checkpoint"
        )


def _warn_of_half(kept: Sequence[tuple[str, nn.Parameter]]) -> None:
    half = [name for name, p in kept if p.element_size() < 4]
    if half:
        kind = next(p.dtype for name, p in kept if name == half[0])
        warnings.warn(
            f"parameters {half} are {kind}: Hessian-vector products carry about "
            f"{torch.finfo(kind).eps:.0e} relative rounding; model.float() or .double() is exacter",
            stacklevel=4,
        )
