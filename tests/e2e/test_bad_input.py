"""What goes wrong around a controller: each gets a clear message with a remedy, and nothing is lost."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.requires import require

MakeSite = Callable[[str], Site]

TWO = 'c["workers"] = [worker.ProcessLatentWorker("local-{n}", count=2, build_wait_timeout=5)]\n'


def test_a_port_in_use_is_named(site: MakeSite) -> None:
    """Agents can't be listened for on a port that is taken: the message has the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = site(TWO + f'c["protocols"] = {{"peer": {{"port": {port}}}}}\n')
        done = one.run("start")
    assert done.returncode == 9
    assert str(port) in done.stderr
    assert "in use" in done.stderr


def test_a_second_controller_is_refused(site: MakeSite) -> None:
    """One directory has one controller."""
    one = site(TWO)
    one.latent("start")
    done = one.run("start")
    assert done.returncode == 5
    assert str(one.controller_pid()) in done.stderr + done.stdout


def test_a_corrupt_database_is_left_as_it_is(site: MakeSite, tmp_path: Path) -> None:
    """A file that is no database is named and not touched."""
    one = site(TWO)
    database = tmp_path / "state" / "latent.sqlite"
    database.parent.mkdir()
    database.write_bytes(b"this is not a database" * 1000)
    done = one.run("start")
    assert done.returncode == 9
    assert "latent.sqlite" in done.stderr
    assert database.read_bytes() == b"this is not a database" * 1000


def test_a_wrong_configuration_starts_nothing(site: MakeSite) -> None:
    """Every mistake is told with its line; no controller is left."""
    one = site(
        'c["workers"] = [worker.ProcesLatentWorker("a"), worker.ProcessLatentWorker("b", biuld_wait_timeout=1)]\n'
        'c["bilders"] = []\n'
    )
    done = one.run("start")
    assert done.returncode == 3
    for part in ("master.cfg:3", "ProcessLatentWorker", "build_wait_timeout", "master.cfg:4", "builders"):
        assert part in done.stderr + done.stdout
    assert one.run("builds").returncode == 4


def test_a_wrong_reconfiguration_changes_nothing(site: MakeSite) -> None:
    """The controller goes on with what it had."""
    one = site(TWO)
    one.latent("start")
    one.configure('c["workers"] = [')
    done = one.run("reconfig")
    assert done.returncode == 3
    assert "master.cfg:3" in done.stderr + done.stdout
    assert len(one.workers()) == 2
    assert one.build(one.submit("true"))["state"] != "finished"
    assert {build["result"] for build in one.wait_for_all().values()} == {"success"}


def test_a_locked_database_holds_writes_back(site: MakeSite, tmp_path: Path) -> None:
    """While another program holds the database, health says so and nothing is lost; afterwards all goes on."""
    one = site(TWO)
    one.latent("start")
    number = one.submit("true")
    assert one.wait_for_all()[number]["result"] == "success"
    holder = sqlite3.connect(tmp_path / "state" / "latent.sqlite", isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        waiting = subprocess.Popen(
            one.command("submit", "--wait", "--", "true"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        one.wait("health to say that the store is held up", lambda: one.run("health").returncode == 1)
        told = one.run("health").stdout
        assert "locked" in told
    finally:
        holder.close()
    out, _ = waiting.communicate(timeout=90)
    one.wait("the store to be well again", lambda: one.run("health").returncode == 0)
    assert waiting.returncode in (0, 8), out
    assert {build["result"] for build in one.wait_for_all().values()} == {"success"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require(os.geteuid() == 0, "the right to mount a file system", "run the tests as root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_holds_writes_back(small_disk: Path) -> None:
    """With no room left, health says so and what to do; once there is room, all goes on and nothing was lost."""
    one = Site(small_disk, TWO)
    filler = small_disk / "filler"
    try:
        one.latent("start")
        assert {build["result"] for build in _after(one, one.submit("true")).values()} == {"success"}
        with pytest.raises(OSError, match="No space"):
            _fill(filler)
        waiting = [
            subprocess.Popen(
                one.command("submit", "--wait", "--", "true"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for _ in range(4)
        ]
        one.wait("health to say that the disk is full", lambda: one.run("health").returncode == 1)
        assert "full" in one.run("health").stdout
        filler.unlink()
        codes = [process.wait(timeout=90) for process in waiting]
        for process in waiting:
            assert process.stdout is not None
            process.stdout.close()
        assert set(codes) <= {0, 8}
        one.wait("the store to be well again", lambda: one.run("health").returncode == 0)
        assert {build["result"] for build in one.wait_for_all().values()} == {"success"}
    finally:
        filler.unlink(missing_ok=True)
        one.end()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as out:
        while True:
            out.write(b"x" * 4096)


def _after(one: Site, number: int) -> dict[int, dict[str, object]]:
    return {number: one.wait_for_all()[number]}
