"""Logs as files."""

from __future__ import annotations

import errno
import gzip
import os
import random
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from latent.errors import StoreError
from latent.model import LogLine
from latent.store import logs as module
from latent.store.logs import OPEN_FILES, LogFiles


def line(number: int, text: str = "hello") -> LogLine:
    return LogLine(step_uuid="u", line=number, time=number / 10, stream="stdout", text=text)


@pytest.fixture
def logs(tmp_path: Path) -> Any:
    files = LogFiles(tmp_path)
    yield files
    files.close()


def numbers(logs: LogFiles, run_id: int) -> list[int]:
    return [each.line for each in logs.read(run_id)[0]]


def test_lines_come_back_as_they_were(logs: LogFiles) -> None:
    """Whatever a program prints comes back, half surrogates, control characters and line ends included."""
    lines = [line(n, text) for n, text in enumerate(["", "é ✓", "\ud800", "\0\n\r\u2028", "x" * 100_000])]
    logs.append(7, lines)
    assert logs.read(7)[0] == lines
    logs.finish(7)
    assert logs.read(7)[0] == lines


def test_reading_goes_on_where_it_stopped(logs: LogFiles) -> None:
    """The offset that a read returns is where the next one starts, before and after the log was compressed."""
    logs.append(1, [line(0), line(1)])
    first, offset = logs.read(1)
    assert [each.line for each in first] == [0, 1]
    assert logs.read(1, offset) == ([], offset)
    logs.append(1, [line(2)])
    logs.finish(1)
    rest, end = logs.read(1, offset)
    assert [each.line for each in rest] == [2]
    assert logs.read(1, end) == ([], end)


def test_a_long_log_is_read_in_parts(logs: LogFiles) -> None:
    """With a limit a read returns whole lines, at least one, and all of them in the end."""
    logs.append(1, [line(n, "x" * (n % 50)) for n in range(500)])
    for _ in range(2):
        seen, offset = [], 0
        while True:
            part, offset = logs.read(1, offset, limit=300)
            if not part:
                break
            assert len(part) < 30
            seen += [each.line for each in part]
        assert seen == list(range(500))
        logs.finish(1)


def test_a_run_without_output_has_no_lines(logs: LogFiles) -> None:
    logs.append(1, [])
    logs.finish(1)
    assert logs.read(1) == ([], 0)
    assert not logs.path(1).exists()


def test_a_finished_log_is_compressed_once(logs: LogFiles, tmp_path: Path) -> None:
    """Afterwards there is one file, which gunzip reads; finishing again changes nothing."""
    logs.append(1, [line(n) for n in range(1000)])
    size = logs.path(1).stat().st_size
    logs.finish(1)
    packed = logs.path(1).read_bytes()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["1.jsonl.gz"]
    assert len(packed) < size / 5
    assert len(gzip.decompress(packed)) == size
    logs.finish(1)
    assert logs.path(1).read_bytes() == packed


def test_lines_may_come_late(logs: LogFiles) -> None:
    """Lines that arrive after the end are appended to the compressed log."""
    logs.append(1, [line(0)])
    logs.finish(1)
    logs.append(1, [line(1)])
    logs.append(1, [line(2)])
    assert numbers(logs, 1) == [0, 1, 2]
    logs.finish(1)
    assert numbers(logs, 1) == [0, 1, 2]


def test_a_cut_last_line_is_left_out(logs: LogFiles, tmp_path: Path) -> None:
    """What a crash cut short is not read; lines appended later are, and a reader that waited at the cut gets them."""
    logs.append(1, [line(0), line(1)])
    logs.close()
    path = logs.path(1)
    os.truncate(path, path.stat().st_size - 5)
    again = LogFiles(tmp_path)
    assert numbers(again, 1) == [0]
    _, offset = again.read(1)
    again.append(1, [line(2)])
    assert numbers(again, 1) == [0, 2]
    assert [each.line for each in again.read(1, offset)[0]] == [2]
    again.finish(1)
    assert numbers(again, 1) == [0, 2]
    again.close()


def test_a_cut_line_at_the_end_of_a_run(logs: LogFiles) -> None:
    """A log that is compressed with a cut last line takes late lines all the same."""
    logs.append(1, [line(0), line(1)])
    logs.close()
    os.truncate(logs.path(1), logs.path(1).stat().st_size - 5)
    logs.finish(1)
    logs.append(1, [line(2)])
    assert numbers(logs, 1) == [0, 2]


