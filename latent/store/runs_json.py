"""The runs in one JSON file, under a lock that dies with its holder: no database, and people can read it.

The file is ``runs.json`` in a directory of its own::

    {"latent_runs":1,"runs":[
    {"id":"1","machine":"m1",...},
    {"id":"2","machine":"m2",...}
    ],"owners":{
    "2":["host/4711/1780315200.00",1780318800.0]
    }}

``runs`` are the public records in the order of their creation, ``owners`` what `reconcile` needs to know of some: owner and
deadline, either may be null. Whoever changes something holds a lock on ``runs.lock``, reads the whole, and replaces the file by
a new one, so that a process that is killed leaves the old or the new, and readers need no lock. All is written for each change:
this is for hundreds of runs; docs/runs.md has the figures.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from latent.errors import StoreCorrupt, StoreError
from latent.model import Run, RunStatus
from latent.store.codec import clean
from latent.store.runs import (
    MachineBusy,
    PrepareOutcome,
    Runs,
    adoptable,
    cleaned,
    from_document,
    not_found,
    number_of,
    overdue,
    owner_gone,
    prepared,
    same,
    taken,
    to_json,
)

FILE = "runs.json"
LOCK = "runs.lock"
TEMPORARY = "runs.json.new"

Owner = tuple[str | None, float | None]
"""Who carries a run out, and until when at the latest."""


@define
class _Content:
    """What is in the file."""

    runs: dict[str, Run] = field(factory=dict)
    owners: dict[str, Owner] = field(factory=dict)

    def live_on(self, machine: str) -> Run | None:
        return next((run for run in self.runs.values() if run.machine == machine and not run.status.is_terminal), None)

    def check_free(self, run: Run) -> None:
        live = None if run.status.is_terminal else self.live_on(run.machine)
        if live is not None and live.id != run.id:
            raise MachineBusy(live)

    def insert(self, run: Run, owner: Owner) -> Run:
        run = evolve(run, id=str(max((int(id) for id in self.runs), default=0) + 1))
        self.runs[run.id] = run
        if owner != (None, None):
            self.owners[run.id] = owner
        return run


class JsonRunStore:
    """The runs in ``directory``, which is made with mode 0700 where there is none. See `latent.store.runs.RunStore`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._path = self._directory / FILE
        _private(self._directory)

    def close(self) -> None:
        """There is nothing that stays open."""

    def create(self, run: Run, *, owner: str | None = None, deadline: float | None = None) -> Run:
        run = evolve(cleaned(run), id="")
        with self._changed() as content:
            content.check_free(run)
            return content.insert(run, (owner, deadline))

    def get(self, id: str) -> Run:
        number_of(id)
        run = self._read().runs.get(id)
        if run is None:
            raise not_found(id)
        return run

    def update(self, run: Run) -> None:
        number_of(run.id)
        run = cleaned(run)
        with self._changed() as content:
            if run.id not in content.runs:
                raise not_found(run.id)
            content.check_free(run)
            content.runs[run.id] = run

    def list(self) -> Runs:
        return [*self._read().runs.values()]

    def find(
        self,
        *,
        machine: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Runs:
        first = 0 if after is None else number_of(after)
        machine = None if machine is None else clean(machine)
        found = [
            run
            for run in self._read().runs.values()
            if int(run.id) > first and machine in (None, run.machine) and (statuses is None or run.status in statuses)
        ]
        if limit is None or limit >= len(found):
            return found
        return found[len(found) - limit :] if after is None else found[:limit]

    def active_by_machine(self, name: str) -> Run | None:
        return self._read().live_on(clean(name))

    def find_by_test_dir_hash_and_machine(self, hash: str, machine: str) -> Runs:
        wanted = (clean(hash), clean(machine))
        return [run for run in self._read().runs.values() if (run.test_dir_hash, run.machine) == wanted]

    def prepare_atomic(
        self,
        machine: str,
        hash: str,
        mk: Callable[[], Run],
        *,
        owner: str | None = None,
        deadline: float | None = None,
    ) -> tuple[Run, PrepareOutcome]:
        machine, hash = clean(machine), clean(hash)
        with self._changed() as content:
            live = content.live_on(machine)
            if live is not None:
                return live, PrepareOutcome.REUSE if live.test_dir_hash == hash else PrepareOutcome.BUSY
            run = evolve(cleaned(prepared(mk, machine, hash)), id="")
            return content.insert(run, (owner, deadline)), PrepareOutcome.CREATED

    def reconcile(self, now: float, alive: Callable[[str], bool]) -> Runs:
        content = self._read()
        owners = {owner for id, (owner, _) in content.owners.items() if not content.runs[id].status.is_terminal}
        # Asked without the lock: it may take its time.
        dead = {owner for owner in owners if owner is not None and not alive(owner)}
        ended = []
        with self._changed() as content:
            for id, (owner, deadline) in content.owners.items():
                run = content.runs[id]
                if run.status.is_terminal:
                    continue
                if owner is not None and owner in dead:
                    run = owner_gone(run, owner, now)
                elif deadline is not None and deadline <= now:
                    run = overdue(run, deadline, now)
                else:
                    continue
                content.runs[id] = run
                ended.append(run)
        return ended

    def adopt(self, runs: Sequence[Run], *, new_ids: bool = False) -> Runs:
        wanted = adoptable(runs, new_ids=new_ids)
        with self._changed() as content:
            if new_ids:
                return [content.insert(run, (None, None)) for run in wanted]
            new = [run for run in wanted if run.id not in content.runs or not same(content.runs[run.id], run)]
            if others := [run.id for run in new if run.id in content.runs]:
                raise taken(others)
            content.runs.update((run.id, run) for run in new)
            content.runs = dict(sorted(content.runs.items(), key=lambda item: int(item[0])))
            return new

    # --- the file ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _changed(self) -> Iterator[_Content]:
        """What is in the file, to be changed: it is written where the block ends and did change something."""
        try:
            fd = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            content = self._read()
            before = dict(content.runs)
            yield content
            if content.runs != before:
                self._write(content)
        finally:
            # Not by closing alone: a child that was forked meanwhile holds the same lock.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _read(self) -> _Content:
        try:
            text = self._path.read_bytes().decode()
        except FileNotFoundError:
            return _Content()
        except OSError as error:
            raise self._unusable(error) from error
        except UnicodeDecodeError as error:
            raise self._corrupt(f"it is not UTF-8: {error.reason} at byte {error.start}") from error
        try:
            return _content(json.loads(text))
        except (ValueError, RecursionError, StoreCorrupt) as error:
            raise self._corrupt(str(error)) from error

    def _write(self, content: _Content) -> None:
        runs = ",\n".join(map(to_json, content.runs.values()))
        owners = ",\n".join(f'"{id}":{json.dumps(owner)}' for id, owner in content.owners.items())
        data = f'{{"latent_runs":1,"runs":[\n{runs}\n],"owners":{{\n{owners}\n}}}}\n'.encode()
        temporary = self._directory / TEMPORARY
        try:
            # Whoever was killed before may have left one.
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.replace(temporary, self._path)
            _sync(self._directory)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(f"{self._path} can't be used: {error.strerror}; make room on its disk, and its folder this user's own")

    def _corrupt(self, message: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._path} is damaged ({message}) and was left as it is; restore it from a backup or repair it, or move it away: "
            "the store is then empty"
        )


