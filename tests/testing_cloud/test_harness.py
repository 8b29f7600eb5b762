"""A controller with a cloud in memory: what goes wrong there, and that nothing is left of it."""

from __future__ import annotations

from pathlib import Path

from latent.model import Result
from latent.testing.cloud.harness import CloudHarness


def test_a_build(tmp_path: Path) -> None:
    """A build gets an instance, whose agent carries it out; the instance goes."""
    with CloudHarness(tmp_path) as site:
        build = site.submit()
        site.advance(5)
        assert site.result(build) is Result.SUCCESS
        assert site.cloud.instances() == []
        assert site.cloud.ledger() == {"created": 1, "destroyed": 1, "vanished": 0, "exited": 0, "left": 0, "foreign": 0}
        print(site.cloud.transcript())
