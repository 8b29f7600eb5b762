"""Small things that messages are made of."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


def did_you_mean(name: str, known: Iterable[str], what: str) -> str:
    """The remedy for an unknown name: the nearest known one, or all of them. ``what``: their plural."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    if not folded:
        return f"there are no {what}"
    return f"{what} are: {', '.join(sorted(folded.values()))}"


def shown(value: object) -> str:
    """A short ``repr`` on one line; never raises."""
    try:
        return " ".join(_repr.repr(value).split())
    except Exception as error:  # a broken __repr__ must not hide what is being reported
        return f"<{type(value).__name__} whose repr() raises {type(error).__name__}>"


def kind(value: object) -> str:
    """What a value is: ``None``, ``a list``, ``an int``."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