def _content(document: Any) -> _Content:
    """Raises ValueError and StoreCorrupt, with what is wrong."""
    if not isinstance(document, dict) or document.get("latent_runs") != 1:
        raise ValueError('it should be an object with "latent_runs": 1')
    records, owners = document.get("runs"), document.get("owners")
    if not isinstance(records, list) or not isinstance(owners, dict):
        raise ValueError('it should have a list "runs" and an object "owners"')
    content = _Content()
    for place, record in enumerate(records):
        try:
            run = from_document(record)
            number_of(run.id)
        except StoreError as error:
            raise ValueError(f"run at place {place + 1}: {error}") from error
        if run.id in content.runs:
            raise ValueError(f"there are two runs {run.id}")
        content.runs[run.id] = run
    for id, owner in owners.items():
        if id not in content.runs or not isinstance(owner, list) or len(owner) != 2:
            raise ValueError(f"the owner of run {id} should be of a run, and a list of two")
        name, deadline = owner
        if not isinstance(name, str | None) or isinstance(deadline, bool) or not isinstance(deadline, float | int | None):
            raise ValueError(f"the owner of run {id} should be a string and a number, or null")
        content.owners[id] = (name, deadline)
    return content


def _private(directory: Path) -> None:
    """Make the directory this user's alone, unless it is somebody's for other things, too."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not {*os.listdir(directory)} - {FILE, LOCK, TEMPORARY}:
            os.chmod(directory, 0o700)
    except OSError as error:
        raise StoreError(
            f"{directory} can't hold runs: {error.strerror}; name a directory, or a database as sqlite:///PATH"
        ) from error


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
