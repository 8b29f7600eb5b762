"""What a worker was declared with, so that a reload can tell whether anything changed.

master.cfg is run anew at each reload, so every function and class that it defines is another object each time. Those are
compared by what they do: their code, defaults, closures, and the globals they name. What can't be compared counts as changed:
a change that is missed leaves a wrong instance in use, one that is imagined only starts an instance too many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

from latent.worker.properties import Properties

BUDGET = 10_000
"""How many values are compared before two declarations count as different: an SDK's session object can reach half the heap."""

_CODE = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags", "co_argcount", "co_kwonlyargcount")
_CLASS_NOISE = ("__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "__doc__")


class Declaration:
    """The class and arguments of one worker. Equal iff nothing changed; ``instance`` leaves out what only the controller uses."""

    def __init__(
        self, cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], settings: frozenset[str] = frozenset()
    ) -> None:
        self.cls = cls
        self.args = args
        self.kwargs = dict(kwargs)
        self._settings = settings

    @property
    def instance(self) -> Declaration:
        """What an instance is made from: where this is equal, one that is up may stay."""
        made_from = {name: value for name, value in self.kwargs.items() if name not in self._settings}
        return Declaration(self.cls, self.args, made_from)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Declaration):
            return NotImplemented
        comparison = _Comparison()
        return all(
            comparison.same(a, b) for a, b in ((self.cls, other.cls), (self.args, other.args), (self.kwargs, other.kwargs))
        )

    __hash__ = None  # type: ignore[assignment]  # its arguments may be changed by whoever holds them

    def __repr__(self) -> str:
        return f"Declaration({self.cls.__name__}, {self.args!r}, {sorted(self.kwargs)})"


class _Comparison:
    """One comparison of two values, with its budget and the pairs that are already under way."""

    def __init__(self) -> None:
        self._left = BUDGET
        self._seen: set[tuple[int, int]] = set()

    def same(self, a: Any, b: Any) -> bool:
        if a is b:
            return True
        if type(a) is not type(b):
            return False
        if isinstance(a, str | bytes | int | float | complex | frozenset):
            return bool(a == b)
        pair = (id(a), id(b))
        if pair in self._seen:
            return True
        self._seen.add(pair)
        self._left -= 1
        return self._left > 0 and self._compare(a)(a, b)

    def _compare(self, a: Any) -> Callable[[Any, Any], bool]:
        if isinstance(a, FunctionType):
            return self._functions
        if isinstance(a, CodeType):
            return self._codes
        if isinstance(a, type):
            return self._classes
        if isinstance(a, list | tuple):
            return self._sequences
        if isinstance(a, dict | Properties):
            return self._mappings
        if isinstance(a, classmethod | staticmethod):
            return lambda a, b: self.same(a.__func__, b.__func__)
        if isinstance(a, property):
            return lambda a, b: self.same((a.fget, a.fset, a.fdel), (b.fget, b.fset, b.fdel))
        return self._objects

    def _sequences(self, a: Any, b: Any) -> bool:
        return len(a) == len(b) and all(self.same(x, y) for x, y in zip(a, b, strict=True))

    def _mappings(self, a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
        return a.keys() == b.keys() and all(self.same(a[key], b[key]) for key in a)

    def _objects(self, a: Any, b: Any) -> bool:
        """By their own ==; those that have none, and renderables that hold others, by their attributes."""
        try:
            if a == b:
                return True
        except Exception as error:  # somebody else's __eq__; what can't be compared counts as changed
            return error is None
        attributes = getattr(a, "__dict__", None)
        return attributes is not None and self._mappings(attributes, b.__dict__)

    def _functions(self, a: FunctionType, b: FunctionType) -> bool:
        def cells(function: FunctionType) -> tuple[Any, ...]:
            return tuple(cell.cell_contents for cell in function.__closure__ or ())

        if not self.same(a.__code__, b.__code__) or not self.same(
            (a.__defaults__, a.__kwdefaults__), (b.__defaults__, b.__kwdefaults__)
        ):
            return False
        try:
            if not self.same(cells(a), cells(b)):
                return False
        except ValueError:  # a cell that is still empty
            return False
        missing = object()
        return all(
            self.same(a.__globals__.get(name, missing), b.__globals__.get(name, missing))
            for name in _names(a.__code__)
            if name in a.__globals__ or name in b.__globals__
        )

    def _codes(self, a: CodeType, b: CodeType) -> bool:
        """Not by ==, which also compares line numbers."""
        return all(getattr(a, name) == getattr(b, name) for name in _CODE) and self.same(a.co_consts, b.co_consts)

    def _classes(self, a: type, b: type) -> bool:
        if (a.__module__, a.__qualname__) != (b.__module__, b.__qualname__):
            return False

        def body(cls: type) -> dict[str, Any]:
            return {name: value for name, value in vars(cls).items() if name not in _CLASS_NOISE}

        return self.same(a.__bases__, b.__bases__) and self._mappings(body(a), body(b))


def _names(code: CodeType) -> set[str]:
    """The names that a function may look up in its globals. The configuration's own helpers ("<...>") are no part of it."""
    names = {name for name in code.co_names if not name.startswith("<")}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names
