"""What becomes of a step, a lease and an agent's words; lines that are cut anywhere. Pure."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.errors import ProtocolError
from latent.gateways.buildbot import translate
from latent.gateways.buildbot.lines import StepLines
from latent.model import Lease, Result, Step

LINUX = translate.Place(basedir="/agent")
WINDOWS = translate.Place(basedir="C:\\agent", windows=True)


def lease(*steps, timeout=3600.0):
    return Lease(
        run_id=7,
        build_id=5,
        worker="w",
        steps=tuple((f"7.{number}", step) for number, step in enumerate(steps)),
        properties={},
        timeout=timeout,
        labels={},
        builder="b",
    )


def shell(place=LINUX, attempt=3, **step):
    made = Step(name="s", **{"command": "make", **step})
    return translate.shell(made, lease(made), attempt, place, 1)


def test_a_command_line_and_a_vector():
    """A vector goes as it is; a command line to a shell that stops at its first error, where there is such a shell."""
    assert shell(command=("a", "b c"))["command"] == ["a", "b c"]
    assert shell(command="a; b")["command"][-1] == "a; b"
    assert shell(WINDOWS, command="a & b")["command"] == "a & b"


@pytest.mark.parametrize(
    ("place", "workdir", "expected"),
    [
        (LINUX, None, "/agent/latent-1/build"),
        (LINUX, "sub", "/agent/latent-1/build/sub"),
        (LINUX, "/abs", "/abs"),
        (WINDOWS, None, "C:\\agent\\latent-1\\build"),
        (WINDOWS, "sub", "C:\\agent\\latent-1\\build\\sub"),
    ],
)
def test_directories(place, workdir, expected):
    """Relative to the slot's own directory."""
    assert shell(place, workdir=workdir)["workdir"] == expected


def test_limits():
    """They are the agent's to keep; a step without one ends some time after its build should have."""
    assert (shell(timeout=5.0, max_time=6.0)["timeout"], shell(timeout=5.0, max_time=6.0)["maxTime"]) == (5.0, 6.0)
    assert (shell(timeout=None)["timeout"], shell(timeout=None)["maxTime"]) == (None, 3600.0 + translate.ORPHAN_GRACE)


def test_the_environment():
    """Ours, the step's, and None for what the step shall not find; nothing in a value is replaced."""
    env = shell(env={"A": "${HOME}$${x}", "LATENT_BUILD_ID": "mine"})["env"]
    assert env["A"] == "$${}{HOME}$$${}{x}"
    assert (env["LATENT_BUILD_ID"], env["LATENT_RUN_ID"], env["LATENT_ATTEMPT"]) == ("mine", "7", "3")
    assert {name for name, value in env.items() if value is None} == set(translate.SECRETS)
    assert shell(attempt=None)["env"]["LATENT_ATTEMPT"] == ""


STEP = Step(name="s", command="x", timeout=5.0, max_time=6.0)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"rc": 0}, (0, "", False, False)),
        ({"rc": 3}, (3, "", False, False)),
        ({"rc": -1, "killed_by": "9"}, (-1, "killed by signal 9", False, False)),
        ({"rc": 3, "killed_by": "9"}, (3, "", False, False)),
        ({"rc": 0, "killed_by": "9"}, (0, "", False, False)),
        ({"rc": -1, "reason": "max_lines_failure"}, (-1, "max_lines_failure", False, False)),
        ({"rc": -1, "reason": "timeout_without_output"}, (-1, "no output for 5 s", True, False)),
        ({"rc": -1, "reason": "timeout"}, (-1, "took longer than 6 s", True, False)),
        ({"rc": -1, "stopped": "cancelled"}, (-1, "cancelled", False, True)),
        ({"rc": -1, "reason": "timeout", "stopped": "cancelled"}, (-1, "cancelled", False, True)),
        ({"rc": 0, "stopped": "cancelled"}, (0, "cancelled", False, True)),
        ({"error": "no such file"}, (126, "can't be carried out: no such file", False, False)),
        ({"rc": -1, "error": "would not die"}, (-1, "can't be carried out: would not die", False, False)),
        ({}, (126, "the agent did not say how it ended", False, False)),
    ],
)
def test_how_a_step_ended(told, expected):
    """Exit codes, limits, signals, cancellations and agents that can't are told apart."""
    how = translate.ended(STEP, **{"rc": None, "reason": "", "error": "", "killed_by": "", "stopped": "", **told})
    assert (how.exit_code, how.error, how.timed_out, how.stopped) == expected
    assert how.good is (told == {"rc": 0} or told == {"rc": 0, "killed_by": "9"})


def test_outcomes():
    """The first bad step decides, unless the run was stopped."""
    failed, late = translate.Ended(exit_code=3), translate.Ended(exit_code=-1, error="no output for 5 s", timed_out=True)
    assert translate.outcome(None, "").result is Result.SUCCESS
    assert (translate.outcome((STEP, failed), "").result, translate.outcome((STEP, failed), "").error) == (
        Result.FAILURE,
        "step s: exit code 3",
    )
    assert translate.outcome((STEP, late), "").result is Result.TIMEOUT
    assert translate.outcome((STEP, failed), "cancelled").result is Result.CANCELLED
    assert translate.outcome(None, "cancelled").exit_code == 0


@pytest.mark.parametrize("description", [{}, {"basedir": 7}, {"basedir": ""}, {"basedir": None}])
def test_an_agent_without_a_directory(description):
    """It can't be used."""
    with pytest.raises(ProtocolError):
        translate.place(description)


def test_what_is_kept_of_an_agent():
    """What people want to see, without its environment, and not without end."""
    description = {"version": "4.3.0", "os_name": "Debian", "numcpus": 2, "environ": {"P": "secret"}, "host": "x" * 5000, "y": 1}
    kept = translate.info(description, "pb", "127.0.0.1:1")
    assert kept["version"] == "4.3.0"
    assert kept["os_name"] == "Debian"
    assert len(kept["host"]) == 1000
    assert not {"environ", "y"} & set(kept)


TEXT = st.text(st.sampled_from("ab\n\ré\0"), max_size=60)


@given(TEXT, st.lists(st.integers(0, 60)), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut(text, cuts, piece):
    """All text arrives, once, in order, in numbered lines of at most a piece."""
    lines = StepLines("u", piece)
    found = []
    places = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    for start, end in itertools.pairwise(places):
        found += lines.feed("stdout", text[start:end], 1.0)
    found += lines.close(2.0)
    assert [line.line for line in found] == list(range(len(found)))
    assert all(len(line.text) <= piece and "\n" not in line.text for line in found)
    whole = StepLines("u", 10**6)
    expected = [line.text for line in [*whole.feed("stdout", text, 1.0), *whole.close(2.0)]]
    if piece > len(text):
        assert [line.text for line in found] == expected
    assert "".join(line.text for line in found).replace("\r", "") == text.replace("\n", "").replace("\r", "")


def test_streams_do_not_mix():
    """Half a line of one stream waits while another goes on."""
    lines = StepLines("u")
    assert lines.feed("stdout", "on", 0.0) == []
    assert [line.text for line in lines.feed("stderr", "err\n", 1.0)] == ["err"]
    assert [line.text for line in lines.feed("stdout", "e\n", 2.0)] == ["one"]
    lines.feed("header", "end", 3.0)
    assert [(line.stream, line.text, line.line) for line in lines.close(4.0)] == [("header", "end", 2)]
