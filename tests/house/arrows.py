"""Which room may import which, read from the source: nothing is imported to find out.

Imports in functions and under TYPE_CHECKING count like all others, and so does `import_module("latent....")`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

VALUES = {"model", "errors"}
BELOW_STORE = VALUES | {"core", "worker"}
BELOW_CONTROLLER = BELOW_STORE | {"store", "plugins", "config", "killpoints"}
BELOW_WEB = BELOW_CONTROLLER | {"controller", "swarm"}

# A room is a folder or a module of latent/. A room may always import itself, and `latent` for its version.
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "errors": {"model"},
    "wire": set(),
    "killpoints": set(),
    "core": VALUES,
    "worker": VALUES | {"core"},
    "plugins": BELOW_STORE,
    "store": VALUES | {"core", "killpoints"},
    "config": BELOW_STORE | {"store", "plugins"},
    "controller": BELOW_CONTROLLER,
    "swarm": BELOW_CONTROLLER | {"controller"},
    "web": BELOW_WEB,
    "gateways": BELOW_WEB | {"wire"},
    "cli": BELOW_WEB | {"gateways", "web", "agent"},
    "agent": VALUES | {"wire"},
    "testing": BELOW_WEB | {"gateways", "web", "agent", "wire"},
}
PLUGINS_MAY_IMPORT = {"worker", "errors", "model", "testing"}

# Rooms inside this room do not know one another: a gateway speaks one protocol. What all of them need lies beside them.
APART = "gateways"
# "rpc" is what those that speak gRPC share.
SHARED = {"environment", "ports", "rpc"}

IMPURE = {
    *("asyncio", "concurrent", "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select", "selectors"),
    *("shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "twisted", "uuid"),
}
"""What core/, which is a pure function of its arguments, can't import."""

IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today"}


@frozen(order=True)
class Wrong:
    """An import, or a call, that must not be."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def wrong_arrows(root: Path) -> list[Wrong]:
    """All that is wrong in `root`/latent and `root`/plugins."""
    found: list[Wrong] = []
    for path in sorted([*root.glob("latent/**/*.py"), *root.glob("plugins/**/*.py")]):
        relative = path.relative_to(root)
        tree = ast.parse(path.read_text(encoding="utf-8"), str(relative))
        package = ".".join(relative.with_suffix("").parts[:-1])
        for line, target in imports(tree, package):
            found += [Wrong(str(relative), line, what) for what in judge(relative, target)]
        if relative.parts[:2] == ("latent", "core"):
            found += [
                Wrong(str(relative), line, f"core/ calls {name}(): it is given what it needs") for line, name in calls(tree)
            ]
    return sorted(set(found))


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported; the name of a thing in a module counts as `module.thing`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                start = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*start, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of calls that reach for the world."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in IMPURE_CALLS:
                yield node.lineno, name


def judge(path: Path, target: str) -> Iterator[str]:
    """What is wrong with the file at `path` (relative to the root) importing `target`; nothing if it may."""
    top, *rest = target.split(".")
    ours = path.parts[0] == "latent"
    room = Path(path.parts[1]).stem if ours else "plugins/" + path.parts[1]
    if target.startswith("twisted.internet.reactor") and ours and room != "cli":
        yield f"{room} imports the global reactor; only cli/ may, all others are given theirs"
    elif room == "agent" and top == "twisted":
        yield "agent/ imports twisted; it is asyncio and grpc.aio alone"
    if room == "core" and top in IMPURE:
        yield f"core/ imports {top}; it is pure"
    if top != "latent" or not rest:
        return
    aim = rest[0]
    if not ours:
        if aim not in PLUGINS_MAY_IMPORT and aim in MAY_IMPORT:
            yield f"a plugin imports latent.{aim}; it may import {_listed(PLUGINS_MAY_IMPORT)}"
    elif room == "__init__":
        if aim in MAY_IMPORT:
            yield f"latent/__init__.py imports latent.{aim}; it imports nothing, as everybody imports it"
    elif room not in MAY_IMPORT:
        yield f"{room} is a room that tests/house/arrows.py does not know; say there what it may import"
    elif aim == room:
        if room == APART and len(path.parts) > 3 and len(rest) > 1 and rest[1] not in {path.parts[2], *SHARED}:
            yield f"gateways/{path.parts[2]} imports gateways/{rest[1]}; gateways do not know one another"
    elif aim in MAY_IMPORT and aim not in MAY_IMPORT[room]:
        yield f"{room} imports {aim}; it may import {_listed(MAY_IMPORT[room]) or 'no other room'}"


def _listed(rooms: set[str]) -> str:
    return ", ".join(sorted(rooms))
