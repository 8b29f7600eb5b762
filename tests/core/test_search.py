"""The machine keeps its promises in every state that a hostile world can bring it to."""

from __future__ import annotations

from typing import get_args

import pytest

from latent.core import events as ev
from latent.core.states import NAMES
from tests.core.promises import Promise, noise
from tests.core.search import Search


@pytest.fixture(scope="module")
def searched() -> Search:
    search = Search()
    broken = search.run()
    assert broken is None, str(broken)
    return search


def test_every_promise_holds_in_every_state(searched: Search) -> None:
    """No start, stop, attachment, deadline, wish, crash or answer, in any order, breaks a promise."""
    print(searched.summary())
    assert {type(state) for state in searched.states} == set(NAMES)


def test_every_cell_of_the_machine_is_visited(searched: Search) -> None:
    """Each kind of event meets each state, be it as one that means nothing there."""
    met = {(type(searched.states[number]), type(event)) for number, event in searched.reactions}
    met |= {(type(state), type(event)) for state in searched.states for event in noise(state)}
    missing = {(NAMES[state], event.__name__) for state in NAMES for event in get_args(ev.Event) if (state, event) not in met}
    assert not missing


def test_condemnations_must_be_written_with_the_state() -> None:
    """A shell that writes Condemn after the state leaks an instance in a crash: that the search assumes otherwise matters."""
    broken = Search(forgetful=True).run()
    assert broken is not None
    assert broken.promise in (Promise.LEAK, Promise.STOPPED_ONCE, Promise.FAILED_STOP)
