"""`latent leaks` with a controller that answers; without one see tests/e2e/test_leaks.py."""

from __future__ import annotations

import json

import pytest
from pytest_twisted import ensureDeferred

from latent.cli import leaks
from latent.cli.exits import ExitCode
from latent.core.leaks import Standing
from latent.errors import ConfigError
from tests.web.fake_controller import FakeLeaks
from tests.web.test_web_leaks import scan


@pytest.fixture
def naps(monkeypatch):
    """How long the command would have waited."""
    taken: list[float] = []
    monkeypatch.setattr(leaks, "_sleep", taken.append)
    monkeypatch.setattr(leaks.time, "time", lambda: 1_700_000_000.0)
    return taken


def well(seen):
    """The same scan, of places that all answered."""
    from attrs import evolve

    return evolve(seen, unlisted={}, blind=())


@ensureDeferred
async def test_nothing_has_leaked(latent, world):
    """The command ends with 0; what is expected is counted, and shown when all is asked for."""
    world.controller.leaks.scans = [well(scan(Standing.EXPECTED))]
    result = await latent("leaks")
    assert (result.exit_code, result.output) == (0, "nothing of this controller has leaked (1 instance expected)\n")
    assert "w#1" in (await latent("leaks", "--all")).output
    assert world.controller.leaks.asked == []


@ensureDeferred
async def test_what_has_leaked_is_shown_with_what_to_do(latent, world, naps):
    """Ends with 1: each instance with its standing, age, id and why; places that nobody could look at; how to go on."""
    world.controller.leaks.scans = [scan(Standing.EXPECTED, Standing.LEAKED, Standing.PROTECTED)]
    result = await latent("leaks")
    rows = [line.split() for line in result.output.splitlines()]
    assert result.exit_code == ExitCode.FAILURE
    assert rows[1:3] == [["w#2", "leaked", "1m", "00s", "i-2", "because"], ["w#3", "protected", "1m", "00s", "i-3", "because"]]
    assert result.output.splitlines()[3:5] == [
        "not listed: elsewhere: down",
        "not listed, as their plugin can't: old; look for what they made by hand",
    ]
    assert "1 instance that nobody expects; latent -C" in result.output
    doc = json.loads((await latent("leaks", "--json")).output)
    assert [one["standing"] for one in doc["instances"]] == ["expected", "leaked", "protected"]


@ensureDeferred
async def test_other_controllers_are_told_of(latent, world, naps):
    """How many instances each has, and what to type when one is gone for good."""
    seen = well(scan(Standing.FOREIGN, Standing.FOREIGN))
    world.controller.leaks.scans = [seen]
    result = await latent("leaks")
    assert result.exit_code == 0
    assert "left alone (c0ffee: 2); -a lists them" in result.output
    assert "leaks --reap --dry-run --controller c0ffee" in result.output


@ensureDeferred
async def test_reap_waits_for_the_second_look(latent, world, naps):
    """What was seen once is looked at again when it can be certain; the end is told of each."""
    suspect, gone = well(scan(Standing.SUSPECT)), well(scan(Standing.CONDEMNED))
    from attrs import evolve

    world.controller.leaks.scans = [suspect, evolve(gone, found=tuple(evolve(one, gone=True) for one in gone.found))]
    result = await latent("leaks", "--reap")
    assert result.exit_code == 0
    assert naps == [9.0]
    assert "1 instance must be seen twice: looking again in 9.0s" in result.stderr
    assert "1 instance destroyed" in result.stdout
    assert [asked["dry_run"] for asked in world.controller.leaks.asked] == [False, False]


@ensureDeferred
async def test_reap_gives_up_on_what_is_never_certain(latent, world, naps):
    """Three looks, then it ends with 1."""
    world.controller.leaks.scans = [well(scan(Standing.SUSPECT))]
    assert (await latent("leaks", "--reap")).exit_code == ExitCode.FAILURE
    assert len(naps) == 2


@ensureDeferred
async def test_a_dry_run_waits_for_nothing(latent, world, naps):
    """It says what would be, and that nothing was done."""
    world.controller.leaks.scans = [well(scan(Standing.SUSPECT, Standing.LEAKED))]
    result = await latent("leaks", "--reap", "--dry-run", "--controller", "c0")
    assert "2 instances would be destroyed, once seen twice; nothing was done" in result.output
    assert naps == []
    assert world.controller.leaks.asked == [{"controllers": ["c0"], "dry_run": True, "wait": 120.0}]


@pytest.mark.parametrize("words", [["--dry-run"], ["--controller", "c0"], ["--nonsense"], ["w1"]])
@ensureDeferred
async def test_wrong_words(latent, world, words):
    """They are refused before anything is done."""
    assert (await latent("leaks", *words)).exit_code == ExitCode.USAGE
    assert world.controller.leaks.asked == []


@ensureDeferred
async def test_an_unknown_controller(latent, world):
    """The error names those that were seen."""
    world.controller.leaks = FakeLeaks(refusal=ConfigError("there is no instance of a controller 'x'; those seen are of c0ffee"))
    result = await latent("leaks", "--reap", "--controller", "x")
    assert result.exit_code == ExitCode.REFUSED
    assert result.stderr == "latent: there is no instance of a controller 'x'\n  those seen are of c0ffee\n"
