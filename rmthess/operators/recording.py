"""A linear function of tensors, written down while it runs once, to be run again without the rest.

A derivative at a fixed point is linear in its direction. Of all the operations that one evaluation
performs, only those that the direction reaches must be repeated for another direction; everything
else is a constant. That is what ``torch.func.linearize`` returns as well; recording what happens,
instead of tracing and folding it, took a third to a tenth of its time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from rmthess.operators.fusion import fuse, note

Values = Sequence[Tensor | None]
Function = Callable[[list[Tensor]], Values]


class NotRecordable(RuntimeError):
    """The function cannot be repeated from its record; the message says which operation is why."""


@dataclass(frozen=True, eq=False)
class Recording:
    """``run(tensors)`` repeats the recorded function for other tensors of the same shapes."""

    module: Callable[..., Values]
    graph: fx.Graph
    constants: tuple[Tensor, ...]
    versions: int

    def run(self, tensors: Sequence[Tensor]) -> Values:
        """Raise RuntimeError if a constant, such as the data, was changed in place meanwhile."""
        if _versions(self.constants) != self.versions:
            raise RuntimeError(
                "the data, or another tensor that the operator holds, was modified in place since "
                "the operator was made; make it anew"
            )
        with torch.no_grad():
            return self.module(*tensors)

    @property
    def bytes(self) -> int:
        """What the constants keep alive."""
        storages = (tensor.untyped_storage() for tensor in self.constants)
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

    def compiled(self) -> Recording:
        """The same through ``torch.compile``, which fuses what is elementwise; takes seconds."""
        compiled = torch.compile(self.module, dynamic=False)
        return Recording(compiled, self.graph, self.constants, self.versions)


def record(function: Function, tensors: list[Tensor]) -> tuple[Values, Recording]:
    """function(tensors), and a recording of how it depends on them; None stays None.

    Raises NotRecordable where a dependence cannot be written down: a value taken out of a tensor,
    or an operation in place on memory that something else still sees.

    >>> x = torch.tensor([1.0, 2.0])
    >>> value, recording = record(lambda v: [x.exp().log() * v[0].flip(0)], [torch.ones(2)])
    >>> value, recording.run([torch.tensor([3.0, 4.0])])
    ([tensor([1., 2.])], [tensor([4., 6.])])
    """
    recorder = _Recorder(tensors)
    with recorder:
        value = list(function(tensors))
    return value, recorder.finish(value)


class _Recorder(TorchDispatchMode):
    """Sees every operation below autograd and below the transforms of ``torch.func``."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._nodes = WeakTensorKeyDictionary()
        for i, tensor in enumerate(tensors):
            self._nodes[tensor] = self._graph.placeholder(f"v{i}")
            note(self._nodes[tensor], tensor)
        self._constants: dict[int, tuple[Tensor, fx.Node]] = {}
        self._overwritten: dict[int, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = map_aggregate((args, kwargs or {}), _solid)
        given = list[Tensor]()
        map_aggregate((args, kwargs), lambda x: given.append(x) if isinstance(x, Tensor) else None)
        dependent = [x in self._nodes for x in given]
        if self._overwritten:
            self._check_views(func, given, dependent)
        if not any(dependent):
            return func(*args, **kwargs)
        target = func
        written = _written(func, args) if func._schema.is_mutable else []
        if any(x not in self._nodes for x in written):
            # A constant that becomes dependent here must be one again at the next run.
            target = _out_of_place(func)
            self._overwritten |= {x.untyped_storage().data_ptr(): x for x in written}
        nodes = map_aggregate((args, kwargs), self._node)
        out = func(*args, **kwargs)
        self._note(target, nodes, out)
        return out

    def _note(self, target: Any, nodes: tuple[Any, Any], out: Any) -> None:
        if isinstance(out, Tensor):
            self._nodes[out] = self._graph.call_function(target, *nodes)
            note(self._nodes[out], out)
        elif isinstance(out, (tuple, list)):
            node = self._graph.call_function(target, *nodes)
            for i, part in enumerate(out):
                if isinstance(part, Tensor):
                    self._nodes[part] = self._graph.call_function(operator.getitem, (node, i))
                    note(self._nodes[part], part)
        elif target is torch.ops.aten._local_scalar_dense.default:
            raise NotRecordable("a number is taken out of a tensor that depends on the direction")

    def _node(self, tensor: Any) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        if tensor in self._nodes:
            return self._nodes[tensor]
        if id(tensor) not in self._constants:
            name = f"c{len(self._constants)}"
            self._constants[id(tensor)] = tensor, self._graph.get_attr(name)
            note(self._constants[id(tensor)][1], tensor)
        return self._constants[id(tensor)][1]

    def _check_views(self, func: Any, given: list[Tensor], dependent: list[bool]) -> None:
        for tensor, known in zip(given, dependent, strict=True):
            if not known and tensor.untyped_storage().data_ptr() in self._overwritten:
                raise NotRecordable(f"{func} reads memory that was overwritten through a view")

    def finish(self, value: Values) -> Recording:
        self._graph.output([self._node(x) for x in value])
        fuse(self._graph)
        used = {node.target for node in self._graph.find_nodes(op="get_attr")}
        # Detached, lest they keep the graph alive of which they are parts.
        constants = {
            str(n.target): x.detach() for x, n in self._constants.values() if n.target in used
        }
        module = fx.GraphModule(constants, self._graph)
        kept = tuple(constants.values())
        return Recording(module, self._graph, kept, _versions(kept))


def _solid(value: Any) -> Any:
    """Zeros without memory become zeros: torch 2.13 dies of ``mul.Scalar`` of them in a mode."""
    is_hollow = isinstance(value, Tensor) and value._is_zerotensor()
    return torch.zeros_like(value) if is_hollow else value


def _written(func: Any, args: tuple[Any, ...]) -> list[Tensor]:
    places = zip(func._schema.arguments, args, strict=False)
    return [x for place, x in places if place.is_write and isinstance(x, Tensor)]


def _out_of_place(func: Any) -> Any:
    """``aten.copy_`` -> ``aten.copy``."""
    name = func._schema.name.removeprefix("aten::")
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    found = getattr(packet, func._overloadname, None)
    if found is None:
        raise NotRecordable(f"{func} writes into a constant and has no form out of place")
    return found


def _versions(tensors: Sequence[Tensor]) -> int:
    # An inference tensor counts no versions and cannot be written to outside inference mode.
    return sum(x._version for x in tensors if not x.is_inference())
