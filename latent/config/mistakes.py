"""What an exception that came out of master.cfg says to the one who wrote the file: a line, what is wrong, what to do."""

from __future__ import annotations

import builtins
import contextlib
import difflib
import inspect
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from latent.config.values import described
from latent.errors import ConfigError, PluginError
from latent.worker.words import did_you_mean

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)")


@frozen(order=True)
class Mistake:
    """``message`` is "what; remedy". ``line`` 0: the file as a whole."""

    line: int
    message: str

    def of(self, file: str) -> str:
        """As it is shown: ``master.cfg:12: what; remedy``."""
        return f"{file}:{self.line}: {self.message}" if self.line else f"{file}: {self.message}"


def explain(
    error: BaseException, path: Path, *, line: int | None = None, around: int = 0, made: type | None = None
) -> list[Mistake]:
    """The mistakes that ``error`` tells of.

    ``line`` is where it is, if that is known better than the traceback knows; ``around`` the statement, for a traceback
    that does not touch the file; ``made`` the class whose call raised it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame.lineno for frame in frames if frame.filename == str(path) and frame.lineno is not None]
    at = line if line is not None else (inside or [around])[-1]
    if isinstance(error, ConfigError):
        return [Mistake(at, message) for message in error.errors]
    if isinstance(error, PluginError):
        return [Mistake(at, str(error))]
    return [Mistake(at, _in_words(error, _elsewhere(error, frames, path), made))]


def _in_words(error: BaseException, elsewhere: str, made: type | None) -> str:
    what = f"{made.__name__}: {described(error)}" if made is not None else described(error)
    match error:
        case SystemExit():
            return "the file ends the program (sys.exit); take that out, raise an exception to refuse the configuration"
        case TypeError() if made is not None and (wrong := _UNEXPECTED.search(str(error))):
            remedy = did_you_mean(wrong[1], inspect.signature(made).parameters, f"the keywords of {made.__name__}")
            return f"{made.__name__} takes no keyword {wrong[1]!r}; {remedy}"
        case TypeError() if made is not None and (missing := _MISSING.search(str(error))):
            return f"{made.__name__} lacks {missing[1]}; add what is missing"
        case NameError() if error.name:
            near = _nearest(error.name, _names_in_sight(error))
            return f"the name {error.name!r} is not defined{elsewhere}; " + (
                f"did you mean {near!r}?" if near else "assign it above this line, or import it"
            )
        case AttributeError() if error.name and (near := _nearest(error.name, _attributes(error.obj))):
            return f"{what}{elsewhere}; did you mean {near!r}?"
        case ImportError():
            return f"{what}{elsewhere}; correct the name, or install what is missing where latent is installed"
        case OSError():
            return f"{what}{elsewhere}; check the path (put `basedir` before one that is relative to this file)"
        case _:
            return f"{what}{elsewhere}; correct it, the file stopped here"


def _elsewhere(error: BaseException, frames: traceback.StackSummary, path: Path) -> str:
    """Where beside the file it happened, if it did."""
    if isinstance(error, SyntaxError) and error.filename not in (None, str(path)):
        return f" (in {Path(str(error.filename)).name} line {error.lineno})"
    if not frames or frames[-1].filename == str(path) or isinstance(error, ImportError):
        return ""
    last = frames[-1]
    if last.filename.startswith("<") or Path(last.filename).parent == Path(__file__).parent:
        return ""
    return f" (in {Path(last.filename).name} line {last.lineno})"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """None when nothing comes near: all the names that there are would be no help."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return close[0] if close else None


def _names_in_sight(error: NameError) -> set[str]:
    names = set(dir(builtins))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        names |= {name for name in (*frame.f_locals, *frame.f_globals) if name.isidentifier()}
    return names


def _attributes(value: object) -> list[str]:
    """Read past any ``__getattr__`` and ``__dir__`` of the value's own."""
    known = [name for base in type(value).__mro__ for name in base.__dict__]
    with contextlib.suppress(AttributeError):  # it has slots
        known += map(str, object.__getattribute__(value, "__dict__"))
    return [name for name in known if not name.startswith("_")]
