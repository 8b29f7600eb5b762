"""An agent's attendance on a clock that stands still: login, leases, keepalives, losses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from latent.errors import EnrolmentRefused, StoreError
from latent.gateways.buildbot import attendance as attending
from latent.gateways.buildbot import command, door, logs
from latent.gateways.buildbot.attendance import Controller
from latent.gateways.buildbot.door import Door
from latent.model import Result
from tests.gateways.buildbot.fakes import FakeController, FakeLink


class Place:
    """A door with all behind it."""

    def __init__(self):
        self.clock = Clock()
        self.clock.advance(1000)
        self.controller = FakeController()
        parts = Controller(sessions=self.controller, dispatcher=self.controller, clock=self.clock)
        self.door = Door(self.controller, parts)

    def admit(self, link=None, password="secret", name="w"):
        """The Deferred of an attendance."""

        async def login():
            attendance = await self.door.admit(name, lambda expected: expected == password, link, 10.0)
            await self.door.receive(attendance)
            return attendance

        return Deferred.fromCoroutine(login())

    def attach(self, **changes):
        link = FakeLink(**changes)
        self.attendance = now(self.admit(link))
        return link


def now(deferred):
    """The result that a Deferred has."""
    results = []
    deferred.addBoth(results.append)
    assert results, "it has no result yet"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


@pytest.fixture
def place():
    place = Place()
    yield place
    for attendance in list(place.door._here.values()):
        attendance.link.drop("the test is over")
    assert place.clock.getDelayedCalls() == []


def test_a_login(place):
    """The agent is attached with what its worker may do; nothing of its environment is kept."""
    place.controller.slots = 3
    link = place.attach(description={"basedir": "/agent", "environ": {"P": "secret"}, "version": "4"})
    [(session, capacity, info)] = place.controller.attached
    assert (session.worker, capacity, info["version"], "environ" in info) == ("w", 3, "4", False)
    assert len(place.controller.parked) == 3
    assert ("prepare", 3) in link.calls


@pytest.mark.parametrize("case", ["password", "stranger", "enrol", "attach", "description"], ids=str)
def test_a_refused_login(place, case):
    """EnrolmentRefused, whatever is wrong; no session is left open, and the next agent is welcome."""
    link = FakeLink()
    if case in ("enrol", "attach"):
        place.controller.refuse = case
    if case == "description":
        link.description = {}
    login = place.admit(
        link, password="wrong" if case == "password" else "secret", name="stranger" if case == "stranger" else "w"
    )
    with pytest.raises(EnrolmentRefused):
        now(login)
    assert all(session.closed for session in place.controller.opened)
    place.controller.refuse = ""
    place.attach()


def test_an_agent_that_does_not_answer_at_its_login(place):
    """It is given up."""
    link = FakeLink()
    never = Deferred()
    link.describe = lambda: waits(never)
    login = place.admit(link)
    place.clock.advance(attending.ANSWER)
    with pytest.raises(EnrolmentRefused, match="did not answer"):
        now(login)


async def waits(deferred):
    return await deferred


def test_a_run(place):
    """The directory is cleared, the steps follow one another, the end is told, the directory is cleared again."""
    link = place.attach()
    place.controller.give("one", "two")
    assert link.names() == ["rmdir"]
    link.end_command()
    assert link.names() == ["rmdir", "shell"]
    link.end_command(stdout="hello\nwor", header="x\n")
    link.end_command(stdout="more\n")
    assert place.controller.outcomes[0].result is Result.SUCCESS
    assert link.names() == ["rmdir", "shell", "shell", "rmdir"]
    assert place.controller.statuses() == [("s0", "running"), ("s0", "success"), ("s1", "running"), ("s1", "success")]
    assert [line.text for line in place.controller.lines] == ["hello", "x", "wor", "more"]
    # The next build waits for the directory, not for another removal of it.
    place.controller.give("three", run_id=2)
    assert place.controller.active == [1, 2]
    link.end_command()
    assert link.names()[4:] == ["shell"]
    link.end_command(rc=7)
    assert place.controller.outcomes[1].exit_code == 7


def test_a_directory_that_can_not_be_cleared(place):
    """The infrastructure is at fault: the build is tried again."""
    link = place.attach()
    place.controller.give("one")
    link.end_command(rc=1, stderr="Permission denied\n")
    assert (place.controller.outcomes[0].result, "Permission denied" in place.controller.outcomes[0].error) == (
        Result.EXCEPTION,
        True,
    )


def test_an_exit_code_that_comes_late_or_never(place):
    """It is waited for a little."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    link.end_command(rc=None)
    assert place.controller.outcomes == []
    link.commands[-1][2].updated("rc", 0)
    assert place.controller.outcomes[0].result is Result.SUCCESS
    link.end_command()
    place.controller.give("two", run_id=2)
    link.end_command(rc=None)
    place.clock.advance(command.RC_PATIENCE)
    assert "did not say" in place.controller.outcomes[1].error


def test_a_cancellation(place):
    """The command is interrupted, nothing else begins."""
    link = place.attach()
    place.controller.give("one", "two")
    link.end_command()
    place.controller.cancels[1].callback(True)
    assert ("interrupt", "cancelled by the controller") in link.calls
    link.end_command(rc=-1)
    assert place.controller.outcomes[0].result is Result.CANCELLED
    assert place.controller.statuses()[1:] == [("s0", "killed"), ("s1", "skipped")]


def test_a_cancellation_before_the_first_step(place):
    """No step begins."""
    link = place.attach()
    place.controller.give("one")
    place.controller.cancels[1].callback(True)
    link.end_command()
    assert "shell" not in link.names()
    assert place.controller.outcomes[0].result is Result.CANCELLED


