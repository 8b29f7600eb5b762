"""The public record of runs, its JSON, and what every store of them does (specs/runs.md).

There are two: `latent.store.runs_sql.SqlRunStore`, which a controller's own database is, and
`latent.store.runs_json.JsonRunStore`, one file. `latent.store.run_stores` opens either by its address.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from attrs import evolve

from latent.errors import RunNotFound, StoreCorrupt, StoreError
from latent.model import JSON, Run, RunStatus
from latent.store.codec import clean, time_from_json, time_to_json

Runs = list[Run]


class PrepareOutcome(enum.Enum):
    """CREATED: the run is new. REUSE: it was there, for the same hash. BUSY: it is another's, and occupies the machine."""

    CREATED = "created"
    REUSE = "reuse"
    BUSY = "busy"


class MachineBusy(StoreError):
    """The machine has a run that is not over: ``occupant``. Its id is empty while its build, ``build_id``, waits for the next."""

    def __init__(self, occupant: Run, build_id: int | None = None) -> None:
        names = [f"run {occupant.id}"] if occupant.id else []
        names += [] if build_id is None else [f"build {build_id}"]
        super().__init__(
            f"machine {occupant.machine} is busy with {' of '.join(names)} ({occupant.status.value}"
            f"{f', {occupant.test_dir}' if occupant.test_dir else ''}); wait until it is over"
        )
        self.occupant = occupant
        self.build_id = build_id


class RunsRefused(StoreError):
    """Records of another store that can't be taken in as they are."""


