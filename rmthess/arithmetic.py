"""The arithmetic of a number: one formula, three namespaces.

A law writes its formula once, against the functions of :func:`arithmetic`. Floats and arrays then
get speed, ``mpmath`` numbers as many digits as they carry, ``sympy`` expressions the formula
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Function = Callable[..., Any]


@dataclass(frozen=True)
class Arithmetic:
    """The elementary functions of one kind of number.

    ``point`` prepares a spectral parameter (a real one means z + i0), ``real`` a real argument;
    ``positive_part`` is max(x, 0), ``step`` is 1 where x >= 0 and else 0, ``clip`` brings a number
    between two others and leaves an expression as it is, and ``quotient`` is x/y with 0/0 = 0 and
    x/0 infinite.
    """

    name: str
    pi: Any
    sqrt: Function
    log: Function
    tanh: Function
    arctan2: Function
    positive_part: Function
    step: Function
    clip: Function
    quotient: Function
    point: Function
    real: Function

    @property
    def exact(self) -> bool:
        """True where numbers are not IEEE doubles."""
        return self.name != "numpy"


def arithmetic(*values: Any) -> Arithmetic:
    """The arithmetic that serves all of ``values``: sympy before mpmath before numpy."""
    kinds = {_kind(value) for value in values}
    if "sympy" in kinds:
        return _sympy()
    if "mpmath" in kinds:
        return _mpmath()
    return _NUMPY


def plain(value: Any) -> Any:
    """A NumPy scalar, also as an array of no dimension, as a Python number; else unchanged."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and not value.shape else value


def is_symbolic(value: Any) -> bool:
    """True for an expression whose sign cannot be read off, such as ``sympy.Symbol("q")``."""
    return _kind(value) == "sympy" and not value.is_number


def check_positive(name: str, value: Any, meaning: str) -> None:
    """Refuse a parameter that is not a positive finite number; a symbol passes."""
    if is_symbolic(value):
        return
    try:
        good = bool(value > 0) and float(value) < np.inf
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name} must be a positive finite number, got {value!r}; it is {meaning}")


def check_finite(name: str, value: Any, meaning: str) -> None:
    """Refuse a parameter that is not a finite number; a symbol passes."""
    if is_symbolic(value):
        return
    try:
        good = bool(-np.inf < value < np.inf)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name} must be a finite number, got {value!r}; it is {meaning}")


def _kind(value: Any) -> str:
    if type(value) is float:
        return "numpy"
    if isinstance(value, (list, tuple, np.ndarray)):
        array = np.asarray(value)
        if array.dtype.kind != "O":
            return "numpy"
        kinds = {_kind(item) for item in array.ravel()}
        return "sympy" if "sympy" in kinds else "mpmath" if "mpmath" in kinds else "numpy"
    root = type(value).__module__.partition(".")[0]
    return root if root in ("sympy", "mpmath") else "numpy"


def _numpy_quotient(x: Any, y: Any) -> Any:
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.where((x == 0) & (y == 0), 0.0, np.divide(x, y))[()]


_NUMPY = Arithmetic(
    name="numpy",
    pi=np.pi,
    sqrt=np.sqrt,
    log=np.log,
    tanh=np.tanh,
    arctan2=np.arctan2,
    positive_part=lambda x: np.maximum(x, 0.0),
    step=lambda x: np.where(x >= 0, 1.0, 0.0),
    clip=np.clip,
    quotient=_numpy_quotient,
    point=lambda z: np.asarray(z, dtype=complex),
    real=lambda x: np.asarray(x, dtype=float),
)


def _elementwise(function: Function, inputs: int = 1) -> Function:
    return np.frompyfunc(function, inputs, 1)


@cache
def _mpmath() -> Arithmetic:
    import mpmath

    def quotient(x: Any, y: Any) -> Any:
        return x / y if y else mpmath.mpf("inf") * x if x else mpmath.mpf(0)

    return Arithmetic(
        name="mpmath",
        pi=mpmath.pi,
        sqrt=_elementwise(mpmath.sqrt),
        log=_elementwise(mpmath.log),
        tanh=_elementwise(mpmath.tanh),
        arctan2=_elementwise(mpmath.atan2, 2),
        positive_part=_elementwise(lambda x: max(x, mpmath.mpf(0))),
        step=_elementwise(lambda x: mpmath.mpf(x >= 0)),
        clip=_elementwise(lambda x, low, high: min(max(x, low), high), 3),
        quotient=_elementwise(quotient, 2),
        point=_elementwise(mpmath.mpmathify),
        real=_elementwise(mpmath.mpmathify),
    )


@cache
def _sympy() -> Arithmetic:
    import sympy

    return Arithmetic(
        name="sympy",
        pi=sympy.pi,
        sqrt=_elementwise(sympy.sqrt),
        log=_elementwise(sympy.log),
        tanh=_elementwise(sympy.tanh),
        arctan2=_elementwise(sympy.atan2, 2),
        positive_part=_elementwise(lambda x: sympy.Max(x, 0)),
        step=_elementwise(lambda x: sympy.Heaviside(x, 1)),
        clip=lambda x, low, high: x,
        quotient=_elementwise(lambda x, y: sympy.Integer(0) if x == y == 0 else x / y, 2),
        point=_elementwise(sympy.sympify),
        real=_elementwise(sympy.sympify),
    )