def test_a_command_that_does_not_end(place):
    """The connection is closed, which ends it."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    place.controller.cancels[1].callback(True)
    for _ in range(4):
        place.clock.advance(command.INTERRUPT_GRACE / 4)
    assert "did not end a command" in link.why_lost
    assert place.controller.opened[0].closed


def test_a_run_that_is_no_longer_ours(place):
    """It is interrupted and nothing more is told of it."""
    link = place.attach()
    place.controller.give("one", "two")
    link.end_command()
    place.controller.lost_runs.add(1)
    place.clock.advance(10)
    assert [call[0] for call in link.calls].count("interrupt") == 1
    link.end_command(rc=-1)
    assert place.controller.outcomes == []
    assert link.names() == ["rmdir", "shell", "rmdir"]


def test_a_lease_that_is_over_before_it_begins(place):
    """The next is asked for."""
    place.controller.lost_runs.add(1)
    link = place.attach()
    place.controller.give("one")
    assert link.commands == []
    assert len(place.controller.parked) == 1


def test_leases_are_renewed_while_the_agent_lives(place):
    """By any sign of life; when there is none, they are not."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    for _ in range(3):
        place.clock.advance(10)
    assert place.controller.renewed == [1, 1, 1]
    link.silent = True
    place.clock.advance(10)  # the last answer is heard here
    renewed = len(place.controller.renewed)
    place.clock.advance(10)
    assert len(place.controller.renewed) == renewed
    assert not link.why_lost


def test_a_silent_agent_is_dead(place):
    """After three intervals; its run is told to be lost before its session is closed."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    link.commands[-1][2].updated("stdout", "half a line")
    link.silent = True
    for _ in range(attending.MISSED + 1):
        assert not link.why_lost
        place.clock.advance(10)
    assert link.why_lost == "its agent was silent for 30 s"
    [session] = place.controller.opened
    assert (session.closed, "silent" in session.reason) == (True, True)
    assert place.controller.steps[-1].status.value == "killed"
    assert place.controller.lines[-1].text == "half a line"
    assert place.door._here == {}


def test_output_counts_as_a_sign_of_life(place):
    """An agent that is too busy to answer but writes is not dead."""
    link = place.attach()
    link.silent = True
    for _ in range(10):
        link.received += 1
        place.clock.advance(10)
    assert not link.why_lost


def test_a_full_disk(place):
    """Lines are tried again; when many wait, nothing more is read, and the agent is not dead because of that."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    place.controller.log_error = StoreError("the disk is full")
    for _ in range(30):
        link.commands[-1][2].updated("stdout", "x" * 49_999 + "\n")
    assert link.paused
    link.silent = True
    for _ in range(60):
        place.clock.advance(1)
    assert not link.why_lost
    place.controller.log_error = None
    place.clock.advance(logs.RETRY)
    assert not link.paused
    link.silent = False
    assert len(place.controller.lines) == 30
    link.end_command()
    assert place.controller.outcomes[0].result is Result.SUCCESS


def test_a_disk_that_stays_full(place):
    """A build's end waits for its lines, not for ever."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    place.controller.log_error = StoreError("the disk is full")
    link.end_command(stdout="x\n")
    assert place.controller.outcomes == []
    for _ in range(31):
        place.clock.advance(1)
    assert place.controller.outcomes[0].result is Result.SUCCESS


def test_a_second_agent_is_refused_while_the_first_answers(place):
    """And replaces it when it does not."""
    first = place.attach()
    with pytest.raises(EnrolmentRefused, match="attached from fake:1"):
        now(place.admit(FakeLink()))
    first.silent = True
    login = place.admit(FakeLink())
    with pytest.raises(EnrolmentRefused, match="just now"):
        now(place.admit(FakeLink()))
    place.clock.advance(door.PING_PATIENCE)
    now(login)
    assert "logged in again" in first.why_lost
    assert [session.closed for session in place.controller.opened] == [True, False]


def test_logins_wait_while_the_controller_starts(place):
    """They are neither refused nor lost."""
    place.door.hold()
    login = place.admit(FakeLink())
    assert place.controller.opened == []
    place.door.open()
    now(login)


def test_the_controller_stops(place):
    """Connections are closed, sessions stay for the next controller; nobody comes in any more."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    stopped = Deferred.fromCoroutine(place.door.stop())
    now(stopped)
    assert link.why_lost
    assert not place.controller.opened[0].closed
    with pytest.raises(EnrolmentRefused, match="stopping"):
        now(place.admit(FakeLink()))


def test_the_session_is_closed_elsewhere(place):
    """Its instance goes, say: the connection goes too."""
    link = place.attach()
    now(Deferred.fromCoroutine(place.controller.close(place.controller.opened[0], "its instance goes")))
    assert link.why_lost == "its instance goes"


def test_an_agent_that_wants_to_go(place):
    """It ends what it does, gets nothing more, and is told to end."""
    link = place.attach()
    place.controller.give("one")
    link.end_command()
    place.attendance.shutting_down()
    assert not link.why_lost
    link.end_command()
    assert place.controller.outcomes[0].result is Result.SUCCESS
    assert ("shut_down",) in link.calls
    assert place.controller.opened[0].closed
    idle = place.attach()
    place.attendance.shutting_down()
    assert ("shut_down",) in idle.calls


def test_what_is_left_of_sessions_before_is_ended(place):
    """By the names that it has there, before anything new begins."""
    link = FakeLink()
    earlier = (SimpleNamespace(id=8, capacity=2), SimpleNamespace(id=5, capacity=1))
    attendance = now(Deferred.fromCoroutine(place.door.admit("w", lambda password: True, link, 10.0)))
    attendance.session.earlier = earlier
    now(Deferred.fromCoroutine(place.door.receive(attendance)))
    assert ("end", "8.0", "8.1", "5.0") in link.calls
