"""What hooks may answer, and what is said of a wrong answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from latent.errors import LatentWorkerFailedToSubstantiate, PluginError
from latent.model import Attempt
from latent.worker import ListedInstance, results
from tests.worker.kit import Idle

WORKER = Idle("w1")


def generator(*items: Any) -> Iterator[Any]:
    yield from items


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (None, ()),
        (True, ()),
        ([], ()),
        (["i-1", "large"], ("i-1", "large")),
        (("a",), ("a",)),
        (generator("a", "b"), ("a", "b")),
    ],
)
def test_start_result(answer: Any, result: tuple[str, ...]) -> None:
    """None, or an iterable of short strings."""
    assert results.start_result(WORKER, answer) == result


def test_start_result_false() -> None:
    """False is a start that failed, as in Buildbot: the build is retried."""
    with pytest.raises(LatentWorkerFailedToSubstantiate, match="answered False"):
        results.start_result(WORKER, False)


@pytest.mark.parametrize("answer", ["i-1", b"i-1", 3, 0, {"id": "i-1"}, ["i-1", 3], [None], object()])
def test_wrong_start_result(answer: Any) -> None:
    """A string, a number, a dict and the like are the plugin's fault; the error names class, hook and remedy."""
    with pytest.raises(PluginError, match=r"tests\.worker\.kit\.Idle\.start_instance answered .*; return None, or a list"):
        results.start_result(WORKER, answer)


def test_start_result_of_a_forgotten_decorator() -> None:
    """A generator that yields Deferreds lacks inlineCallbacks, and is told so."""
    with pytest.raises(PluginError, match="inlineCallbacks"):
        results.start_result(WORKER, generator(object()))


def test_start_result_that_raises_or_never_ends() -> None:
    """An iterable is the plugin's own code: it may raise, and need not end."""

    def broken() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    def endless() -> Iterator[str]:
        while True:
            yield "a"

    with pytest.raises(PluginError, match="raised ZeroDivisionError"):
        results.start_result(WORKER, broken())
    assert len(results.start_result(WORKER, endless())) == results.MOST_STRINGS


@pytest.mark.parametrize("answer", [(True, ""), [False, "why"]])
def test_check_result(answer: Any) -> None:
    """A pair of a bool and a string."""
    assert results.check_result(WORKER, answer) == tuple(answer)


@pytest.mark.parametrize("answer", [None, True, (True,), (True, "", 3), (1, ""), (True, None), "ok"])
def test_wrong_check_result(answer: Any) -> None:
    """Anything else is the plugin's fault."""
    with pytest.raises(PluginError, match=r"Idle\.check_instance answered .*; (return|make)"):
        results.check_result(WORKER, answer)


def test_handle() -> None:
    """A JSON value, given on as it will be read back."""
    assert results.handle(WORKER, {"id": "i-1", "zones": ("a", 1.5, None, True)}) == {
        "id": "i-1",
        "zones": ["a", 1.5, None, True],
    }
    assert results.handle(WORKER, None) is None


def circular() -> Any:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize("answer", [object(), {1: "a"}, {"a": {True: 1}}, {"a": {1, 2}}, float("nan"), b"x", circular()])
def test_wrong_handle(answer: Any) -> None:
    """What JSON can't say, or would quietly turn into something else, is the plugin's fault."""
    with pytest.raises(PluginError, match=r"Idle\.instance_handle answered .*; return what json\.dumps takes"):
        results.handle(WORKER, answer)


def test_listed() -> None:
    """An iterable of ListedInstance."""
    one = ListedInstance(Attempt("w1", 1), {"id": 1}, "c", 3.0)
    assert results.listed(WORKER, [one]) == results.listed(WORKER, generator(one)) == (one,)
    assert results.listed(WORKER, ()) == ()


@pytest.mark.parametrize("answer", [None, 3, "i-1", {"a": 1}, ["i-1"], [("w1", 1)]])
def test_wrong_listed(answer: Any) -> None:
    """Anything else is the plugin's fault: an empty list must not be mistaken for one that could not be read."""
    with pytest.raises(PluginError, match=r"Idle\.list_instances answered .*; return a list of latent\.worker\.ListedInstance"):
        results.listed(WORKER, answer)


def test_bools() -> None:
    """resume_instance and isCompatibleWithBuild answer True or False, nothing that merely counts as one."""
    assert results.resume_result(WORKER, True) is True
    assert results.compatible_result(WORKER, False) is False
    for check, hook in ((results.resume_result, "resume_instance"), (results.compatible_result, "isCompatibleWithBuild")):
        for answer in (None, 1, "yes"):
            with pytest.raises(PluginError, match=rf"Idle\.{hook} answered"):
                check(WORKER, answer)


def test_answers_with_a_broken_repr() -> None:
    """An answer that can't even be shown is reported all the same."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(PluginError, match="answered a Broken"):
        results.check_result(WORKER, Broken())
