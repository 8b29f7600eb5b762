"""The contract of run stores, in one JSON file; and the file itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from latent.errors import StoreCorrupt, StoreError
from latent.model import RunStatus
from latent.store.run_stores import open_runs
from latent.store.runs import to_json
from latent.store.runs_json import FILE, LOCK, JsonRunStore
from tests.store.run_store_contract import FileContract, run


class TestJsonRunStore(FileContract):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return str(tmp_path / "state")

    @pytest.fixture
    def store(self, address: str) -> Any:
        return JsonRunStore(Path(address))

    @pytest.fixture
    def file(self, address: str) -> Path:
        return Path(address) / FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(folder: Path) -> JsonRunStore:
    return JsonRunStore(folder)


def test_a_folder_that_was_there_is_made_private(folder: Path, tmp_path: Path) -> None:
    """But one with other things in it keeps its mode, and the file is private in any case."""
    folder.mkdir()
    folder.chmod(0o755)
    JsonRunStore(folder).create(run())
    assert folder.stat().st_mode & 0o777 == 0o700
    tmp_path.chmod(0o755)
    JsonRunStore(tmp_path).create(run())
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_people_can_read_it(store: JsonRunStore, folder: Path) -> None:
    """A line a run, which is its public record; the owner is not in it. The same runs always give the same bytes."""
    first = store.create(run(artifacts_path="/é"), owner="me", deadline=5.0)
    second = store.create(run("m2"))
    before = (folder / FILE).read_bytes()
    lines = before.decode().splitlines()
    assert [line.removesuffix(",") for line in lines[1:3]] == [to_json(first), to_json(second)]
    assert "me" not in lines[1]
    assert json.loads(before)["owners"] == {"1": ["me", 5.0]}
    store.update(evolve(first, exit_code=1))
    store.update(first)
    assert (folder / FILE).read_bytes() == before


def test_nothing_is_written_where_nothing_changes(store: JsonRunStore, folder: Path) -> None:
    made = store.create(run())
    before = (folder / FILE).stat()
    store.prepare_atomic("m1", "h1", run)
    store.prepare_atomic("m1", "h2", run)
    store.update(made)
    assert store.reconcile(1e12, lambda owner: False) == []
    assert (folder / FILE).stat() == before


def test_of_several_live_runs_the_earliest_counts(store: JsonRunStore, folder: Path) -> None:
    """The store writes no second one, but others may."""
    first = store.create(run())
    text = (folder / FILE).read_text()
    (folder / FILE).write_text(text.replace(to_json(first), f"{to_json(first)},\n{to_json(evolve(first, id='2'))}"))
    assert store.active_by_machine("m1") == first
    assert store.prepare_atomic("m1", "h1", run)[0] == first


DAMAGES = {
    "nothing": ("", "Expecting value"),
    "cut short": ("HALF", "Expecting|Unterminated|Invalid"),
    "zeros": ("\0" * 400, "Expecting value"),
    "a list": ("[]", '"latent_runs": 1'),
    "a newer one": ('{"latent_runs":2}', '"latent_runs": 1'),
    "no owners": ('{"latent_runs":1,"runs":[]}', 'an object "owners"'),
    "a run that is none": ('{"latent_runs":1,"runs":[7],"owners":{}}', "run at place 1: .* should be an object"),
    "an id that is none": ("ID", "run at place 1: there is no run x"),
    "an id twice": ("TWICE", "there are two runs 1"),
    "a status that is none": ("STATUS", "run at place 1: .* 'sleeping' is not a valid RunStatus"),
    "an owner of no run": ('{"latent_runs":1,"runs":[],"owners":{"1":["a",1]}}', "the owner of run 1"),
    "an owner that is none": ("OWNER", "the owner of run 1 should be a string and a number"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(store: JsonRunStore, folder: Path, damage: str) -> None:
    """Whatever is asked, the error names the file, the damage and the remedy; the file stays as it is, byte for byte."""
    made = store.create(run(), owner="a")
    path = folder / FILE
    text = path.read_text()
    given, message = DAMAGES[damage]
    changed = {
        "HALF": text[: len(text) // 2],
        "ID": text.replace('"id":"1"', '"id":"x"'),
        "TWICE": text.replace(to_json(made), f"{to_json(made)},{to_json(made)}"),
        "STATUS": text.replace('"pending"', '"sleeping"'),
        "OWNER": text.replace('["a", null]', "[1, null]"),
    }.get(given, given)
    assert changed != text
    path.write_text(changed)
    for ask in (
        store.list,
        lambda: store.get("1"),
        lambda: store.create(run("m2")),
        lambda: store.update(made),
        lambda: store.prepare_atomic("m9", "h", run),
        lambda: store.reconcile(0.0, lambda owner: True),
        lambda: store.adopt([evolve(made, id="5", status=RunStatus.FAILED)]),
    ):
        with pytest.raises(StoreCorrupt, match=rf"{path} is damaged \(.*{message}.*restore it from a backup"):
            ask()
    assert path.read_text() == changed


def test_bytes_that_are_no_text_are_refused(store: JsonRunStore, folder: Path) -> None:
    (folder / FILE).write_bytes(b'{"\xff')
    with pytest.raises(StoreCorrupt, match="it is not UTF-8: invalid start byte at byte 2"):
        store.list()


def test_a_full_disk_leaves_what_was(store: JsonRunStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do; afterwards all goes on."""
    made = store.create(run())

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device; make room"):
            store.create(run("m2"))
    assert store.list() == [made]
    assert store.create(run("m2")).id == "2"


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file can't hold runs: .*; name a directory, or a database as sqlite:///PATH"):
        open_runs(str(tmp_path / "file"))


def test_a_death_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Killed at any step of writing: its lock dies with it, and what it left behind is in nobody's way. Nor is a child that was
    forked while the lock was held, and lives on."""
    command = [sys.executable, "-m", "tests.store.file_deaths", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parents[2]).stdout
    assert told.splitlines() == [
        f"before fsync pending {FILE} {LOCK}",
        f"after fsync pending {FILE} {LOCK}",
        f"before replace pending {FILE} {LOCK}",
        f"after replace failed {FILE} {LOCK}",
        "forked 2",
    ]
