"""Rough days: everything goes wrong at random, controllers die, and in the end the books balance. A seed tells each day again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from latent.errors import LatentError
from latent.model import Result
from latent.testing.cloud import Cloud, CloudHarness, CloudLatentWorker

DAYS = 6


def workers(cloud: Cloud) -> list[CloudLatentWorker]:
    declared = {"cloud": cloud, "settle": 40, "start_timeout": 60, "stop_timeout": 60, "missing_timeout": 120}
    return [
        CloudLatentWorker("at-once", build_wait_timeout=0, **declared),
        CloudLatentWorker("warm", build_wait_timeout=90, **declared),
        CloudLatentWorker("kept", build_wait_timeout=-1, **declared),
    ]


@pytest.mark.parametrize("seed", range(DAYS))
def test_day(tmp_path: Path, seed: int, flush_logged_errors: Callable[..., object]) -> None:
    """Every build is carried out, once; no attempt has two instances; nothing is left."""
    chance = Random(seed)
    with CloudHarness(tmp_path, workers, seed=seed, boot=3.0) as site:
        site.agents.work = site.works_for(15)
        site.cloud.weather(0.3)
        site.cloud.lag(30, ragged=True)
        builds = []
        for _ in range(12):
            match chance.randrange(5):
                case 0:
                    site.restart()
                case 1:
                    site.cloud.capacity(chance.choice([1, None]))
                case _:
                    builds.append(site.submit(max_attempts=1000))
            site.advance(chance.expovariate(1 / 60))
        site.advance(1200)
        site.settle()
        for build in builds:
            assert site.result(build) is Result.SUCCESS
            assert [run.run.status.value for run in site.runs(build)].count("completed") == 1
        assert site.cloud.complaints() == []
        ledger = site.cloud.ledger()
        assert ledger["created"] == ledger["destroyed"] + ledger["vanished"] + ledger["left"]
        assert ledger["left"] <= 1  # the one that is kept
    flush_logged_errors(LatentError)  # a restart that was not told what exists says so
