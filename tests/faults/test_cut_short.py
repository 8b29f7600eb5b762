"""What a machine that loses its power leaves: files that end in the middle of a record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latent.errors import StoreCorrupt
from latent.model import LogLine, Run
from latent.store import builds, journal
from latent.store.logs import LogFiles
from latent.store.runs_json import JsonRunStore
from tests.e2e.site import Site
from tests.store.helpers import open_inline, result
from tests.store.test_crash import check, write_until_killed

MASTER = """
c["workers"] = [worker.ProcessLatentWorker("local-{n}", count=2, build_wait_timeout=1)]
c["reaper"] = {"interval": 1, "min_age": 1}
"""


def test_a_write_ahead_log_that_is_cut_short(tmp_path: Path) -> None:
    """Wherever it ends, the store opens, agrees with itself, and has all up to some commit: the longer, the more."""
    whole = tmp_path / "whole"
    whole.mkdir()
    write_until_killed(whole, 60)
    size = (whole / "latent.sqlite-wal").stat().st_size
    assert size
    had = -1
    for part in range(5):
        place = tmp_path / str(part)
        shutil.copytree(whole, place)
        wal = place / "latent.sqlite-wal"
        (place / "latent.sqlite-shm").unlink(missing_ok=True)
        with wal.open("r+b") as file:
            file.truncate(size * part // 4 - (7 if 0 < part < 4 else 0))
        store = open_inline(place)
        check(store, [])
        found = len(result(store.read(lambda conn: builds.list_builds(conn, limit=10**6))))
        assert found >= had
        had = found
        _, damaged = result(store.read(journal.load))
        assert not damaged
        result(store.close())
    assert had > 0


@pytest.mark.parametrize("kept", [0.0, 0.9])
def test_a_controller_after_its_log_was_cut_short(tmp_path: Path, kept: float) -> None:
    """What was not on disk is lost, and said to be; but no instance leaks, and what is known still ends."""
    one = Site(tmp_path, MASTER)
    try:
        one.latent("start")
        before = one.submit("true")
        assert one.wait_for_all()[before]["result"] == "success"
        running = one.submit("sleep 1000")
        one.wait("the build to begin", lambda: one.build(running)["state"] == "running")
        one.kill_controller()
        wal = tmp_path / "state" / "latent.sqlite-wal"
        with wal.open("r+b") as file:
            file.truncate(int(wal.stat().st_size * kept))
        one.latent("start")
        for number, build in one.builds().items():
            if build["state"] != "finished":
                one.call("POST", f"builds/{number}/cancel")
        after = one.submit("true")
        assert one.wait_for_all()[after]["result"] == "success"
        one.wait("every instance to be gone", lambda: not list(one.instances()))
    finally:
        one.end()


def test_a_run_store_that_is_cut_short(tmp_path: Path) -> None:
    """Of runs in a file: the file names itself and the remedy, and stays as it is. What a death left beside it is in no way."""
    store = JsonRunStore(tmp_path)
    for name in ("a", "b"):
        store.create(Run(id="", machine=name, test_dir_hash="h"))
    path = tmp_path / "runs.json"
    text = path.read_bytes()
    (tmp_path / "runs.json.new").write_bytes(text[: len(text) // 2])
    assert len(store.list()) == 2
    for end in range(0, len(text) - 1, 17):
        path.write_bytes(text[:end])
        with pytest.raises(StoreCorrupt, match=r"runs\.json is damaged .*left as it is; restore it from a backup"):
            store.list()
        with pytest.raises(StoreCorrupt):
            store.create(Run(id="", machine="c", test_dir_hash="h"))
        assert path.read_bytes() == text[:end]


def test_a_log_that_is_cut_short(tmp_path: Path) -> None:
    """Wherever it ends: the whole lines before are there, what comes later is too, and nothing is two lines at once."""
    lines = [LogLine(step_uuid="u", line=n, time=0.5, stream="stdout", text="x" * n) for n in range(10)]
    whole = tmp_path / "whole"
    logs = LogFiles(whole)
    logs.append(1, lines)
    path = logs.path(1)
    data = path.read_bytes()
    logs.close()
    for end in range(0, len(data), 13):
        place = tmp_path / str(end)
        shutil.copytree(whole, place)
        cut = place / path.relative_to(whole)
        cut.write_bytes(data[:end])
        logs = LogFiles(place)
        logs.append(1, [LogLine(step_uuid="u", line=99, time=1.0, stream="stdout", text="late")])
        found, _ = logs.read(1)
        logs.close()
        left = [json.loads(raw)[1] for raw in data[:end].split(b"\n")[:-1]]
        assert [line.line for line in found][: len(left)] == left
        assert found[-1].text == "late"
