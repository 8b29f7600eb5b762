"""Running master.cfg so that one mistake does not hide the next.

The file is run statement by statement, in one namespace, each part of it exactly once and in its order. Three nets catch what
goes wrong, from the finest to the coarsest; what was caught is written down with its line and the file goes on with a `Faulty`
in the place of the value that is missing:

- a call of the class of a worker, machine, builder or step (`Guard.call`), wherever it stands: in a loop, in a function;
- an element of a list or dict that stands at the top of the file (`Guard.element`);
- a statement.

A statement that fails and uses a name that is already faulty is a consequence, not another mistake, and is not reported.
"""

from __future__ import annotations
import __future__

import ast
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from attrs import define, field

from latent.config.builder import Builder
from latent.config.instrument import GUARD, Instrument
from latent.config.lines import Lines, bound_names, loaded_names, settings_of
from latent.config.mistakes import Mistake, explain
from latent.config.steps import Step
from latent.errors import ConfigError
from latent.worker.base import AbstractWorker
from latent.worker.machine import Machine
from latent.worker.machine_actions import Action

GUARDED = (AbstractWorker, Builder, Step, Machine, Action)


class Faulty:
    """Stands where a value should be that could not be made. It gives way to whatever is done to it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __add__(self, other: Any) -> Any:
        return self

    __radd__ = __add__

    def __iter__(self) -> Iterator[Any]:
        return iter(())


@define
class Source:
    """What came of running the file.

    ``preset`` is the `c` that the file found. ``where`` knows the lines of what stands in the file, ``lines`` those where
    each worker and builder was made, by its ``id()``. ``workers_known``, ``machines_known``: nothing went wrong that may have
    cost a worker, or a machine.
    """

    path: Path
    where: Lines
    preset: dict[Any, Any]
    namespace: dict[str, Any]
    mistakes: list[Mistake] = field(factory=list)
    lines: dict[int, int] = field(factory=dict)
    workers_known: bool = True
    machines_known: bool = True
    _kept: list[object] = field(factory=list)  # what is in `lines`, so that no id() is used again

    def made(self, thing: object, line: int) -> None:
        self.lines[id(thing)] = line
        self._kept.append(thing)


class Guard:
    """What the calls and elements of the file are led through while it runs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._active = True

    def close(self) -> None:
        """From here on the functions of the file raise what they raise."""
        self._active = False

    def call(self, function: Any) -> Any:
        """The function itself, unless it makes a worker, a builder or a step."""
        if not self._active or not (isinstance(function, type) and issubclass(function, GUARDED)):
            return function

        def construct(*args: Any, **kwargs: Any) -> Any:
            given = (*args, *kwargs.values())
            if function is Builder:
                args, kwargs = _with_steps(args, kwargs)
            if any(map(_is_faulty, (*args, *kwargs.values()))):
                return Faulty()
            line = sys._getframe(1).f_lineno
            try:
                made = function(*args, **kwargs)
            except Exception as error:
                self._source.mistakes += explain(error, self._source.path, line=line, made=function)
                self._source.workers_known &= not issubclass(function, AbstractWorker)
                self._source.machines_known &= not issubclass(function, Machine | Action)
                return Faulty()
            self._source.made(made, line)
            return Faulty() if any(map(_is_faulty, given)) else made

        return construct

    def element(self, make: Callable[[], Any], names: tuple[str, ...]) -> Any:
        try:
            return make()
        except Exception as error:
            if not self._consequence(frozenset(names)):
                self._source.mistakes += explain(error, self._source.path)
            self._source.workers_known = self._source.machines_known = False
            return Faulty()

    def run(self, statement: ast.stmt, code: CodeType) -> None:
        """Run one statement of the file. Raises nothing but KeyboardInterrupt and its like."""
        namespace = self._source.namespace
        try:
            exec(code, namespace)  # noqa: S102  the configuration is Python, by design
        except (Exception, SystemExit) as error:
            if not self._consequence(loaded_names(statement)):
                self._source.mistakes += explain(error, self._source.path, around=statement.lineno)
            self._source.workers_known = self._source.machines_known = False
            keys = settings_of(statement)
            for name in bound_names(statement):
                namespace[name] = Faulty()
            for key in keys:
                if isinstance(namespace.get("c"), dict):
                    namespace["c"][key] = Faulty()

    def _consequence(self, names: frozenset[str]) -> bool:
        return any(_is_faulty(self._source.namespace.get(name)) for name in names)


def _is_faulty(value: Any) -> bool:
    return isinstance(value, Faulty) or (isinstance(value, list | tuple) and any(isinstance(part, Faulty) for part in value))


def _with_steps(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A builder's arguments with a harmless step in the place of each faulty one, so that the rest can still be checked."""

    def mended(steps: Any) -> Any:
        return ["true" if isinstance(step, Faulty) else step for step in steps] if isinstance(steps, list | tuple) else steps

    return (*args[:1], *map(mended, args[1:2]), *args[2:]), {
        name: mended(value) if name == "steps" else value for name, value in kwargs.items()
    }


def run(path: Path) -> Source:
    """Run the file; what went wrong is in the answer. Raises `ConfigError` if it can't be read or is no Python."""
    text = _read(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # a compiler's dislike of a statement is no mistake
            tree = ast.parse(text, str(path))
            compile(text, str(path), "exec", dont_inherit=True)
            where = Lines(tree)
            flags = _futures(tree)
            instrumented = Instrument().visit(tree)
            codes = [_compile(statement, path, flags) for statement in instrumented.body]
    except SyntaxError as error:
        told = Mistake(error.lineno or 0, f"{error.msg}; correct the syntax, nothing of the file was read").of(path.name)
        raise ConfigError(told) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path.name}: Python can't read it: {error}; is it a text file?") from None
    preset: dict[Any, Any] = {}
    namespace: dict[str, Any] = {"__name__": "master_cfg", "__file__": str(path), "basedir": str(path.parent), "c": preset}
    source = Source(path=path, where=where, preset=preset, namespace=namespace)
    guard = namespace[GUARD] = Guard(source)
    for statement, code in zip(instrumented.body, codes, strict=True):
        guard.run(statement, code)
    guard.close()
    return source


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path.name}: there is no such file in {path.parent}; write one, or name another directory") from None
    except IsADirectoryError:
        raise ConfigError(f"{path.name}: {path} is a directory; name the file in it, {path / 'master.cfg'}") from None
    except OSError as error:
        raise ConfigError(f"{path.name}: {path} can't be read: {error.strerror}; check its owner and mode") from None


def _futures(tree: ast.Module) -> int:
    """The compiler's flags for the ``from __future__`` imports, which each statement is compiled with."""
    flags = 0
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            for alias in statement.names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags


def _compile(statement: ast.stmt, path: Path, flags: int) -> CodeType:
    module = ast.fix_missing_locations(ast.Module(body=[statement], type_ignores=[]))
    code: CodeType = compile(module, str(path), "exec", flags=flags, dont_inherit=True)
    return code