def test_a_cut_compressed_log_is_read_as_far_as_it_goes(logs: LogFiles) -> None:
    rng = random.Random(1)
    logs.append(1, [line(n, rng.randbytes(40).hex()) for n in range(2000)])
    logs.finish(1)
    path = logs.path(1)
    os.truncate(path, path.stat().st_size // 2)
    found = numbers(logs, 1)
    assert found == list(range(len(found)))
    assert 500 < len(found) < 2000


def test_a_copy_that_a_crash_left_is_not_read_twice(logs: LogFiles) -> None:
    """Where both forms of a log are there, the compressed one counts, for readers and writers; finishing tidies up."""
    logs.append(1, [line(0)])
    plain = logs.path(1).read_bytes()
    copy = logs.path(1)
    logs.finish(1)
    copy.write_bytes(plain)
    assert numbers(logs, 1) == [0]
    logs.append(1, [line(1)])
    assert numbers(logs, 1) == [0, 1]
    logs.finish(1)
    assert numbers(logs, 1) == [0, 1]
    assert not copy.exists()


def test_lines_that_come_during_compression_are_kept(logs: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    compress = module._compress

    def slow(source: Path, target: Path) -> int:
        size = compress(source, target)
        logs.append(1, [line(1)])
        return size

    monkeypatch.setattr(module, "_compress", slow)
    logs.append(1, [line(0)])
    logs.finish(1)
    assert logs.path(1).suffix == ".gz"
    assert numbers(logs, 1) == [0, 1]


def test_many_threads_write_and_finish(logs: LogFiles, tmp_path: Path) -> None:
    """No line is lost or torn while other threads finish the same and other logs."""

    def finish() -> None:
        for _ in range(30):
            for run_id in range(3):
                logs.finish(run_id)

    finishers = [Thread(target=finish, daemon=True) for _ in range(3)]
    for thread in finishers:
        thread.start()
    for number in range(300):
        logs.append(number % 3, [line(number)])
    for thread in finishers:
        thread.join()
    for run_id in range(3):
        assert numbers(logs, run_id) == list(range(run_id, 300, 3))
    assert not list((tmp_path / "logs").glob("*.tmp"))


def test_few_files_are_open(logs: LogFiles) -> None:
    """However many runs there are at once, not many descriptors are used."""
    before = len(os.listdir("/proc/self/fd"))
    for round_ in range(2):
        for run_id in range(OPEN_FILES * 3):
            logs.append(run_id, [line(round_)])
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN_FILES
    assert all(numbers(logs, run_id) == [0, 1] for run_id in range(OPEN_FILES * 3))
    logs.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("finished", [False, True])
def test_a_full_disk_cuts_no_line(logs: LogFiles, monkeypatch: pytest.MonkeyPatch, finished: bool) -> None:
    """Where the disk is full in the middle of a write, nothing of it stays, and it can be repeated."""
    logs.append(1, [line(0)])
    if finished:
        logs.finish(1)
    write = os.write
    room = [10]

    def write_some(fd: int, data: Any) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", write_some)
        with pytest.raises(StoreError, match="No space left on device; free some space on that disk"):
            logs.append(1, [line(1)])
    assert numbers(logs, 1) == [0]
    logs.append(1, [line(1)])
    assert numbers(logs, 1) == [0, 1]


def test_a_log_that_can_not_be_written_says_so(logs: LogFiles) -> None:
    logs.path(1).mkdir()
    for call in (lambda: logs.append(1, [line(0)]), lambda: logs.read(1), lambda: logs.finish(1)):
        with pytest.raises(StoreError, match=r"log .*1\.jsonl can't be used: Is a directory; "):
            call()


def test_logs_are_private(logs: LogFiles, tmp_path: Path) -> None:
    """Nobody else may read what builds print."""
    logs.append(1, [line(0)])
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert logs.path(1).stat().st_mode & 0o777 == 0o600
    logs.finish(1)
    assert logs.path(1).stat().st_mode & 0o777 == 0o600


def test_what_a_crash_left_is_told_and_the_rest_of_a_compression_removed(logs: LogFiles, tmp_path: Path) -> None:
    """The next start is told which logs are still plain, and nothing stays of a compression that was not through."""
    for run in (1, 2, 30):
        logs.append(run, [line(0)])
    logs.finish(2)
    half = tmp_path / "logs" / "1.1234.tmp"
    half.write_bytes(b"half")
    assert logs.left() == [1, 30]
    assert not half.exists()
    logs.finish(1)
    assert logs.left() == [30]
    assert numbers(logs, 1) == [0]


def test_logs_that_can_not_be_looked_at(logs: LogFiles, tmp_path: Path) -> None:
    """The error names the place."""
    (tmp_path / "logs").rmdir()
    with pytest.raises(StoreError, match="logs"):
        logs.left()
