"""A plugin that keeps all promises passes the contract."""

from __future__ import annotations

from latent.testing.contract import make_latent_worker_tests
from tests.contract.shed import ShedProvider


class TestShedLatentWorker(make_latent_worker_tests(ShedProvider)):  # type: ignore[misc]
    """Every promise, none skipped."""
