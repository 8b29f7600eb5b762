"""What a caller asked for is done to its end, also when the caller has gone away."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from latent.errors import NotFound, StoreError
from latent.web.answering import kept


class Work:
    """Waits for the store, then tells the rest of the controller."""

    def __init__(self) -> None:
        self.stored: Deferred[str] = Deferred()
        self.told: list[str] = []

    async def do(self) -> str:
        self.told.append(await self.stored)
        return self.told[-1].upper()


def test_the_answer():
    """Who waits gets the answer, or the error."""
    work, answers = Work(), []
    kept(work.do()).addCallback(answers.append)
    work.stored.callback("done")
    assert answers == ["DONE"]
    failing = Work()
    asked = kept(failing.do())
    failing.stored.errback(NotFound("no"))
    asked.addErrback(lambda failure: answers.append(failure.type))
    assert answers == ["DONE", NotFound]


def test_who_asked_goes_away():
    """The request is cancelled at once; the work is not."""
    work, ends = Work(), []
    asked = kept(work.do())
    asked.addErrback(lambda failure: ends.append(failure.type))
    asked.cancel()
    assert ends == [CancelledError]
    work.stored.callback("done")
    assert work.told == ["done"]


@pytest.mark.parametrize(("error", "logged"), [(StoreError("the disk is full"), 0), (ZeroDivisionError(), 1)])
def test_a_failure_that_nobody_waits_for(flush_logged_errors, error, logged):
    """A refusal is nobody's any more; what nobody expected is logged."""
    work = Work()
    asked = kept(work.do())
    asked.addErrback(lambda failure: None)
    asked.cancel()
    work.stored.errback(error)
    assert len(flush_logged_errors(ZeroDivisionError)) == logged
