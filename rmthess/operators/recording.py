"""A linear function of tensors, written down while it runs once, to be run again without the rest.

A derivative at a fixed point is linear in its direction. Of all the operations that one evaluation
performs, only those that the direction reaches must be repeated for another direction; everything
else is a constant. That is what ``torch.func.linearize`` returns as well; recording what happens,
instead of tracing and folding it, took a third to a tenth of its time.

Where the record begins at the data, what they reach and the direction does not is a program of its
own: run once for each batch, it makes the constants of the other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate, map_arg
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from rmthess.operators.fusion import fuse, hastened, note

Values = Sequence[Tensor | None]
Function = Callable[[list[Tensor]], Values]

_NOTHING, _DATA, _DIRECTION = range(3)  # what a value depends on, the direction above all
_NAMES = {_DATA: "that depends on the data", _DIRECTION: "that depends on the direction"}
_READING = (Tensor.tolist, Tensor.numpy, Tensor.__array__)


class NotRecordable(RuntimeError):
    """The function cannot be repeated from its record; the message says which operation is why."""


@dataclass(frozen=True, eq=False)
class Recording:
    """``run(tensors, prepare(given))`` repeats the function for others of the same shapes.

    ``first`` is what the direction does not reach, ``second`` the rest, ``graph`` its operations.
    """

    first: Callable[..., Sequence[Tensor]]
    second: Callable[..., Values]
    graph: fx.Graph
    constants: tuple[Tensor, ...]
    versions: int

    def prepare(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """What all directions share."""
        with torch.no_grad():
            return self.first(*given)

    def run(self, tensors: Sequence[Tensor], prepared: Sequence[Tensor] = ()) -> Values:
        """Raise RuntimeError if a constant, such as the data, was changed in place meanwhile."""
        if _versions(self.constants) != self.versions:
            raise RuntimeError(
                "the data, or another tensor that the operator holds, was modified in place since "
                "the operator was made; make it anew"
            )
        with torch.no_grad():
            return self.second(*prepared, *tensors)

    @property
    def bytes(self) -> int:
        """What the constants keep alive."""
        storages = (tensor.untyped_storage() for tensor in self.constants)
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

    def compiled(self) -> Recording:
        """The same through ``torch.compile``, which fuses what is elementwise; takes seconds."""
        return replace(self, second=torch.compile(self.second, dynamic=False))


def record(
    function: Function, tensors: Sequence[Tensor], given: Sequence[Tensor] = ()
) -> tuple[Values, Recording]:
    """function([*given, *tensors]), and a recording of how it depends on them; None stays None.

    Raises NotRecordable where a dependence cannot be written down: a value taken out of a tensor, a
    shape that depends on values, random numbers where data are ``given``, or an operation in place
    on memory that something else sees.

    >>> x = torch.tensor([1.0, 2.0])
    >>> value, recording = record(lambda v: [x.exp().log() * v[0].flip(0)], [torch.ones(2)])
    >>> value, recording.run([torch.tensor([3.0, 4.0])])
    ([tensor([1., 2.])], [tensor([4., 6.])])
    """
    recorder = _Recorder(given, tensors)
    with recorder, _Reading(recorder):
        value = list(function([*given, *tensors]))
    return value, recorder.finish(value)


class _Recorder(TorchDispatchMode):
    """Sees every operation below autograd and below the transforms of ``torch.func``."""

    def __init__(self, given: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._nodes = WeakTensorKeyDictionary()
        self._dependence: dict[fx.Node, int] = {}
        self._constants: dict[int, tuple[Tensor, fx.Node]] = {}
        # By address: on what the operation depends that wrote there, and which operations read it
        # that depend on more than it. What they read lives on, lest the address be another's.
        self._overwritten: dict[int, int] = {}
        self._readers: dict[int, list[tuple[Tensor, fx.Node]]] = {}
        self._too_early: list[tuple[fx.Node, Any]] = []  # and what overwrites what they read
        self._begins_at_data = bool(given)
        for kind, found in ((_DATA, given), (_DIRECTION, tensors)):
            for i, tensor in enumerate(found):
                self._keep(self._graph.placeholder(f"{'nxv'[kind]}{i}"), tensor, kind)

    def depends(self, tensor: Tensor) -> int:
        """On nothing, the data or the direction."""
        return self._dependence[self._nodes[tensor]] if tensor in self._nodes else _NOTHING

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = map_aggregate((args, kwargs or {}), _solid)
        read = _tensors((args, kwargs))
        on = max(map(self.depends, read), default=_NOTHING)
        written = _written(func, args) if func._schema.is_mutable else []
        self._check(func, args, on, read, written)
        if on == _NOTHING:
            return func(*args, **kwargs)
        target = func
        if any(self.depends(x) < on for x in written):
            # What becomes dependent here must be as it was at the next run.
            target = _out_of_place(func)
            self._overwritten |= {_address(x): on for x in written}
            self._save(func, [x for x in written if self.depends(x) == _NOTHING])
        node = self._graph.call_function(target, *map_aggregate((args, kwargs), self._node))
        for x in read:
            if self.depends(x) < on:
                self._readers.setdefault(_address(x), []).append((x, node))
        self._dependence[node] = on
        out = func(*args, **kwargs)
        if isinstance(out, Tensor):
            self._keep(node, out, on)
        elif isinstance(out, (tuple, list)):
            for i, part in enumerate(out):
                if isinstance(part, Tensor):
                    item = self._graph.call_function(operator.getitem, (node, i))
                    self._keep(item, part, on)
        return out

    def _keep(self, node: fx.Node, value: Tensor, on: int) -> None:
        self._nodes[value] = node
        self._dependence[node] = on
        note(node, value)

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

    def _save(self, func: Any, constants: list[Tensor]) -> None:
        """Keep what is in them before it is overwritten."""
        for x in constants:
            node = self._node(x)
            self._constants[id(x)] = x.clone(), node
            readers = self._readers.get(_address(x), [])
            self._too_early += [(node, func) for seen, node in readers if seen is not x]

    def _check(
        self, func: Any, args: tuple[Any, ...], on: int, read: list[Tensor], written: list[Tensor]
    ) -> None:
        """Raise NotRecordable if the operation could not be repeated."""
        if self._begins_at_data and torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecordable(f"{func} draws random numbers")
        if on > _NOTHING and torch.Tag.data_dependent_output in func.tags:
            raise NotRecordable(f"{func} takes a number out of a tensor {_NAMES[on]}")
        if on > _NOTHING and torch.Tag.dynamic_output_shape in func.tags:
            masks = [x for x in _tensors(args[1:]) if x.dtype in (torch.bool, torch.uint8)]
            if func is not torch.ops.aten.index.Tensor or any(map(self.depends, masks)):
                raise NotRecordable(f"{func} has a result of a shape {_NAMES[on]}")
        for x in read:
            if self.depends(x) < self._overwritten.get(_address(x), _NOTHING):
                raise NotRecordable(f"{func} reads memory that was overwritten through a view")
        for x in written:
            readers = self._readers.get(_address(x), [])
            self._too_early += [(node, func) for _, node in readers if self._dependence[node] > on]

    def finish(self, value: Values) -> Recording:
        self._graph.output([self._node(x) for x in value])
        self._graph.eliminate_dead_code()
        alive = set(self._graph.nodes)
        for node, func in self._too_early:
            if node in alive:
                raise NotRecordable(f"{func} overwrites what {node.target} read before")
        first, second = _split(self._graph, self._dependence)
        for graph in (first, second):
            fuse(graph)
        used = {n.target for graph in (first, second) for n in graph.find_nodes(op="get_attr")}
        # Detached, lest they keep the graph alive of which they are parts.
        constants = {
            str(n.target): x.detach() for x, n in self._constants.values() if n.target in used
        }
        kept = tuple(constants.values())
        programs = [fx.GraphModule(constants, hastened(graph)) for graph in (first, second)]
        return Recording(programs[0], programs[1], second, kept, _versions(kept))


def _split(graph: fx.Graph, dependence: dict[fx.Node, int]) -> tuple[fx.Graph, fx.Graph]:
    """The part that the direction does not reach, and the rest as a function of its results."""
    first, second = fx.Graph(), fx.Graph()
    in_first, in_second = dict[fx.Node, fx.Node](), dict[fx.Node, fx.Node]()
    *nodes, output = graph.nodes
    for node in nodes:
        if dependence.get(node) != _DIRECTION:
            in_first[node] = first.node_copy(node, in_first.__getitem__)
    bridge = [
        node
        for node in nodes
        if dependence.get(node) == _DATA
        and any(user is output or dependence[user] == _DIRECTION for user in node.users)
    ]
    first.output([in_first[node] for node in bridge])
    for node in bridge:
        in_second[node] = second.placeholder(node.name)
        in_second[node].meta = dict(node.meta)
    for node in nodes:
        if dependence.get(node) != _DATA:
            in_second[node] = second.node_copy(node, in_second.__getitem__)
    second.output(map_arg(output.args[0], in_second.__getitem__))
    return first, second


class _Reading(TorchFunctionMode):
    """Sees what takes numbers out of a tensor without an operation."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in _READING and self._recorder.depends(args[0]):
            on = _NAMES[self._recorder.depends(args[0])]
            raise NotRecordable(f"{func.__name__} takes numbers out of a tensor {on}")
        return func(*args, **({} if kwargs is None else kwargs))


def _tensors(value: Any) -> list[Tensor]:
    found = list[Tensor]()
    map_aggregate(value, lambda x: found.append(x) if isinstance(x, Tensor) else None)
    return found


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


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
