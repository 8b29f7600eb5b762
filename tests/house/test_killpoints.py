"""The table of `latent.killpoints` and the code agree, and nothing that reaches the disk or a plugin has no kill-point."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from latent.killpoints import POINTS

LATENT = Path(__file__).resolve().parents[2] / "latent"

SHELL = ("controller", "store", "swarm")
"""The rooms that have kill-points."""

GATE = "asking.py"
"""Where hooks are called for others, who have the points."""

MARKS = {"here", "passing"}


def test_the_table_and_the_code_agree() -> None:
    """Every point of the table is in the code, every one in the code is in the table, and each is named by a literal."""
    found: set[str] = set()
    for path in _modules():
        for call in _calls(ast.parse(path.read_text())):
            if _name(call) in MARKS:
                (name,) = call.args
                assert isinstance(name, ast.Constant), f"{path}:{call.lineno}: a kill-point is named by a literal"
                found.add(str(name.value))
    assert found == set(POINTS)
    assert len(POINTS) >= 40


def test_nothing_goes_out_without_a_point() -> None:
    """In the controller, whatever writes to the store or calls a plugin has a kill-point beside it."""
    missing = []
    for path in sorted(path for room in ("controller", "swarm") for path in (LATENT / room).glob("*.py")):
        source = path.read_text()
        if path.name == GATE or (path.parent.name == "swarm" and "latent.store" not in source):
            continue  # a driver has neither store nor plugins
        for function in _functions(ast.parse(source)):
            calls = list(_calls(function))
            out = [call.lineno for call in calls if _goes_out(call)]
            if out and not any(_name(call) in MARKS for call in calls):
                missing.append(f"{path.name}:{out[0]} in {function.name}")
    assert missing == []


def test_the_rule_sees_what_it_is_about() -> None:
    """A write and a hook both count as going out."""
    bare = ast.parse("async def f(self):\n    await self._store.write(op)\n    hooks.call(self.plugin.stop_instance)")
    assert {call.lineno for function in _functions(bare) for call in _calls(function) if _goes_out(call)} == {2, 3}


def _modules() -> Iterator[Path]:
    for room in SHELL:
        yield from sorted((LATENT / room).glob("*.py"))


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Those of modules and classes; what is inside of them belongs to them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node)


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _goes_out(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="ask"):
            return True
        case ast.Attribute(value=ast.Name(id="hooks"), attr="call"):
            return True
        case ast.Attribute(value=ast.Name(id="store") | ast.Attribute(attr="store" | "_store"), attr="write"):
            return True
        case _:
            return False


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""
