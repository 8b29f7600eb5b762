"""The clock of a controller whose machine's clock is set."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import define
from twisted.internet.task import Clock

from latent.controller.clock import FOLLOWS, SET, WallClock

HOUR = 3600.0
START = 1_700_000_000.0


@define
class Machine:
    """``up``: seconds since its start. ``wrong``: how far its clock is off."""

    up: float = 1000.0
    wrong: float = 0.0
    boot: str = "first"

    def clock(self, kept: Path | None = None) -> WallClock:
        return WallClock(Clock(), kept, wall=lambda: START + self.up + self.wrong, steady=lambda: self.up, boot=lambda: self.boot)

    @property
    def true(self) -> float:
        return START + self.up


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_time_goes_on(jump: float) -> None:
    """Nothing is over at once, nothing is an hour further off; in ten hours the machine's clock is followed."""
    machine = Machine()
    clock = machine.clock()
    assert clock.seconds() == machine.true
    machine.wrong = jump
    assert clock.seconds() == machine.true
    for _ in range(60):
        before = clock.seconds()
        machine.up += 1
        assert 1 - FOLLOWS <= clock.seconds() - before <= 1 + FOLLOWS
    assert clock.seconds() - machine.true == pytest.approx(60 * FOLLOWS * (1 if jump > 0 else -1))
    machine.up += HOUR / FOLLOWS
    assert clock.seconds() == machine.true + jump


def test_a_clock_that_is_kept_right_is_followed() -> None:
    """By what a time server corrects."""
    machine = Machine()
    clock = machine.clock()
    for _ in range(100):
        machine.up += 1
        machine.wrong += 0.0005
        assert clock.seconds() == pytest.approx(machine.true + machine.wrong)


def test_a_clock_that_was_never_set_is_followed_at_once() -> None:
    """By half a century: it would take for ever."""
    machine = Machine(wrong=-START)
    clock = machine.clock()
    machine.wrong = 0
    assert clock.seconds() == machine.true


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_the_next_controller_goes_on(tmp_path: Path, jump: float) -> None:
    """It was set while a controller ran, or while none did; how far it has been followed is known, too."""
    machine = Machine()
    kept = tmp_path / "clock.json"
    clock = machine.clock(kept)
    machine.wrong = jump
    assert machine.clock(kept).seconds() == machine.true
    for _ in range(1000):
        machine.up += 1
        clock.seconds()
    machine.up += 10
    assert abs(machine.clock(kept).seconds() - clock.seconds()) <= SET + 10 * FOLLOWS


def test_after_the_machine_was_down_its_clock_counts(tmp_path: Path) -> None:
    """Nobody else knows for how long that was."""
    machine = Machine()
    machine.clock(tmp_path / "clock.json")
    machine.up, machine.wrong, machine.boot = 5.0, HOUR, "second"
    assert machine.clock(tmp_path / "clock.json").seconds() == machine.true + HOUR


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"boot": "first"}', '{"boot": "first", "offset": "x"}', '{"boot": "first", "offset": NaN}']
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    """The machine's clock is believed, and the file is whole again."""
    kept = tmp_path / "clock.json"
    kept.write_text(text)
    machine = Machine()
    assert machine.clock(kept).seconds() == machine.true
    machine.wrong = HOUR
    assert machine.clock(kept).seconds() == machine.true


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    """Time goes on without it."""
    machine = Machine()
    clock = machine.clock(tmp_path / "no" / "folder" / "clock.json")
    machine.up += 1
    assert clock.seconds() == machine.true