class RunStore(Protocol):
    """The runs of one place. Safe between threads and between processes; every method blocks, and is on disk when it returns.

    Ids are decimal numbers as text, which grow and are never used again. All methods raise `StoreError` when the place can't be
    used, and `StoreCorrupt` when what is there is not what was written; it is then left as it is.
    """

    def close(self) -> None: ...

    def create(self, run: Run, *, owner: str | None = None, deadline: float | None = None) -> Run:
        """Store the run under a new id and return it with that. Raises MachineBusy where it would be the second live one."""

    def get(self, id: str) -> Run:
        """Raises RunNotFound."""

    def update(self, run: Run) -> None:
        """Replace the whole record. Raises RunNotFound and, where a second one would be live on the machine, MachineBusy."""

    def list(self) -> Runs:
        """All, in the order of their creation."""

    def find(
        self,
        *,
        machine: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Runs:
        """Those that match, in the order of their creation: the first ``limit`` after that id or, without it, the last ones."""

    def active_by_machine(self, name: str) -> Run | None:
        """The run on this machine that is not over; the earliest, should a store that others wrote have several."""

    def find_by_test_dir_hash_and_machine(self, hash: str, machine: str) -> Runs:
        """All that match, also those that are over, in the order of their creation."""

    def prepare_atomic(
        self,
        machine: str,
        hash: str,
        mk: Callable[[], Run],
        *,
        owner: str | None = None,
        deadline: float | None = None,
    ) -> tuple[Run, PrepareOutcome]:
        """The machine's run that is not over or, where the machine is free, what ``mk`` makes, stored: in one step.

        ``mk`` is called once, and only to create; id, machine and hash of what it makes are overwritten. What it raises goes
        through, and nothing is stored. It must not use the store. ``owner`` and ``deadline`` (POSIX seconds) are for `reconcile`.
        """

    def reconcile(self, now: float, alive: Callable[[str], bool]) -> Runs:
        """End the runs that nobody carries out: interrupted where the owner is not alive, timeout where one is overdue.

        Returns them as they are now. Those without owner and deadline are left alone.
        """

    def adopt(self, runs: Sequence[Run], *, new_ids: bool = False) -> Runs:
        """Store records of another store, all or none; returns those that are new here, as they are stored.

        One that is here already, the same, is passed over. Raises RunsRefused where an id is another run's here and where a run
        is not over: nobody carries it out. With ``new_ids`` every one is new, under an id of this store.
        """


def to_document(run: Run) -> dict[str, JSON]:
    """The record as JSON. Times are RFC 3339; exit_code and times are null until they are known."""
    document: dict[str, JSON] = {
        "id": run.id,
        "machine": run.machine,
        "test_dir": run.test_dir,
        "test_dir_hash": run.test_dir_hash,
        "status": run.status.value,
        "exit_code": run.exit_code,
        "started_at": time_to_json(run.started_at),
        "ended_at": time_to_json(run.ended_at),
        "artifacts_path": run.artifacts_path,
        "logs_path": run.logs_path,
        "error_code": run.error_code,
        "error_msg": run.error_msg,
    }
    if run.batch_id:
        document["batch_id"] = run.batch_id
    if run.plan_entry:
        document["plan_entry"] = run.plan_entry
    return document


def to_json(run: Run) -> str:
    """The record as one line of JSON; the same record always gives the same bytes."""
    return _encode(to_document(run))


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def from_json(text: str) -> Run:
    """Raises StoreCorrupt, with what is wrong. Fields that are not in the record are left out."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise StoreCorrupt(f"the record of a run is damaged: {error}") from error
    return from_document(document)


def from_document(document: JSON) -> Run:
    """Raises StoreCorrupt, with what is wrong. Fields that are not in the record are left out."""
    try:
        if not isinstance(document, dict):
            raise TypeError("it should be an object")
        exit_code = document["exit_code"]
        if exit_code is not None and type(exit_code) is not int:
            raise TypeError(f"exit_code {exit_code!r} should be an integer or null")
        texts = {name: document.get(name, "") if name in _MAY_LACK else document[name] for name in _TEXTS}
        if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
            raise TypeError(f"{', '.join(wrong)} should be a string")
        return Run(
            **texts,
            status=RunStatus(document["status"]),
            exit_code=exit_code,
            started_at=time_from_json(document["started_at"]),
            ended_at=time_from_json(document["ended_at"]),
        )
    except KeyError as error:
        raise StoreCorrupt(f"the record of a run is damaged: it has no {error}") from error
    except (TypeError, ValueError) as error:
        raise StoreCorrupt(f"the record of a run is damaged: {error}") from error


_MAY_LACK = ("batch_id", "plan_entry")
_TEXTS = (
    "id",
    "machine",
    "test_dir",
    "test_dir_hash",
    "artifacts_path",
    "logs_path",
    "error_code",
    "error_msg",
    *_MAY_LACK,
)


def cleaned(run: Run) -> Run:
    """The record with texts that every store takes."""
    changed: dict[str, Any] = {name: clean(text) for name in _TEXTS if not (text := getattr(run, name)).isascii() or "\0" in text}
    return evolve(run, **changed) if changed else run


def prepared(mk: Callable[[], Run], machine: str, hash: str) -> Run:
    """What ``mk`` makes, for this machine and hash whatever it says itself."""
    run = mk()
    return run if run.machine == machine and run.test_dir_hash == hash else evolve(run, machine=machine, test_dir_hash=hash)


def owner_gone(run: Run, owner: str, now: float) -> Run:
    return evolve(
        run, status=RunStatus.INTERRUPTED, ended_at=now, error_code="owner_gone", error_msg=clean(f"its owner {owner} is gone")
    )


def overdue(run: Run, deadline: float, now: float) -> Run:
    message = f"it was not over at its deadline, {time_to_json(deadline)}"
    return evolve(run, status=RunStatus.TIMEOUT, ended_at=now, error_code="timeout", error_msg=message)


def number_of(id: str) -> int:
    """The number that an id is. Raises RunNotFound for what can't be one."""
    if id.isascii() and id.isdigit() and len(id) < 19 and str(int(id)) == id:
        return int(id)
    raise not_found(id)


def not_found(id: object) -> RunNotFound:
    return RunNotFound(clean(f"there is no run {id}"))


def adoptable(runs: Sequence[Run], *, new_ids: bool) -> Runs:
    """The runs for `RunStore.adopt`, in the order of their ids unless they get new ones. Raises RunsRefused."""
    if live := [run.id for run in runs if not run.status.is_terminal]:
        raise RunsRefused(f"{some(live)} not over: nobody would carry it out here")
    if new_ids:
        return [cleaned(run) for run in runs]
    seen: dict[int, Run] = {}
    for run in map(cleaned, runs):
        try:
            number = number_of(run.id)
        except RunNotFound:
            raise RunsRefused(f"{run.id!r} is no id of this store; import them with new ids (--new-ids)") from None
        if not number:
            raise RunsRefused("ids begin with 1; import them with new ids (--new-ids)")
        if not same(seen.setdefault(number, run), run):
            raise RunsRefused(f"there are two runs {run.id}; import them with new ids (--new-ids)")
    return [run for _, run in sorted(seen.items())]


def same(one: Run, other: Run) -> bool:
    """Whether the records are the same: they have microseconds, a database more."""
    return to_json(one) == to_json(other)


def taken(ids: Sequence[str]) -> RunsRefused:
    return RunsRefused(f"{some(ids)} here already, and not the same; import them with new ids (--new-ids)")


def some(ids: Sequence[str]) -> str:
    """The first few, with the verb."""
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return f"run{'' if len(ids) == 1 else 's'} {', '.join(ids[:5])}{more} {'is' if len(ids) == 1 else 'are'}"
