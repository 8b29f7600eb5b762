"""Disks that can be written no more. A full one: `tests/e2e/test_bad_input.py`."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.requires import require

MASTER = """
c["workers"] = [worker.ProcessLatentWorker("local", build_wait_timeout=1)]
c["db"] = {{"url": "sqlite:///{database}"}}
"""


class Disk:
    """A small file system of its own. `fail`: as the kernel does when it finds an error, it lets nothing be written any more."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "image"
        self.place = folder / "disk"
        self.place.mkdir()
        self.image.touch()
        os.truncate(self.image, 16 * 2**20)
        _run("mke2fs", "-q", "-F", "-t", "ext4", str(self.image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.place))

    def fail(self) -> None:
        _run("mount", "-o", "remount,abort", str(self.place))

    def mend(self) -> None:
        self.unmount()
        subprocess.run(["e2fsck", "-p", str(self.image)], check=False, capture_output=True)
        self.mount()

    def unmount(self) -> None:
        _run("umount", str(self.place))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    require(os.geteuid() == 0, "the right to mount a file system", "run the tests as root")
    require(Path("/dev/loop-control").exists(), "a loop device", "load the kernel's module: modprobe loop")
    require(shutil.which("mke2fs"), "mke2fs", "apt-get install e2fsprogs")
    made = Disk(tmp_path)
    yield made
    made.unmount()


def test_a_disk_that_becomes_read_only(disk: Disk, tmp_path: Path) -> None:
    """Health and commands name the file and the remedy, a fast stop ends, a start is refused. On the mended disk a start
    goes on: the build, whose agent went on meanwhile, ends once, and no instance is left."""
    database = disk.place / "db" / "latent.sqlite"
    one = Site(tmp_path, MASTER.format(database=database))
    go = tmp_path / "go"
    try:
        one.latent("start")
        number = one.submit(f"until test -e {go}; do sleep 0.1; done")
        one.wait("the build to begin", lambda: one.build(number)["state"] == "running")
        disk.fail()
        go.touch()
        one.wait("health to say that nothing can be written", lambda: one.run("health").returncode == 1)
        told = one.run("health").stdout
        for part in (str(database), "read-only", "make the file and its folder writable", "none is lost"):
            assert part in told
        one.latent("stop", "--fast")
        assert "not all could be stopped" in one.log()
        refused = one.run("start")
        assert refused.returncode == 9
        for part in (str(database), "ead-only", "make the file and its folder writable"):
            assert part in refused.stderr
        disk.mend()
        one.latent("start")
        done = one.wait_for_all()[number]
        assert (done["result"], done["attempts"]) == ("success", 1)
        one.wait("the instance to be stopped", lambda: not list(one.instances()))
    finally:
        one.end()


def test_a_lock_that_is_shorter_than_the_patience_is_not_noticed(tmp_path: Path) -> None:
    """Another program writes to the database for a moment: who asks meanwhile waits, and nobody is told of trouble."""
    one = Site(tmp_path, MASTER.format(database=tmp_path / "state" / "latent.sqlite"))
    try:
        one.latent("start")
        holder = sqlite3.connect(tmp_path / "state" / "latent.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        words = one.command("submit", "--wait", "--", "true")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as waiting:
            health = one.run("health")
            holder.close()
            out, _ = waiting.communicate(timeout=90)
        assert waiting.returncode == 0, out
        assert health.returncode in (0, 1)
        assert {build["result"] for build in one.wait_for_all().values()} == {"success"}
    finally:
        one.end()
