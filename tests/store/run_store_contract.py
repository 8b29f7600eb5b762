"""What every store of runs must do (specs/runs.md), whatever it is kept in: subclass it, with ``store`` and ``address``.

Several processes use it at once through `benchmarks.runs`, which opens it by its address.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from benchmarks.runs import hammer
from latent.errors import RunNotFound, StoreCorrupt, StoreError
from latent.model import Run, RunStatus
from latent.store.run_stores import open_runs
from latent.store.runs import MachineBusy, PrepareOutcome, to_json

CREATED, REUSE, BUSY = PrepareOutcome.CREATED, PrepareOutcome.REUSE, PrepareOutcome.BUSY
TERMINAL = [status for status in RunStatus if status.is_terminal]
PROCESSES = 4
MACHINES = 5


def run(machine: str = "m1", hash: str = "h1", **fields: Any) -> Run:
    return Run(id="ignored", machine=machine, test_dir="/t", test_dir_hash=hash, **fields)


class RunStoreContract:
    """``store``: an empty one. ``address``: by which other processes open the same. ``calls``: how many show a leak."""

    calls = 10_000

    @pytest.fixture
    def store(self, address: str) -> Any:
        raise TypeError("the subclass gives it")

    def test_create_gives_an_id(self, store: Any) -> None:
        """Whatever id the run had is overwritten, and ids are unique."""
        first, second = store.create(run("m1")), store.create(run("m2"))
        assert len({"ignored", first.id, second.id}) == 3
        assert store.get(first.id) == first == evolve(run("m1"), id=first.id)

    def test_unknown_ids(self, store: Any) -> None:
        """get and update raise RunNotFound, whatever the id looks like; nothing is stored."""
        for id in ("99", "", "x", "-1", "01", "1.0", "9" * 40, "٣"):
            with pytest.raises(RunNotFound):
                store.get(id)
            with pytest.raises(RunNotFound):
                store.update(evolve(run(), id=id))
        assert store.list() == []

    def test_update_replaces_the_whole_record(self, store: Any) -> None:
        before = store.create(run(error_msg="x", batch_id="b", artifacts_path="/a"))
        after = Run(
            id=before.id, machine="m2", status=RunStatus.FAILED, exit_code=3, started_at=1.5, ended_at=2.25, plan_entry="é"
        )
        store.update(after)
        assert store.get(before.id) == after
        assert store.list() == [after]

    def test_list_keeps_the_order_of_creation(self, store: Any) -> None:
        made = [store.create(run(f"m{n % 7}", status=RunStatus.COMPLETED)) for n in range(12)]
        store.update(evolve(made[3], exit_code=1))
        assert [each.id for each in store.list()] == [each.id for each in made]

    def test_active_by_machine(self, store: Any) -> None:
        """The run that is pending or running; None where all are over."""
        assert store.active_by_machine("m1") is None
        store.create(run(status=RunStatus.COMPLETED))
        active = store.create(run())
        store.create(run("m2"))
        assert store.active_by_machine("m1") == active
        running = evolve(active, status=RunStatus.RUNNING)
        store.update(running)
        assert store.active_by_machine("m1") == running
        store.update(evolve(active, status=RunStatus.TIMEOUT))
        assert store.active_by_machine("m1") is None

    def test_a_machine_has_one_live_run(self, store: Any) -> None:
        """create and update refuse a second one, and name the occupant."""
        over = store.create(run(status=RunStatus.FAILED))
        occupant = store.create(run())
        with pytest.raises(MachineBusy, match=rf"m1 is busy with run {occupant.id} \(pending, /t\)"):
            store.create(run(hash="h2"))
        with pytest.raises(MachineBusy):
            store.update(evolve(over, status=RunStatus.RUNNING))
        assert store.list() == [over, occupant]

    def test_find(self, store: Any) -> None:
        """The last ones or, after an id, the first ones, in the order of creation; of a machine, of some statuses."""
        made = [store.create(run(f"m{n % 2}", status=TERMINAL[n % 4])) for n in range(8)]
        live = store.create(run("m0"))
        assert store.find() == [*made, live]
        assert store.find(limit=2) == [made[7], live]
        assert store.find(after="0", limit=3) == made[:3]
        assert store.find(after=made[6].id) == [made[7], live]
        assert store.find(machine="m1", statuses=TERMINAL[1:2]) == [made[1], made[5]]
        assert store.find(machine="m0", statuses=[RunStatus.PENDING, RunStatus.RUNNING], after=made[3].id) == [live]
        assert store.find(machine="m2") == store.find(statuses=[]) == store.find(after=live.id) == []

    def test_adopt(self, store: Any) -> None:
        """Records of another store keep their ids, and those that are here already are passed over: it may be done again."""
        failed = run(status=RunStatus.FAILED, error_msg="é", started_at=1.5, ended_at=1795329969.25)
        theirs = [failed, run("m2", status=RunStatus.COMPLETED)]
        theirs = [evolve(each, id=id) for each, id in zip(theirs, ("7", "3"), strict=True)]
        assert store.adopt(theirs) == [theirs[1], theirs[0]]
        assert store.list() == [theirs[1], theirs[0]]
        assert store.adopt(theirs) == []
        finer = evolve(theirs[0], ended_at=1795329969.2500001)
        assert store.adopt([finer]) == []
        assert int(store.create(run()).id) > 7
        assert store.find_by_test_dir_hash_and_machine("h1", "m2") == [theirs[1]]

    def test_adopt_all_or_none(self, store: Any) -> None:
        """An id of another run is refused, and so is a run that is not over; then nothing is stored, unless ids may be new."""
        mine = store.create(run(status=RunStatus.FAILED))
        fresh, other = (evolve(mine, id=id, exit_code=1) for id in ("9", mine.id))
        with pytest.raises(StoreError, match=rf"run {mine.id} is here already, and not the same; import them with new ids"):
            store.adopt([fresh, other])
        for wrong, message in (
            (evolve(mine, id="8", status=RunStatus.RUNNING), "run 8 is not over"),
            (evolve(mine, id="x-1"), "'x-1' is no id of this store"),
            (evolve(mine, id="0"), "ids begin with 1"),
            (evolve(fresh, exit_code=2), "there are two runs 9"),
        ):
            with pytest.raises(StoreError, match=message):
                store.adopt([fresh, wrong])
        assert store.list() == [mine]
        added = store.adopt([fresh, other, fresh], new_ids=True)
        assert [evolve(each, id="") for each in added] == [evolve(fresh, id="")] * 3
        assert store.list() == [mine, *added]
        assert len({each.id for each in store.list()}) == 4

    def test_find_by_hash_and_machine(self, store: Any) -> None:
        """All that match, in order, also those that are over."""
        first = store.create(run(status=RunStatus.FAILED))
        store.create(run("m2"))
        store.create(run(hash="h2", status=RunStatus.FAILED))
        last = store.create(run())
        assert store.find_by_test_dir_hash_and_machine("h1", "m1") == [first, last]
        assert store.find_by_test_dir_hash_and_machine("h1", "m3") == []

    def test_prepare(self, store: Any) -> None:
        """CREATED on a free machine; then REUSE for the same hash, and BUSY with the occupant for another."""
        made, outcome = store.prepare_atomic("m1", "h1", run)
        assert outcome is CREATED
        assert made.id != "ignored"
        assert store.get(made.id) == made
        assert store.prepare_atomic("m1", "h1", pytest.fail) == (made, REUSE)
        assert store.prepare_atomic("m1", "h2", pytest.fail) == (made, BUSY)
        assert store.prepare_atomic("m2", "h1", lambda: run("m2"))[1] is CREATED
        assert len(store.list()) == 2

    def test_prepare_says_where_and_what_for(self, store: Any) -> None:
        """The machine and the hash of what mk makes are those that were asked for."""
        made, _ = store.prepare_atomic("m1", "h1", lambda: run("elsewhere", "", batch_id="b"))
        assert made == evolve(run(), id=made.id, batch_id="b")
        assert store.prepare_atomic("m1", "h1", pytest.fail) == (made, REUSE)

    def test_mk_is_called_once_and_only_to_create(self, store: Any) -> None:
        calls = []
        for _ in range(3):
            store.prepare_atomic("m1", "h1", lambda: calls.append(1) or run())
        assert calls == [1]

    def test_a_failing_mk_stores_nothing(self, store: Any) -> None:
        """What it raises goes through, nothing is stored, and no lock is held."""
        with pytest.raises(ZeroDivisionError):
            store.prepare_atomic("m1", "h1", lambda: 1 / 0)
        assert store.list() == []
        assert store.prepare_atomic("m1", "h1", run)[1] is CREATED

    @pytest.mark.parametrize("status", TERMINAL)
    def test_after_the_end_there_is_a_fresh_run(self, store: Any, status: RunStatus) -> None:
        """Any terminal status frees the machine, for the same hash as well."""
        first, _ = store.prepare_atomic("m1", "h1", run)
        store.update(evolve(first, status=status))
        second, outcome = store.prepare_atomic("m1", "h1", run)
        assert outcome is CREATED
        assert second.id != first.id

    def test_the_public_record(self, store: Any, address: str) -> None:
        """What is not known yet is null, what is empty of a batch is left out, and so is the owner; the same bytes each time."""
        pending = store.create(run(), owner="someone", deadline=5.0)
        over = store.create(run("m2", status=RunStatus.FAILED, exit_code=3, ended_at=1.25, batch_id="b", plan_entry="p"))
        written = [
            f'{{"id":"{pending.id}","machine":"m1","test_dir":"/t","test_dir_hash":"h1","status":"pending","exit_code":null,'
            '"started_at":null,"ended_at":null,"artifacts_path":"","logs_path":"","error_code":"","error_msg":""}',
            f'{{"id":"{over.id}","machine":"m2","test_dir":"/t","test_dir_hash":"h1","status":"failed","exit_code":3,'
            '"started_at":null,"ended_at":"1970-01-01T00:00:01.25Z","artifacts_path":"","logs_path":"","error_code":"",'
            '"error_msg":"","batch_id":"b","plan_entry":"p"}',
        ]
        assert [to_json(each) for each in (pending, over)] == written
        again = open_runs(address)
        assert [to_json(each) for each in again.list()] == written
        again.close()

    def test_reconcile_ends_what_nobody_carries_out(self, store: Any) -> None:
        """Interrupted where the owner is gone, timeout where it is overdue; all others are left alone."""
        gone, _ = store.prepare_atomic("m1", "h", lambda: run("m1"), owner="a", deadline=50.0)
        late, _ = store.prepare_atomic("m2", "h", lambda: run("m2"), owner="b", deadline=50.0)
        busy, _ = store.prepare_atomic("m3", "h", lambda: run("m3"), owner="b", deadline=500.0)
        free = store.create(run("m4"))
        over = store.create(run("m5", status=RunStatus.FAILED), owner="a", deadline=1.0)
        late_and_free = store.create(run("m6"), deadline=99.5)
        asked: list[str] = []

        def alive(owner: str) -> bool:
            asked.append(owner)
            return owner == "b"

        ended = store.reconcile(100.0, alive)
        assert [(each.id, each.status, each.ended_at) for each in ended] == [
            (gone.id, RunStatus.INTERRUPTED, 100.0),
            (late.id, RunStatus.TIMEOUT, 100.0),
            (late_and_free.id, RunStatus.TIMEOUT, 100.0),
        ]
        assert ended[0].error_msg == "its owner a is gone"
        assert "1970-01-01T00:00:50Z" in ended[1].error_msg
        assert sorted(asked) == ["a", "b"]
        assert [store.get(each.id) for each in ended] == ended
        assert [store.get(each.id) for each in (busy, free, over)] == [busy, free, over]
        assert store.reconcile(100.0, alive) == []

    def test_what_others_end_is_not_reconciled(self, store: Any) -> None:
        """A run that ends while its owner is being looked for keeps its own end."""
        made = store.create(run(), owner="a")

        def alive(owner: str) -> bool:
            store.update(evolve(made, status=RunStatus.COMPLETED))
            return False

        assert store.reconcile(100.0, alive) == []
        assert store.get(made.id).status is RunStatus.COMPLETED

    def test_strange_texts_are_kept(self, store: Any) -> None:
        """Whatever is text comes back; what no database takes is replaced, not refused."""
        made = store.create(run("m'1; --", "%s ? :x", error_msg="é ✓ \n" + "x" * 100_000))
        assert store.get(made.id) == made
        assert store.get(store.create(run("m2", error_msg="a\0b\ud800c")).id).error_msg == "a\ufffdb?c"

    @pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "é' ; --"])
    def test_strange_names_are_found_again(self, store: Any, name: str) -> None:
        """Whatever a machine and a hash are called: who asks by that name gets what was stored by it."""
        made = store.create(run(name, name))
        with pytest.raises(MachineBusy):
            store.create(run(name, "h2"))
        assert store.active_by_machine(name) == made
        assert store.find(machine=name) == store.find_by_test_dir_hash_and_machine(name, name) == [made]
        assert store.prepare_atomic(name, name, pytest.fail) == (made, REUSE)
        store.update(evolve(run(name, name), id=made.id, status=RunStatus.FAILED))
        assert store.prepare_atomic(name, name, lambda: run(name))[1] is CREATED
        with pytest.raises(RunNotFound) as unknown:
            store.get(name)
        str(unknown.value).encode()

    def test_no_descriptor_leaks(self, store: Any) -> None:
        """After many calls there are as many descriptors as before."""
        made = store.create(run())
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(self.calls // 4):
            store.get(made.id)
            store.active_by_machine("m1")
            store.prepare_atomic("m1", "h1", run)
            store.prepare_atomic("m1", "h2", run)
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_many_threads(self, store: Any) -> None:
        """Of many threads that want a machine, one creates the run and all others get that one."""
        with ThreadPoolExecutor(8) as pool:
            for n in range(5):
                found = list(pool.map(lambda _, n=n: store.prepare_atomic(f"m{n}", "h", lambda: run(f"m{n}", "h")), range(8)))
                assert sorted(outcome.name for _, outcome in found) == ["CREATED", *["REUSE"] * 7]
                assert len({made.id for made, _ in found}) == 1

    def test_processes_that_are_killed(self, store: Any, address: str, tmp_path: Path) -> None:
        """Some of the processes are killed at any point: what they were told is true, and what they had is freed."""
        notes = tmp_path / "notes"
        notes.mkdir()
        figures = hammer(address, notes, processes=PROCESSES, machines=MACHINES, seconds=1.5, kills=2)
        assert figures["violations"] == []
        assert figures["outcomes"].keys() == {"created", "reuse", "busy"}
        assert figures["created together"] == MACHINES
        assert (figures["killed"], figures["not over"]) == (2, 0)
        for n in range(MACHINES):
            assert store.prepare_atomic(f"m{n}", "last", run)[1] is CREATED


class FileContract(RunStoreContract):
    """Of stores that are files of this host. ``file``: the one that has the runs."""

    @pytest.fixture
    def file(self, address: str) -> Path:
        raise TypeError("the subclass gives it")

    def test_its_folder_and_files_are_private(self, address: str, file: Path) -> None:
        """A folder that the store makes is its user's alone."""
        store = open_runs(address)
        store.create(run())
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert {path.name: path.stat().st_mode & 0o077 for path in file.parent.iterdir() if path.stat().st_mode & 0o077} == {}
        store.close()

    @pytest.mark.parametrize("damage", ["zeros", "noise", "cut"])
    def test_a_damaged_file_is_refused_and_kept(self, address: str, file: Path, damage: str) -> None:
        """The error names the file and the remedy, however often one asks; the file stays as it is, byte for byte."""
        store = open_runs(address)
        for n in range(200):
            store.create(run(f"m{n}", error_msg="x" * 100))
        store.close()
        whole = file.read_bytes()
        assert len(whole) > 20_000
        half = len(whole) // 2
        left = {"zeros": bytes(len(whole)), "noise": whole[:100] + b"\xff\x00 " * 5000, "cut": whole[:half]}[damage]
        file.write_bytes(left)
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match=rf"{file} is damaged .* was left as it is; restore it from a backup"):
                open_runs(address).list()
            assert file.read_bytes() == left
