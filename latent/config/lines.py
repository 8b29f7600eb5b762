"""Where in master.cfg a key of ``c`` is set, read from the file's syntax tree.

A place is a path: ``("limits", "max_instances")`` is ``c["limits"]["max_instances"]``, ``("workers", 2)`` the third element of
``c["workers"]``. Only what stands at the top of the file in plain sight is found (literals, names bound to literals,
``append``, ``extend``, ``update``, ``+=``); for all else the line of the nearest enclosing place is the answer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

Path = tuple[str | int, ...]

ROOTS = ("c", "BuildmasterConfig")
"""The names of the dict that the file fills."""


class Lines:
    """The line of each place of a file. A list whose length is not plain from the file is open: its first elements are known."""

    def __init__(self, tree: ast.Module) -> None:
        self._lines: dict[Path, int] = {(): 1}
        self._lengths: dict[Path, int] = {}
        self._open: set[Path] = set()
        self._bound: dict[str, ast.expr] = {}
        for statement in tree.body:
            self._statement(statement)

    def of(self, path: Path) -> int:
        """The line of the place, or of the nearest one around it."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def of_element(self, path: Path, index: int, length: int) -> int | None:
        """The line of an element of a list that turned out ``length`` long; None if the file does not make that plain."""
        plain = self._lengths.get(path, -1)
        if plain == length or (path in self._open and index < plain <= length):
            return self._lines.get((*path, index))
        return None

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                self._assign(targets, value, statement.lineno)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign([target], value, statement.lineno)
            case ast.AugAssign(target=target, value=ast.List() as value, op=ast.Add()):
                self._extend(place(target), value.elts)
            case ast.AugAssign(target=target, value=ast.Dict() as value, op=ast.BitOr()):
                self._dict(place(target), value)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=target, attr=method), args=args, keywords=keywords)):
                self._method(place(target), method, args, keywords)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                pass
            case _:
                self._compound(statement)

    def _compound(self, statement: ast.stmt) -> None:
        """What stands in an ``if`` or a loop may be done once, often or never: the keys that it sets are known, no element is."""
        for node in ast.walk(statement):
            match node:
                case ast.Assign(targets=targets):
                    for path in filter(None, map(place, targets)):
                        self._forget(path)
                        self._lines[path] = node.lineno
                case ast.AugAssign(target=target):
                    self._unclear(place(target), "extend")
                case ast.Call(func=ast.Attribute(value=target, attr=method)):
                    self._unclear(place(target), method)
                case _:
                    pass

    def _unclear(self, path: Path | None, method: str) -> None:
        """Elements that nobody can count come after the known ones, or anything may have been done to the list."""
        if path is not None and path in self._lengths:
            self._open.add(path)
            if method not in ("append", "extend"):
                del self._lengths[path]

    def _assign(self, targets: Iterable[ast.expr], value: ast.expr, line: int) -> None:
        for target in targets:
            path = place(target)
            if path is not None:
                self._forget(path)
                self._lines[path] = line
                self._value(path, value)
            if isinstance(target, ast.Name):
                self._bound[target.id] = value

    def _method(self, path: Path | None, method: str, args: list[ast.expr], keywords: list[ast.keyword]) -> None:
        match method, args:
            case "append", [element]:
                self._extend(path, [element])
            case "extend", [ast.List(elts=elements)]:
                self._extend(path, elements)
            case "update", _:
                for mapping in args:
                    self._value(path, mapping)
                for keyword in keywords:
                    if path is not None and keyword.arg is not None:
                        self._set((*path, keyword.arg), keyword.value, keyword.value.lineno)
            case _:
                self._unclear(path, method)

    def _value(self, path: Path | None, value: ast.expr) -> None:
        if isinstance(value, ast.Name):
            value = self._bound.get(value.id, value)
        match value:
            case ast.Dict():
                self._dict(path, value)
            case ast.List(elts=elements) if path is not None:
                self._lengths[path] = 0
                self._open.discard(path)
                self._extend(path, elements)
            case _:
                pass

    def _dict(self, path: Path | None, value: ast.Dict) -> None:
        for key, content in zip(value.keys, value.values, strict=True):
            if path is not None and isinstance(key, ast.Constant) and isinstance(key.value, str):
                self._set((*path, key.value), content, key.lineno)

    def _extend(self, path: Path | None, elements: Iterable[ast.expr]) -> None:
        if path is None or path not in self._lengths:
            return
        for element in elements:
            if isinstance(element, ast.Starred):
                self._open.add(path)
            if path in self._open:
                return
            index = self._lengths[path]
            self._lines[(*path, index)] = element.lineno
            self._lengths[path] = index + 1

    def _set(self, path: Path, value: ast.expr, line: int) -> None:
        self._forget(path)
        self._lines[path] = line
        self._value(path, value)

    def _forget(self, path: Path) -> None:
        for table in (self._lines, self._lengths):
            for known in [known for known in table if known[: len(path)] == path]:
                del table[known]
        self._lines.setdefault((), 1)


def place(target: ast.expr) -> Path | None:
    """``c["www"]["port"]`` as a path; None if the expression is not rooted in ``c``."""
    match target:
        case ast.Name(id=name) if name in ROOTS:
            return ()
        case ast.Subscript(value=inner, slice=ast.Constant(value=str(key))):
            around = place(inner)
            return None if around is None else (*around, key)
        case _:
            return None


def bound_names(statement: ast.stmt) -> frozenset[str]:
    """The names that a statement would have bound, had it not failed."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return frozenset({statement.name})
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return frozenset((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    return frozenset(node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))


def loaded_names(statement: ast.stmt) -> frozenset[str]:
    """The names that a statement uses."""
    return frozenset(node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


def settings_of(statement: ast.stmt) -> frozenset[str]:
    """The keys of ``c`` that an assignment sets."""
    targets: list[ast.expr] = []
    match statement:
        case ast.Assign():
            targets = statement.targets
        case ast.AnnAssign() | ast.AugAssign():
            targets = [statement.target]
        case _:
            pass
    return frozenset(str(path[0]) for path in map(place, targets) if path)
