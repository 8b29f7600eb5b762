"""What a user sees in a terminal, and elsewhere."""

from __future__ import annotations

import re

import pytest

from latent.cli import words
from latent.cli.builds import show_builds
from latent.cli.look import show_workers
from latent.cli.screen import Screen
from latent.cli.tables import Cell, Column

NOW = 1_700_000_000.0


def build(number, **changed):
    return {
        "id": number,
        "builder": "tests",
        "state": "queued",
        "result": None,
        "reason": "",
        "attempts": 0,
        "steps": [],
        "submitted_at": NOW - 75,
        "started_at": None,
        "ended_at": None,
        **changed,
    }


BUILDS = [
    build(12, reason="no worker fits: label os=windows is not offered (offered: linux)"),
    build(
        7, state="finished", result="failure", attempts=2, started_at=NOW - 70, ended_at=NOW - 10, reason="step x: exit code 2"
    ),
]


@pytest.fixture
def seen(capsys):
    """What was printed: without colours, and without the spaces that rich fills lines with."""

    def read():
        text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        return [line.rstrip() for line in text.splitlines()]

    return read


def test_a_wide_terminal_has_everything_side_by_side(seen):
    """Where there is room, each build is one line."""
    show_builds(Screen(terminal=True, width=130), BUILDS, NOW)
    assert seen() == [
        "ID  BUILDER  STATE    TRIES   SUBMITTED    TOOK  REASON",
        "12  tests    queued          1m 15s ago          no worker fits: label os=windows is not offered (offered: linux)",
        " 7  tests    failure      2  1m 15s ago  1m 00s  step x: exit code 2",
    ]


def test_a_narrower_terminal_wraps_the_reason(seen):
    """The reason gives way; nothing else is cut."""
    show_builds(Screen(terminal=True, width=84), BUILDS, NOW)
    assert seen() == [
        "ID  BUILDER  STATE    TRIES   SUBMITTED    TOOK  REASON",
        "12  tests    queued          1m 15s ago          no worker fits: label os=windows is",
        "                                                 not offered (offered: linux)",
        " 7  tests    failure      2  1m 15s ago  1m 00s  step x: exit code 2",
    ]


def test_a_narrow_terminal_has_the_reason_below(seen):
    """Where there is no room beside it, the reason goes below its build."""
    show_builds(Screen(terminal=True, width=60), BUILDS, NOW)
    assert seen() == [
        "ID  BUILDER  STATE    TRIES   SUBMITTED    TOOK",
        "12  tests    queued          1m 15s ago",
        "    no worker fits: label os=windows is not offered",
        "    (offered: linux)",
        " 7  tests    failure      2  1m 15s ago  1m 00s",
        "    step x: exit code 2",
    ]


def test_without_a_terminal_nothing_is_wrapped_or_coloured(capsys):
    """A pipe gets plain lines, one a row, as wide as they are."""
    show_builds(Screen(terminal=False), BUILDS, NOW)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert text.splitlines()[1].endswith("(offered: linux)")
    assert len(text.splitlines()) == 3


def test_colours_obey_no_color(capsys, monkeypatch):
    """A terminal gets colours, unless NO_COLOR is set."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Screen(terminal=True, width=80).line(("red", "red"))
    assert "\x1b[31m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(terminal=True, width=80).line(("red", "red"))
    assert "\x1b[31m" not in capsys.readouterr().out


def test_what_others_wrote_can_not_move_the_cursor(capsys):
    """Names and reasons lose their control characters; a log keeps them."""
    for terminal in (True, False):
        screen = Screen(terminal=terminal, width=80)
        screen.line("a\x1b[2Jb\x07c[bold]d")
        screen.table([Column("x")], [[Cell("e\x1b]0;title\x07f")]])
        out = capsys.readouterr().out
        assert "\x07" not in out
        assert "\x1b[2J" not in out
        assert "\x1b]" not in out
        assert "[bold]d" in out
    Screen(terminal=True).raw("\x1b[2J")
    assert "\x1b[2J" in capsys.readouterr().out


def test_columns_that_are_empty_are_left_out(seen):
    """A column without a single value takes no room."""
    worker = {
        "name": "a",
        "kind": "Worker",
        "state": "DETACHED",
        "attempt": 0,
        "since": NOW - 5,
        "builds": [],
        "machine": "",
        "quarantined_until": NOW - 1,
        "paused": False,
        "reason": "",
    }
    show_workers(Screen(terminal=True, width=80), [worker], NOW)
    assert seen() == ["WORKER  KIND    STATE     SINCE", "a       Worker  DETACHED     5s"]
    backing_off = {**worker, "quarantined_until": NOW + 90, "reason": "no capacity"}
    show_workers(Screen(terminal=False), [backing_off], NOW)
    assert seen()[1].endswith("backs off for 1m 30s; no capacity")


def test_fields_are_aligned(seen):
    """Names are aligned, lines of a value go below each other, and what is empty is left out."""
    Screen(terminal=True, width=80).fields([("a", "1"), ("empty", ""), ("longer", "x\ny")])
    assert seen() == ["a:      1", "longer: x", "        y"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (47.5 * 3600, "47h 30m"),
        (51 * 3600, "2d 3h"),
    ],
)
def test_durations_have_two_units(seconds, said):
    """A duration is told in its two largest units."""
    assert words.duration(seconds) == said


def test_whole_durations_have_no_fraction():
    """How long ago something was is told in whole seconds."""
    assert words.ago(NOW - 3.4, NOW) == "3s ago"
    assert words.ago(None, NOW) == words.took(None, None, NOW) == words.moment(None) == ""
