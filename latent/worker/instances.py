"""One instance of a process worker on disk and in the process table. Everything here blocks; see `latent.worker.processes`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import asdict, frozen

from latent.errors import (
    LatentError,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    PluginError,
)
from latent.model import JSON, Attempt
from latent.worker import processes
from latent.worker.base import ListedInstance
from latent.worker.processes import Seen, children
from latent.worker.words import shown

RECORD = "instance.json"
PROTECT = "latent.protect"
"""A file in an instance's directory: as long as it is there, the reaper leaves the instance alone."""

LOG = "agent.log"
TAIL_BYTES = 4096
TAIL_LINES = 10


class InstanceRemains(LatentError):
    """Processes or files of an instance could not be removed; the message says which and what to do."""


@frozen
class Handle:
    """What is persisted to find an instance again. ``instance`` is its marker, ``dir`` its working directory."""

    pid: int
    create_time: float
    born: float
    dir: str
    instance: str

    def to_json(self) -> JSON:
        return asdict(self)

    @classmethod
    def from_json(cls, doc: JSON) -> Handle:
        """PluginError for what is no handle of a process worker."""
        try:
            handle = cls(int(doc["pid"]), float(doc["create_time"]), float(doc["born"]), str(doc["dir"]), str(doc["instance"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PluginError(
                f"{shown(doc)} is no handle of a ProcessLatentWorker ({error!r}); end its processes by hand"
            ) from error
        if identity(handle.instance) is None or Path(handle.dir).name != directory_name(handle.instance):
            raise PluginError(f"{shown(doc)} is no handle of a ProcessLatentWorker: its directory is not its instance's")
        return handle


def marker_of(controller_id: str, attempt: Attempt) -> str:
    return f"{controller_id}/{attempt.worker}/{attempt.number}"


def identity(marker: str) -> tuple[str, Attempt] | None:
    """(controller id, attempt) of a marker; None for what is not one of ours."""
    controller_id, _, rest = marker.partition("/")
    worker, _, number = rest.rpartition("/")
    if not controller_id or not worker or not (number.isascii() and number.isdigit()):
        return None
    return controller_id, Attempt(worker, int(number))


def directory_name(marker: str) -> str:
    """Of the instance's working directory: unique also where several controllers share a base directory."""
    controller_id, _, rest = marker.partition("/")
    return f"{rest.replace('/', '-')}-{controller_id[:8]}"


def start(marker: str, command: tuple[str, ...], environment: Mapping[str, str], directory: Path) -> Handle:
    """Start the agent, or adopt the one that an earlier call with the same marker started.

    Raises the LatentWorkerFailedToSubstantiate that says what is wrong.
    """
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = True
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            fresh = False
        # The directory is made before the process and removed after it: no directory, no process.
        found = None if fresh else find(marker, directory)
        if found is not None:
            return found
    except OSError as error:
        raise LatentWorkerFailedToSubstantiate(
            f"the directory {directory} can't be made ({error.strerror}); make room for it, or set basedir to another place"
        ) from error
    try:
        seen = children.spawn(command, environment, directory, directory / LOG)
    except (OSError, ValueError) as error:
        _remove(directory)
        raise _spawn_error(command, error) from error
    handle = Handle(seen.pid, seen.created, seen.born, str(directory), marker)
    with contextlib.suppress(OSError):  # a full disk: the process is found by its marker as well
        _record(handle)
    return handle


def find(marker: str, directory: Path) -> Handle | None:
    """The running instance of a marker."""
    try:
        handle = Handle.from_json(json.loads((directory / RECORD).read_text()))
    except (OSError, ValueError, PluginError):
        # The controller died between starting the process and writing this down.
        carriers = [seen for seen in processes.snapshot() if seen.marker == marker]
        return _handle(carriers, str(directory)) if carriers else None
    return handle if handle.instance == marker and runs(handle) else None


def runs(handle: Handle) -> bool:
    """Whether the agent of the handle runs, as that instance."""
    seen = processes.look(handle.pid)
    return seen is not None and is_agent(seen, handle)


def is_agent(seen: Seen, handle: Handle) -> bool:
    """Whether a process is the agent of the handle (Note [Same process] in `latent.worker.processes`)."""
    if (seen.pid, seen.born) != (handle.pid, handle.born):
        return False
    # A program that was started in the agent's place may have cleared its environment: our own child is known without it.
    return seen.marker == handle.instance or not seen.readable or children.has(seen.pid, seen.born)


def check(handle: Handle) -> tuple[bool, str]:
    """(True, ""), or False and how the agent ended, with the last lines of its log; or that it is suspended."""
    seen = processes.look(handle.pid)
    if seen is not None and is_agent(seen, handle):
        return not seen.suspended, f"agent is suspended by a signal; kill -CONT {seen.pid} wakes it" if seen.suspended else ""
    code = children.exit_code(handle.pid, handle.born)
    if code is None:
        what = "agent is gone"
    elif code < 0:
        what = f"agent was ended by {_signal_name(-code)}"
    else:
        what = f"agent exited with code {code}"
    last = tail(Path(handle.dir))
    return False, f"{what}; last lines: {last}" if last else f"{what}; it wrote nothing"


def tail(directory: Path) -> str:
    """The last lines of the agent's log, on one line; empty if there are none."""
    try:
        with (directory / LOG).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-TAIL_LINES:])


def listed(table: Iterable[Seen], base: Path) -> list[ListedInstance]:
    """Every instance that a process of the table belongs to, of whatever worker and controller; and what is left in ``base`` of
    those that have ended: a controller may die between the end of the processes and the removal of their directory.

    ``base``: also where a directory is, if none of its instance's processes tells.
    """
    carriers: dict[str, list[Seen]] = {}
    for seen in table:
        if seen.marker:
            carriers.setdefault(seen.marker, []).append(seen)
    found = []
    for marker, group in carriers.items():
        whose = identity(marker)
        if whose is None:
            continue
        name = directory_name(marker)
        told = (seen.directory for seen in group if Path(seen.directory).name == name)
        handle = _handle(group, next(told, str(base / name)))
        found.append(_listed(whose, handle, f"pid {handle.pid} in {handle.dir}"))
    for handle in _recorded(base):
        whose = identity(handle.instance)
        if whose is not None and handle.instance not in carriers:
            found.append(_listed(whose, handle, f"the directory {handle.dir}, without a process"))
    return found


def _listed(whose: tuple[str, Attempt], handle: Handle, title: str) -> ListedInstance:
    protected = (Path(handle.dir) / PROTECT).exists()
    return ListedInstance(whose[1], handle.to_json(), whose[0], handle.create_time, protected=protected, title=title)


def _recorded(base: Path) -> Iterable[Handle]:
    """The instances whose directories are in ``base``, or are being removed from it, as each was written down at its start."""
    for path in (*base.glob(f"*/{RECORD}"), *base.glob(f".*.{RECORD}")):
        # One without a record that can be read had no process, or has one that tells.
        with contextlib.suppress(OSError, ValueError, PluginError):
            handle = Handle.from_json(json.loads(path.read_text()))
            if path in (Path(handle.dir) / RECORD, _going(Path(handle.dir))):
                yield handle


def _going(directory: Path) -> Path:
    """Where the record is while its directory is removed, and after that: until nothing is left, somebody can find it."""
    return directory.with_name(f".{directory.name}.{RECORD}")


def clean_up(marker: str, directory: Path, ended: Iterable[Seen]) -> str:
    """Remove what the ended processes left. Returns the tail of the agent's log. InstanceRemains if files can't be removed."""
    children.forget((seen.pid, seen.born) for seen in ended)
    with contextlib.suppress(OSError, ValueError, PluginError):
        handle = Handle.from_json(json.loads((directory / RECORD).read_text()))
        children.forget([(handle.pid, handle.born)])
    last = tail(directory)
    _remove(directory)
    return last


def sweep(base: Path, marker: str) -> None:
    """Remove the directories of the worker's earlier attempts that no process belongs to any more.

    A crash between the end of the processes and the removal of their directory leaves one behind.
    """
    earlier = _earlier(base, marker)
    if not earlier:
        return
    markers = {seen.marker for seen in processes.snapshot()}
    for old, directory in earlier.items():
        if old not in markers:
            with contextlib.suppress(InstanceRemains):
                _remove(directory)


def _earlier(base: Path, marker: str) -> dict[str, Path]:
    """The directories of earlier attempts of the marker's worker, by their markers."""
    whose = identity(marker)
    if whose is None:
        return {}
    controller_id, attempt = whose
    found = {}
    for path in base.glob(f"{attempt.worker}-*-{controller_id[:8]}"):
        number = path.name.removeprefix(f"{attempt.worker}-").removesuffix(f"-{controller_id[:8]}")
        if number.isascii() and number.isdigit() and int(number) < attempt.number:
            found[marker_of(controller_id, Attempt(attempt.worker, int(number)))] = path
    return found


def _handle(carriers: Iterable[Seen], directory: str) -> Handle:
    agent = processes.agent_of(carriers)
    return Handle(agent.pid, agent.created, agent.born, directory, agent.marker)


def _record(handle: Handle) -> None:
    path = Path(handle.dir) / RECORD
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(handle.to_json()))
    draft.replace(path)
    _going(path.parent).unlink(missing_ok=True)  # of an earlier start of the same attempt


def _remove(directory: Path) -> None:
    going = _going(directory)
    with contextlib.suppress(OSError):
        (directory / RECORD).replace(going)
    _remove_tree(directory)
    with contextlib.suppress(OSError):
        going.unlink()


def _remove_tree(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError:
        for root, _, _ in os.walk(directory):  # a build may have left directories that nothing may be removed from
            with contextlib.suppress(OSError):
                os.chmod(root, stat.S_IRWXU)
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InstanceRemains(f"{error.filename} can't be removed ({error.strerror}); remove {directory} by hand") from error


def _spawn_error(command: tuple[str, ...], error: OSError | ValueError) -> LatentWorkerFailedToSubstantiate:
    what = f"{command[0]!r} can't be started"
    if isinstance(error, ValueError):
        return LatentWorkerConfigurationError(f"{what} ({error}); correct the worker's command")
    if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG):
        return LatentWorkerConfigurationError(f"{what} ({error.strerror}); correct the worker's command, or install the program")
    if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return LatentWorkerCapacityError(f"{what} ({error.strerror}); this machine has room for no more: set max_instances lower")
    return LatentWorkerFailedToSubstantiate(f"{what} ({error.strerror})")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
