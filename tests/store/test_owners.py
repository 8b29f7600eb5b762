"""Who carries a run out, and what a directory holds."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from latent.store.folders import hash_of
from latent.store.owners import is_alive, this_process

HOST = socket.gethostname()


def test_a_process_is_alive_until_it_ends() -> None:
    """Also one that is dead and not yet waited for has ended."""
    assert is_alive(this_process())
    code = "from latent.store.owners import this_process; print(this_process(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        assert owner.startswith(f"{HOST}/{child.pid}/")
        assert is_alive(owner)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(owner)
    assert not is_alive(owner)


def test_a_later_process_with_its_id_is_another() -> None:
    host, number, start = this_process().split("/")
    assert is_alive(f"{host}/{number}/{float(start) + 0.5}")
    assert not is_alive(f"{host}/{number}/{float(start) - 60}")


@pytest.mark.parametrize("owner", ["elsewhere/1/1.0", "a dispatcher", "", f"{HOST}/x/1.0", f"{HOST}/1/x", f"{HOST}/1"])
def test_who_can_not_be_seen_counts_as_alive(owner: str) -> None:
    """On another host, or of another kind."""
    assert is_alive(owner)


def test_an_id_that_no_process_can_have() -> None:
    assert not is_alive(f"{HOST}/{10**30}/1.0")


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def test_the_hash_of_a_folder(tmp_path: Path) -> None:
    """Path and content of each regular file, in a sorted walk: what is in ``a/`` comes before ``a.txt``."""
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name, content in (("b", b""), ("a.txt", b"text"), ("a/z", b"\0\xff"), ("a/deep/é", b"e")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to("b")
    (tmp_path / "folder").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    expected = [(b"a/deep/\xc3\xa9", b"e"), (b"a/z", b"\0\xff"), (b"a.txt", b"text"), (b"b", b"")]
    lines = b"".join(name + b"\0" + sha(content) + b"\n" for name, content in expected)
    assert hash_of(tmp_path) == hashlib.sha256(lines).hexdigest()
    (tmp_path / "b").chmod(0o600)
    assert hash_of(tmp_path) == hashlib.sha256(lines).hexdigest()
    (tmp_path / "b").write_bytes(b"!")
    assert hash_of(tmp_path) != hashlib.sha256(lines).hexdigest()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with open(os.fsencode(tmp_path / "state") + b"/\xff", "wb"):
        pass
    assert hash_of(tmp_path / "state") == hashlib.sha256(b"\xff\0" + sha(b"") + b"\n").hexdigest()


def test_what_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        hash_of(tmp_path / "nothing")
