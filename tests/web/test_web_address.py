"""Where a controller says that it can be reached."""

from __future__ import annotations

import socket
import stat
from contextlib import closing

import pytest

from latent.errors import StoreError
from latent.web.address import (
    MAX_SOCKET_PATH,
    Address,
    clear_socket,
    load_token,
    private_directory,
    read_address,
    read_token,
    short_socket,
    write_address,
)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_an_address_is_read_back(tmp_path):
    """What is written is read; a file that holds no address is none."""
    path = tmp_path / "api.json"
    assert read_address(path) is None
    for url in (None, "http://127.0.0.1:8010"):
        write_address(path, Address("/s/api.sock", url, 7))
        assert read_address(path) == Address("/s/api.sock", url, 7)
    assert mode(path) == 0o600
    for text in ("", "{", "[]", "{}", '{"socket": 1, "url": null, "pid": "x"}'):
        path.write_text(text)
        assert read_address(path) is None


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path):
    """The first start makes the token, the next ones keep it, and a file that others could read is closed to them."""
    path = tmp_path / "token"
    token = load_token(path)
    assert len(token) > 30
    path.chmod(0o644)
    assert load_token(path) == token == read_token(path)
    assert mode(path) == 0o600
    path.write_text("\n")
    assert read_token(path) is None
    with pytest.raises(StoreError, match="delete it"):
        load_token(path)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """The file is not half written and not empty, and the message says which it is and what to do."""
    address, token = tmp_path / "api.json", tmp_path / "token"
    write_address(address, Address("/s/api.sock", None, 7))
    for path in (address, token):
        path.with_name(f"{path.name}.new").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"api\.json can't be written \(No space left on device\); make room"):
        write_address(address, Address("/s/api.sock", None, 8))
    with pytest.raises(StoreError, match="token can't be written"):
        load_token(token)
    assert read_address(address) == Address("/s/api.sock", None, 7)
    assert not token.exists()


def test_a_short_path_is_used_as_it_is(tmp_path, monkeypatch):
    """The socket is in the state directory when its path fits; the directory is closed to others."""
    monkeypatch.chdir(tmp_path)
    wanted = tmp_path / "s" / "api.sock"
    assert short_socket(wanted) == wanted
    assert mode(wanted.parent) == 0o700


def test_a_long_path_gets_a_short_one_in_a_private_directory(tmp_path, monkeypatch):
    """A path that can't be bound is replaced, by the same one each time."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    wanted = tmp_path / ("d" * 120) / "api.sock"
    found = short_socket(wanted)
    assert found == short_socket(wanted) != short_socket(wanted.with_name("other"))
    assert len(str(found)) <= MAX_SOCKET_PATH
    assert found.parent.parent == runtime
    assert mode(found.parent) == 0o700


def test_a_directory_that_somebody_else_could_have_made_is_not_used(tmp_path, monkeypatch):
    """A link in the place of the private directory is refused; without another place that is an error with a remedy."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(runtime))
    place = short_socket(tmp_path / ("d" * 120)).parent
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(StoreError, match="not a directory of this user"):
        private_directory(place)
    with pytest.raises(StoreError, match="XDG_RUNTIME_DIR"):
        short_socket(tmp_path / ("d" * 120))


def test_a_left_socket_is_cleared_and_nothing_else(tmp_path, monkeypatch):
    """A socket that a killed controller left makes room; a file of somebody's does not."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s"
    clear_socket(path)
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind("s")
    clear_socket(path)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(StoreError, match="in the way"):
        clear_socket(path)
    assert path.read_text() == "mine"
