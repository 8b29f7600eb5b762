"""Running FILE.py for the workflow that it makes. Whatever is wrong with it is told with file and line."""

from __future__ import annotations

import ast
import sys
import types
import warnings
from pathlib import Path

from latent.cli import words
from latent.cli.exits import CliError, ExitCode, config_error
from latent.config.mistakes import Mistake, explain
from latent.errors import ConfigError
from latent.swarm.values import Definition
from latent.swarm.workflow import Workflow

MODULE = "workflow_file"
"""Its ``__name__``: what stands under ``if __name__ == "__main__"`` is not run."""

EXAMPLE = 'wf = Workflow("nightly") at the top of the file, with `from latent.swarm import Workflow`'


def load(path: Path, name: str | None = None) -> tuple[Workflow, Definition]:
    """Run the file; its one workflow, checked, called ``name`` if that is given. Raises CliError with all that is wrong.

    Imports find what is beside the file, as with ``python FILE.py``.
    """
    source = _read(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # a compiler's dislike of a statement is no mistake
            tree = ast.parse(source, str(path))
            code = compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        told = Mistake(error.lineno or 0, f"{error.msg}; correct the syntax, nothing of the file was run").of(str(path))
        raise config_error(path, [told]) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise config_error(path, [f"{path}: Python can't read it: {error}; is it a text file?"]) from None
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module  # where dataclasses and pickle look for what the file defines
    sys.path.insert(0, str(path.resolve().parent))
    try:
        exec(code, module.__dict__)  # noqa: S102  a workflow is Python, by design
    except SystemExit as error:
        line = _line(error, path)
        told = f"{path}:{line}: the file ends the program (sys.exit); take that out, raise an exception to refuse to run"
        raise config_error(path, [told]) from None
    except Exception as error:
        trace = error.__traceback__
        mistakes = explain(error.with_traceback(trace.tb_next if trace else None), path)  # without this function's own names
        raise config_error(path, [mistake.of(str(path)) for mistake in mistakes]) from None
    workflow = _the_one(path, tree, module.__dict__)
    if name is not None:
        workflow.name = name
    try:
        return workflow, workflow.definition()
    except ConfigError as error:
        raise config_error(path, error.errors) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CliError(ExitCode.CONFIG, f"{path}: there is no such file", "name the Python file of a workflow") from None
    except IsADirectoryError:
        raise CliError(ExitCode.CONFIG, f"{path} is a directory", "name the Python file of a workflow") from None
    except OSError as error:
        raise CliError(ExitCode.CONFIG, f"{path} can't be read: {error.strerror}", "check its owner and mode") from None


def _line(error: BaseException, path: Path) -> int:
    return next((mistake.line for mistake in explain(error, path)), 0)


def _the_one(path: Path, tree: ast.Module, namespace: dict[str, object]) -> Workflow:
    found: dict[int, tuple[Workflow, str]] = {}
    for name, value in namespace.items():
        if isinstance(value, Workflow):
            found.setdefault(id(value), (value, name))
    if len(found) == 1:
        ((workflow, _),) = found.values()
        return workflow
    if not found:
        raise CliError(ExitCode.CONFIG, f"{path}: there is no workflow in it", f"write {EXAMPLE}")
    lines = _lines(tree)
    named = ", ".join(f"{name} ({path}:{lines.get(name, 1)})" for _, name in found.values())
    raise CliError(
        ExitCode.CONFIG, f"{path}: there are {words.count(len(found), 'workflow')} in it: {named}", "give each a file of its own"
    )


def _lines(tree: ast.Module) -> dict[str, int]:
    """Where the names at the top of the file are bound, for the last time."""
    found: dict[str, int] = {}
    for statement in tree.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found[node.id] = node.lineno
            elif isinstance(node, ast.alias):
                found[node.asname or node.name.partition(".")[0]] = node.lineno
    return found
