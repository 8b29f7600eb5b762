"""Leaked instances over HTTP."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from latent.controller.scan import Found, Scan
from latent.core.leaks import Standing, Verdict
from latent.errors import ConfigError
from latent.model import Attempt
from latent.testing import ControllableLatentWorker, Controls
from latent.worker import ListedInstance
from tests.web.fake_controller import NOW


def scan(*standings: Standing) -> Scan:
    """One instance of each standing."""
    plugin = ControllableLatentWorker("w", controls=Controls())
    found = [
        Found(
            instance=ListedInstance(Attempt("w", number), {"secret": 1}, "c0ffee", NOW - 60, title=f"i-{number}"),
            scope="one account",
            plugin=plugin,
            verdict=Verdict(standing=standing, why="because", certain_at=NOW + 9 if standing is Standing.SUSPECT else None),
        )
        for number, standing in enumerate(standings, 1)
    ]
    return Scan(at=NOW, controller_id="c0ffee", found=tuple(found), unlisted={"elsewhere": "down"}, blind=("old",))


@ensureDeferred
async def test_what_a_scan_saw(world):
    """Each instance with whose it is, how it stands and why; not with its handle, which is the plugin's own business."""
    world.controller.leaks.scans = [scan(Standing.SUSPECT)]
    doc = (await world.call("GET", "/leaks")).json()
    (instance,) = doc.pop("instances")
    assert doc == {
        "at": NOW,
        "controller": "c0ffee",
        "unlisted": [{"where": "elsewhere", "error": "down"}],
        "blind": ["old"],
    }
    assert instance == {
        "worker": "w",
        "attempt": 1,
        "controller": "c0ffee",
        "title": "i-1",
        "where": "one account",
        "standing": "suspect",
        "why": "because",
        "certain_at": NOW + 9,
        "created_at": NOW - 60,
        "expires_at": None,
        "protected": False,
    }


@ensureDeferred
async def test_reap(world):
    """What is asked for reaches the controller; without anything in the body it is what is careful, but for the dry run."""
    assert (await world.call("POST", "/leaks/reap")).status_code == 200
    await world.call("POST", "/leaks/reap", json={"controllers": ["dead"], "dry_run": True, "wait": 9000})
    assert world.controller.leaks.asked == [
        {"controllers": [], "dry_run": False, "wait": 0.0},
        {"controllers": ["dead"], "dry_run": True, "wait": 600.0},
    ]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"controllers": "dead"}, "'controllers' is a string"),
        ({"controllers": [1]}, "'controllers' is a list"),
        ({"controllers": [""]}, "'controllers' is a list"),
        ({"wait": "soon"}, "'wait' is a string"),
        ({"wait": -1}, "'wait' is out of range"),
        ({"dry_run": 1}, "'dry_run' is"),
        ({"dryrun": True}, "unknown field 'dryrun'"),
    ],
    ids=str,
)
@ensureDeferred
async def test_wrong_bodies(world, body, what):
    """Nothing is done, and the answer names the field."""
    answer = await world.call("POST", "/leaks/reap", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(what)
    assert world.controller.leaks.asked == []


@ensureDeferred
async def test_a_controller_that_nobody_saw(world):
    """The refusal says which were seen."""
    world.controller.leaks.refusal = ConfigError("there is no instance of a controller 'x'; the instances seen are of c0ffee")
    answer = await world.call("POST", "/leaks/reap", json={"controllers": ["x"]})
    assert (answer.status_code, answer.json()["remedy"]) == (400, "the instances seen are of c0ffee")
