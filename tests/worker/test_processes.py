"""Which processes belong to an instance, and how they are made to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.model import Attempt
from latent.worker import instances, processes
from latent.worker.processes import Seen, children


def seen(pid: int, parent: int = 1, session: int = 0, marker: str = "", born: float = 0.0) -> Seen:
    return Seen(pid, parent, session or pid, born, 0.0, marker)


def pids(family: tuple[Seen, ...]) -> list[int]:
    return [one.pid for one in family]


MINE, OTHER = "c/w/1", "c/w/10"
BIG = 10**8
"""Above every real pid, so that this process is none of them."""


def test_family_is_marked() -> None:
    """All that carry the marker belong to it, wherever they hang in the tree; a longer marker is another's."""
    table = (seen(BIG, 1, marker=MINE), seen(BIG + 1, 1, marker=MINE), seen(BIG + 2, 1, marker=OTHER), seen(BIG + 3))
    assert pids(processes.family(table, MINE)) == [BIG, BIG + 1]


def test_family_without_environment() -> None:
    """What cleared its environment belongs to it as a descendant, or by the session it is in."""
    table = (
        seen(BIG, 1, marker=MINE),
        seen(BIG + 1, BIG),
        seen(BIG + 2, BIG + 1),
        seen(BIG + 3, 1, session=BIG),
        seen(BIG + 4, 1, session=BIG + 9),
    )
    assert pids(processes.family(table, MINE)) == [BIG, BIG + 1, BIG + 2, BIG + 3]
    assert pids(processes.family(table, "none", known=[BIG + 1])) == [BIG + 1, BIG + 2]


def test_family_never_holds_ourselves() -> None:
    """A controller that runs inside an instance of the same marker does not end itself, nor what started it."""
    me = os.getpid()
    table = (seen(BIG, 1, marker=MINE), seen(me, BIG, marker=MINE), seen(BIG + 1, me, marker=MINE), seen(BIG + 2, BIG))
    assert pids(processes.family(table, MINE)) == [BIG + 1, BIG + 2]


def test_family_with_a_circle() -> None:
    """A table that was read while pids were used again may hold a circle."""
    table = (seen(BIG, BIG + 1, marker=MINE), seen(BIG + 1, BIG))
    assert pids(processes.family(table, MINE)) == [BIG, BIG + 1]


def test_agent_of() -> None:
    """The agent is the first that leads a session and has no parent among the others."""
    table = [seen(5, 4, session=5, born=1), seen(4, 1, session=4, born=2), seen(6, 1, session=4, born=0)]
    assert processes.agent_of(table).pid == 4


@given(st.from_regex(r"[0-9a-f]{8,32}", fullmatch=True), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
def test_markers(controller_id: str, worker: str) -> None:
    """A marker is read back as what it was made from."""
    attempt = Attempt(worker, 12)
    marker = instances.marker_of(controller_id, attempt)
    assert instances.identity(marker) == (controller_id, attempt)
    assert "/" not in instances.directory_name(marker)


@pytest.mark.parametrize("text", ["", "x", "a/b", "a/b/c", "/b/1", "a//1", "a/b/-1", "a/b/"])
def test_foreign_markers(text: str) -> None:
    """What somebody else wrote into the variable is not taken for an instance."""
    assert instances.identity(text) is None


# --- real processes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Seen]:
    """A process that waits until it is ended."""
    code = "import sys; sys.stdin.read(); import signal; signal.pause()"
    environment = {**os.environ, processes.MARKER: MINE, processes.DIRECTORY: str(tmp_path)}
    made = children.spawn([sys.executable, "-c", code], environment, tmp_path, tmp_path / "log")
    yield made
    processes.send([made], signal.SIGKILL)
    assert processes.wait([made], 30) == ()
    children.forget([(made.pid, made.born)])


def test_look(child: Seen) -> None:
    """A process is seen with its marker, its session and the moment it was born."""
    looked = processes.look(child.pid)
    assert looked is not None
    assert (looked.pid, looked.parent, looked.session, looked.marker) == (child.pid, os.getpid(), child.pid, MINE)
    assert looked.born == child.born
    assert abs(looked.created - child.created) < 60
    assert looked in processes.snapshot()


def test_the_other_way_to_look(child: Seen) -> None:
    """Where there is no /proc, psutil tells the same."""
    plain, portable = processes._stat(child.pid), processes._stat_of_psutil(child.pid)
    assert plain is not None
    assert portable is not None
    assert (plain.parent, plain.session, plain.alive) == (portable.parent, portable.session, portable.alive)
    assert processes._stat_of_psutil(BIG) is None
    assert [handle.pid for handle in processes._handles([child, seen(BIG)])] == [child.pid]


def test_a_reused_pid_is_not_signalled(child: Seen) -> None:
    """A process of the same pid that was born at another time is somebody else."""
    stranger = Seen(child.pid, child.parent, child.session, child.born - 1, 0.0)
    processes.send([stranger], signal.SIGKILL)
    assert not processes.alive(stranger.pid, stranger.born)
    assert processes.wait([stranger], 30) == ()
    assert processes.alive(child.pid, child.born)


def test_wait_ends_with_the_last(child: Seen) -> None:
    """Waiting ends when the last has gone, and tells which have not."""
    assert processes.wait([child], 0.01) == (child,)
    processes.send([child, seen(BIG)], signal.SIGTERM)
    assert processes.wait([child, seen(BIG)], 30) == ()
    assert children.exit_code(child.pid, child.born) == -signal.SIGTERM
    assert processes.look(child.pid) is None
    children.forget([(child.pid, child.born)])
    assert children.exit_code(child.pid, child.born) is None


def test_a_zombie_is_gone() -> None:
    """A process that nobody has reaped yet is not there any more."""
    zombie = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    try:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert processes.look(zombie.pid) is None
        stat = processes._stat(zombie.pid)
        assert stat is not None
        assert not stat.alive
    finally:
        zombie.wait()


def test_a_child_that_can_not_be_started(tmp_path: Path) -> None:
    """It is an OSError, and nothing is left."""
    with pytest.raises(FileNotFoundError):
        children.spawn([str(tmp_path / "nothing")], {}, tmp_path, tmp_path / "log")
