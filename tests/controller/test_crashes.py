"""The controller dies at each of its writes in turn, before or after it is on disk; the next one makes everything good."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.testing import BareLatentWorker, ControllableLatentWorker
from tests.controller.crash import Bomb, live_through


@pytest.mark.parametrize("written", [False, True], ids=["not written", "written, not answered"])
@pytest.mark.parametrize(("builds", "timeout"), [(1, 0), (2, 5)], ids=["one build", "two builds on one instance"])
@pytest.mark.parametrize("cls", [ControllableLatentWorker, BareLatentWorker], ids=["can be found", "can't be found"])
def test_a_crash_at_any_write_loses_no_build_and_no_instance(
    tmp_path: Path, cls: type[ControllableLatentWorker], written: bool, builds: int, timeout: int
) -> None:
    """Every build succeeds exactly once, no attempt's number is used again, and no instance is left.

    Where the plugin can't find an instance again, one may be left; then health says so.
    """
    at = 0
    while True:
        (folder := tmp_path / str(at)).mkdir()
        world = live_through(folder, cls, Bomb(at, written), builds=builds, build_wait_timeout=timeout, reattach_timeout=10)
        if not world.crashes:
            break
        at += 1
    assert at >= 10, "a life has at least as many writes"
