"""Builds' output as files: ``logs/<run>.jsonl`` while the run goes on, ``logs/<run>.jsonl.gz`` when it is finished.

A line of a file is a JSON array: step uuid, number, seconds since the step started, stream, text. A line that a crash cut
short is left out by readers and ends before the next is appended. Once the .gz file is there, it is the log: what a crash
left beside it is a copy, and lines that come late are appended to it as further members.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from latent.errors import StoreError
from latent.killpoints import here
from latent.model import LogLine
from latent.store.sql import dumps

OPEN_FILES = 64
"""How many logs are kept open; those that were written least recently are closed first."""

TEMPORARY = ".tmp"

_BLOCK = 1 << 18
_PACKED_BLOCK = 1 << 14


CHUNK = 1 << 20
"""Bytes that are read of a long log at once."""


class LogFiles:
    """The logs below one state directory. Safe between threads; lines may be appended while their log is compressed."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "logs"
        self._open: OrderedDict[int, int] = OrderedDict()
        # Held while a descriptor is used, and while a log is exchanged for its compressed form; never for long.
        self._lock = threading.Lock()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _error(self._directory, error) from error

    def append(self, run_id: int, lines: Sequence[LogLine]) -> None:
        """Write the lines, all or none, so that they survive the controller. Raises StoreError, with the remedy."""
        if not lines:
            return
        data = "".join([dumps((line.step_uuid, line.line, line.time, line.stream, line.text)) + "\n" for line in lines]).encode()
        finished = self._finished(run_id)
        here("logs.append.before")
        try:
            with self._lock:
                if run_id not in self._open and finished.exists():
                    _append_member(finished, data)
                else:
                    _write(self._file(run_id), data)
        except OSError as error:
            raise _error(self._running(run_id), error) from error
        here("logs.append.written")

    def finish(self, run_id: int) -> None:
        """Compress the log. Without output, or a second time, nothing happens. Raises StoreError, with the remedy."""
        running, finished = self._running(run_id), self._finished(run_id)
        # Two threads that finish the same log don't write to the same file.
        temporary = running.with_suffix(f".{threading.get_ident()}{TEMPORARY}")
        try:
            with self._lock:
                self._close(run_id)
            if not running.exists():
                return
            here("logs.finish.before")
            size = _compress(running, temporary)
            here("logs.finish.packed")
            with self._lock:
                self._close(run_id)
                if finished.exists():
                    temporary.unlink()
                else:
                    _add_rest(running, size, temporary)
                    temporary.replace(finished)
                    here("logs.finish.replaced")
                running.unlink(missing_ok=True)
            _sync_folder(self._directory)
        except FileNotFoundError:
            # Another thread was faster.
            temporary.unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _error(running, error) from error

    def read(self, run_id: int, offset: int = 0, limit: int | None = None) -> tuple[list[LogLine], int]:
        """The lines from ``offset`` on and the offset after them. A run without output has none.

        An offset is 0 or what an earlier call returned; compressing does not change it. ``limit``: about how many bytes
        to read, at least one line. Raises StoreError when the file can't be read.
        """
        path = self.path(run_id)
        try:
            try:
                data = _read(path, offset, limit)
            except FileNotFoundError:
                # There is none; or it was compressed just now.
                path = self._finished(run_id)
                data = _read(path, offset, limit)
        except FileNotFoundError:
            return [], offset
        except OSError as error:
            raise _error(path, error) from error
        complete = data[: data.rfind(b"\n") + 1]
        return list(_lines(complete)), offset + len(complete)

    def next_lines(self, run_id: int) -> dict[str, int]:
        """For each step of the run the number after that of its last line: what comes with a smaller one was sent before."""
        following: dict[str, int] = {}
        lines, offset = self.read(run_id, limit=CHUNK)
        while lines:
            for line in lines:
                following[line.step_uuid] = max(line.line + 1, following.get(line.step_uuid, 0))
            lines, offset = self.read(run_id, offset, limit=CHUNK)
        return following

    def left(self) -> list[int]:
        """The runs whose logs are not compressed. To be called at the start: what a crash left of a compression is removed.

        Raises StoreError.
        """
        found = []
        try:
            for entry in os.scandir(self._directory):
                name, _, rest = entry.name.partition(".")
                if rest == "jsonl" and name.isdecimal():
                    found.append(int(name))
                elif rest.endswith(TEMPORARY):
                    os.unlink(entry)
        except OSError as error:
            raise _error(self._directory, error) from error
        return sorted(found)

    def path(self, run_id: int) -> Path:
        """Where the log is, if there is one."""
        finished = self._finished(run_id)
        return finished if finished.exists() else self._running(run_id)

    def close(self) -> None:
        with self._lock:
            for run_id in list(self._open):
                self._close(run_id)

    def _running(self, run_id: int) -> Path:
        return self._directory / f"{run_id:d}.jsonl"

    def _finished(self, run_id: int) -> Path:
        return self._directory / f"{run_id:d}.jsonl.gz"

    def _file(self, run_id: int) -> int:
        fd = self._open.get(run_id)
        if fd is not None:
            self._open.move_to_end(run_id)
            return fd
        while len(self._open) >= OPEN_FILES:
            self._close(next(iter(self._open)))
        fd = os.open(self._running(run_id), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._open[run_id] = fd
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            _write(fd, b"\n")
        return fd

    def _close(self, run_id: int) -> None:
        fd = self._open.pop(run_id, None)
        if fd is not None:
            os.close(fd)


def _write(fd: int, data: bytes) -> None:
    """Append all of it or, where the disk is full, none."""
    size = os.fstat(fd).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise


def _append_member(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        _write(fd, gzip.compress(data))
    finally:
        os.close(fd)


def _compress(source: Path, target: Path) -> int:
    """Pack what is in the source now and put it on disk; returns how many bytes it was."""
    size = 0
    with source.open("rb") as plain, target.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
            last = b"\n"
            while block := plain.read(_BLOCK):
                packed.write(block)
                size += len(block)
                last = block[-1:]
            if last != b"\n":
                # Late lines go into a further member; they must not continue one that was cut short.
                packed.write(b"\n")
        file.flush()
        os.fsync(file.fileno())
    return size


def _add_rest(source: Path, size: int, target: Path) -> None:
    """Add what was appended to the source while it was packed."""
    with source.open("rb") as plain:
        plain.seek(size)
        rest = plain.read()
    if rest:
        with target.open("ab") as file:
            file.write(gzip.compress(rest))
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, offset: int, limit: int | None) -> bytes:
    """From ``offset`` on: until the end, or until ``limit`` bytes and a line's end."""
    if path.suffix == ".gz":
        blocks = _unpacked(path, offset)
    else:
        blocks = _plain(path, offset)
    data = bytearray()
    for block in blocks:
        data += block
        if limit is not None and len(data) >= limit:
            end = data.find(b"\n", max(0, limit - 1))
            if end >= 0:
                return bytes(data[: end + 1])
    return bytes(data)


def _plain(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(_BLOCK):
            yield block


def _unpacked(path: Path, offset: int) -> Iterator[bytes]:
    """All that can be unpacked: what follows a damaged place, or the end of a member cut short, is lost."""
    with path.open("rb") as file:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        packed = b""
        while packed := packed or file.read(_PACKED_BLOCK):
            try:
                block = member.decompress(packed)
            except zlib.error:
                return
            packed = member.unused_data
            if member.eof:
                member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            skipped = min(offset, len(block))
            offset -= skipped
            if len(block) > skipped:
                yield block[skipped:]


def _lines(data: bytes) -> Iterator[LogLine]:
    for raw in data.split(b"\n"):
        try:
            step_uuid, line, time, stream, text = json.loads(raw)
        except (ValueError, TypeError):
            continue
        yield LogLine(step_uuid=step_uuid, line=line, time=time, stream=stream, text=text)


def _error(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space on that disk"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "make the folder writable for this user"
    elif error.errno == errno.EMFILE:
        remedy = "raise the limit of open files (ulimit -n)"
    else:
        remedy = "check that disk"
    return StoreError(f"log {path} can't be used: {error.strerror or error}; {remedy}")
