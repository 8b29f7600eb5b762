"""How the calls and elements of master.cfg come to be led through the guard (`latent.config.source.Guard`).

``f(x)`` becomes ``guard.call(f)(x)``, and an element ``e`` of a list or dict ``guard.element(lambda: e, names)``. Nothing else
changes: what is evaluated, in which order and in which scope stays as it was, and so do the lines of tracebacks. No line is
written into the code: a function that only moved in the file must compare equal to what it was (`latent.worker.declaration`).
"""

from __future__ import annotations

import ast
from typing import TypeVar

Node = TypeVar("Node", bound=ast.AST)

GUARD = "<guard>"
"""The guard's name in the namespace. No file can hide or use it: Python has no way to write it."""


class Instrument(ast.NodeTransformer):
    """Classes are left alone (they are plugins, not declarations), and bodies of ``try`` (they deal with errors themselves).

    Elements are led through the guard only where nothing is nested: a lambda sees what the top of the file sees.
    """

    def __init__(self) -> None:
        self._nested = 0

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        node.handlers = [self.visit(handler) for handler in node.handlers]
        node.orelse = [self.visit(statement) for statement in node.orelse]
        node.finalbody = [self.visit(statement) for statement in node.finalbody]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._scope(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._scope(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return self._scope(node)

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        return self._scope(node)

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        return self._scope(node)

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        return self._scope(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        return self._scope(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.func = _guarded("call", node.func, node.func)
        return node

    def visit_List(self, node: ast.List) -> ast.AST:
        names = [_names(element) for element in node.elts]
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            node.elts = [self._element(element, used) for element, used in zip(node.elts, names, strict=True)]
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        names = [_names(value) for value in node.values]
        self.generic_visit(node)
        node.values = [
            value if key is None else self._element(value, used)
            for key, value, used in zip(node.keys, node.values, names, strict=True)
        ]
        return node

    def _scope(self, node: Node) -> Node:
        self._nested += 1
        self.generic_visit(node)
        self._nested -= 1
        return node

    def _element(self, element: ast.expr, names: list[str]) -> ast.expr:
        if self._nested or isinstance(element, ast.Constant | ast.Starred):
            return element
        if any(isinstance(node, ast.NamedExpr) for node in ast.walk(element)):
            return element  # a walrus in a lambda would bind a name of the lambda's
        arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        used: list[ast.expr] = [ast.Constant(name) for name in names]
        return _guarded("element", element, ast.Lambda(args=arguments, body=element), ast.Tuple(elts=used, ctx=ast.Load()))


def _names(expression: ast.expr) -> list[str]:
    return sorted({node.id for node in ast.walk(expression) if isinstance(node, ast.Name)})


def _guarded(method: str, at: ast.expr, *args: ast.expr) -> ast.expr:
    guard = ast.Name(id=GUARD, ctx=ast.Load())
    call = ast.Call(func=ast.Attribute(value=guard, attr=method, ctx=ast.Load()), args=list(args), keywords=[])
    return ast.copy_location(call, at)
