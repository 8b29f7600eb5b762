"""The hypervisor: boots user data as processes of this machine, and ends them.

One thread does it all, in order; the cloud's lock is never held meanwhile.

An instance has a folder: ``root`` is its file system, where cloud-init's write_files go; ``console`` what it has printed.
Commands that name a written file by its path are given the path where it really is. ``shutdown``, ``poweroff``, ``halt`` and
``reboot`` are programs of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from attrs import define

from latent.testing.ec2 import cloudinit
from latent.testing.ec2.killing import MARK, members, send, snapshot
from latent.testing.ec2.lives import Life
from latent.testing.ec2.values import Hypervisor

STEP = 0.05
"""Seconds between two looks at what is due."""

_POWER = """#!/bin/sh
echo "$(basename "$0")" > "$LATENT_TESTING_EC2_DIR/power"
sleep 60
"""
_BOOT = """#!/bin/sh
run() {
    echo "cloud-init: $1"
    "$LATENT_TESTING_EC2_DIR/parts/$1"
    code=$?
    [ $code = 0 ] || echo "cloud-init: $1 ended with exit code $code"
}
"""


@define(eq=False)
class Machine:
    """``leader``: the process of the boot, not waited for before all are gone: so nobody else can get its session's number."""

    id: str
    folder: Path
    mark: str
    leader: subprocess.Popen[bytes] | None = None
    on: bool = False
    kill_at: float | None = None


@define
class _Job:
    what: str
    id: str
    user_data: bytes = b""
    endpoint: str = ""
    first: bool = True
    grace: float = 0


class Machines:
    """``settings`` None: nothing is booted. ``tick`` is called all the time, from the thread of this.

    ``powered``: called with instance id and "shutdown" or "reboot" when an instance does that to itself.
    """

    def __init__(
        self,
        settings: Hypervisor | None,
        folder: Path,
        cloud: str,
        metadata_of: Callable[[Life], str],
        grace: float,
    ) -> None:
        self._settings, self._folder, self._cloud, self._metadata_of, self._grace = settings, folder, cloud, metadata_of, grace
        self._jobs: deque[_Job] = deque()
        self._machines: dict[str, Machine] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._fewer = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.tick: Callable[[], None] = lambda: None
        self.powered: Callable[[str, str], None] = lambda instance_id, what: None

    # -- what the region says, under the cloud's lock: noted, done later

    def boot(self, life: Life) -> None:
        if self._settings is not None:
            self._note(_Job("boot", life.id, life.user_data, self._metadata_of(life), life.booted == 1))

    def end(self, life: Life, *, gently: bool) -> None:
        self._note(_Job("end", life.id, grace=self._grace if gently else 0))

    def crash(self, life: Life) -> None:
        self._note(_Job("end", life.id))

    def freeze(self, life: Life) -> None:
        self._note(_Job("freeze", life.id))

    def thaw(self, life: Life) -> None:
        self._note(_Job("thaw", life.id))

    def running(self, life: Life) -> bool:
        """Whether it has processes, or may have."""
        with self._lock:
            return self._running(life)

    def wait(self, lives: Collection[Life]) -> None:
        """Until none of them is running. Not under the cloud's lock, which the thread needs for its work."""
        with self._fewer:
            self._fewer.wait_for(lambda: not any(self._running(life) for life in lives))

    def _running(self, life: Life) -> bool:
        machine = self._machines.get(life.id)
        return life.id in self._busy or (machine is not None and machine.on)

    def _note(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)
            self._busy.add(job.id)
        self._wake.set()

    # -- what anybody may ask

    def console(self, instance_id: str) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / instance_id / "console").read_text(errors="replace")
        return ""

    def processes(self, instance_id: str | None) -> list[int]:
        start = f"{self._cloud}/{instance_id or ''}"
        found = snapshot()
        return sorted(members(found, {one.mark for one in found if one.mark.startswith(start)}))

    def marks(self) -> set[str]:
        """The ids of all instances that have processes."""
        found = snapshot()
        start = self._cloud + "/"
        return {one.mark.removeprefix(start) for one in found if one.mark.startswith(start)}

    # -- the thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="hypervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking. What runs is ended by the guard."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def reap(self) -> None:
        """Wait for those that have been killed: whoever gets our children may not."""
        for machine in self._machines.values():
            if machine.leader is not None:
                machine.leader.wait()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.tick()
            self._work()
            self._look()
            self._wake.wait(STEP)
            self._wake.clear()

    def _work(self) -> None:
        while not self._ended.is_set():
            jobs = self._next()
            if not jobs:
                return
            if jobs[0].what == "boot":
                self._boot(jobs[0])
            else:
                self._do(jobs)
            with self._lock:
                waiting = {job.id for job in self._jobs}
                self._busy -= {job.id for job in jobs} - waiting
                self._fewer.notify_all()
            if jobs[0].what == "boot" and self._settings is not None and self._settings.at_once:
                self._ended.wait(1 / self._settings.at_once)

    def _next(self) -> list[_Job]:
        """The first, with those after it that are the same: all processes of the machine are looked at once for them."""
        with self._lock:
            jobs = [self._jobs.popleft()] if self._jobs else []
            while (
                self._jobs
                and jobs[0].what != "boot"
                and (self._jobs[0].what, self._jobs[0].grace) == (jobs[0].what, jobs[0].grace)
            ):
                jobs.append(self._jobs.popleft())
        return jobs

    def _do(self, jobs: Sequence[_Job]) -> None:
        found = [one for job in jobs if (one := self._machines.get(job.id)) is not None and one.on]
        if not found:
            return
        marks, what, grace = {one.mark for one in found}, jobs[0].what, jobs[0].grace
        if what == "end":
            # Who is frozen hears of nothing.
            self._signal(marks, signal.SIGCONT, signal.SIGTERM if grace else signal.SIGKILL)
            for one in found:
                one.kill_at = time.monotonic() + grace
        else:
            self._signal(marks, signal.SIGSTOP if what == "freeze" else signal.SIGCONT)

    def _signal(self, marks: Collection[str], *numbers: signal.Signals) -> None:
        sessions = [one.leader.pid for one in self._machines.values() if one.mark in marks and one.leader is not None]
        found = members(snapshot(), marks, sessions)
        for number in numbers:
            send(found, number)

    def _look(self) -> None:
        """Kill what has had its time; see which are gone, and what instances want of themselves."""
        now = time.monotonic()
        ending = {one.mark: one for one in self._machines.values() if one.kill_at is not None}
        if ending:
            late = {mark for mark, one in ending.items() if one.kill_at is not None and one.kill_at <= now}
            if late:
                self._signal(late, signal.SIGKILL)
            sessions = {one.leader.pid: mark for mark, one in ending.items() if one.leader is not None}
            everything = snapshot()
            left = set(members(everything, ending, ()).values())
            left |= {sessions[one.session] for one in everything if one.session in sessions}
            for mark, machine in ending.items():
                if mark not in left:
                    self._off(machine)
        for machine in list(self._machines.values()):
            power = machine.folder / "power"
            if machine.on and machine.kill_at is None and power.exists():
                word = power.read_text().strip()
                power.unlink()
                self.powered(machine.id, "reboot" if word == "reboot" else "shutdown")

    def _off(self, machine: Machine) -> None:
        if machine.leader is not None:
            machine.leader.wait()
        machine.leader, machine.kill_at = None, None
        with self._lock:
            machine.on = False
            self._fewer.notify_all()

    # -- booting

    def _boot(self, job: _Job) -> None:
        assert self._settings is not None
        machine = self._machines.get(job.id)
        if machine is None:
            machine = Machine(job.id, self._folder / job.id, f"{self._cloud}/{job.id}")
            with self._lock:
                self._machines[job.id] = machine
        try:
            script = _lay_out(machine.folder, cloudinit.read(job.user_data), first=job.first)
            with (machine.folder / "console").open("ab") as console:
                machine.leader = subprocess.Popen(
                    ["/bin/sh", str(script)],
                    cwd=machine.folder / "root",
                    env=self._environment(machine, job.endpoint),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            machine.folder.mkdir(parents=True, exist_ok=True)
            with (machine.folder / "console").open("a") as text:
                text.write(f"the hypervisor could not boot it: {error}\n")
            return
        machine.kill_at = None
        with self._lock:
            machine.on = True

    def _environment(self, machine: Machine, endpoint: str) -> dict[str, str]:
        assert self._settings is not None
        path = [
            str(machine.folder / "bin"),
            *self._settings.path,
            str(Path(sys.executable).parent),
            os.environ.get("PATH", os.defpath),
        ]
        kept = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or name.startswith("LATENT_TEST_")}
        return {
            **kept,
            "PATH": os.pathsep.join(path),
            "HOME": str(machine.folder / "root"),
            "TMPDIR": str(machine.folder / "temporary"),
            "LANG": "C.UTF-8",
            "USER": "root",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
            "LATENT_TESTING_EC2_DIR": str(machine.folder),
            **self._settings.environment,
            MARK: machine.mark,
        }


def _lay_out(folder: Path, plan: cloudinit.Plan, *, first: bool) -> Path:
    """Write the instance's files; the script that is its boot."""
    root, parts, programs = folder / "root", folder / "parts", folder / "bin"
    shutil.rmtree(parts, ignore_errors=True)
    for one in (root, parts, programs, folder / "temporary"):
        one.mkdir(parents=True, exist_ok=True)
    for name in ("shutdown", "poweroff", "halt", "reboot"):
        _write(programs / name, _POWER.encode(), 0o755)
    moved = _mover(plan, root)
    if first:
        for file in plan.files:
            target = root / file.path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            before = target.read_bytes() if file.append and target.exists() else b""
            _write(target, before + moved(file.content), file.mode)
    lines = [_BOOT]
    lines += [f"echo 'cloud-init: not known here, ignored: {_printable(one)}'\n" for one in plan.ignored]
    groups = [("boot", plan.early), ("per-boot", plan.per_boot)]
    if first or plan.always:
        groups.append(("", plan.scripts))
    for group, found in groups:
        for program in found:
            name = _file_name(f"{group}-{program.name}" if group and program.name != "bootcmd" else program.name)
            _write(parts / name, moved(program.content), 0o755)
            lines.append(f"run {name}\n")
    per_boot = root / "var/lib/cloud/scripts/per-boot"
    lines.append(f'for one in "{per_boot}"/*; do [ -x "$one" ] && "$one"; done\n')
    lines.append("echo 'cloud-init: finished'\n")
    _write(folder / "boot", "".join(lines).encode(), 0o755)
    return folder / "boot"


def _mover(plan: cloudinit.Plan, root: Path) -> Callable[[bytes], bytes]:
    """Replaces the paths of the plan's files by where they are."""
    paths = sorted({file.path for file in plan.files}, key=len, reverse=True)
    if not paths:
        return lambda text: text
    pattern = re.compile(rb"(?<![\w./-])(?:" + b"|".join(re.escape(path.encode()) for path in paths) + rb")(?![\w.-])")
    place = str(root).encode()
    return lambda text: pattern.sub(lambda found: place + found[0], text)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _printable(text: str) -> str:
    return re.sub(r"[^\w .,:()#/-]", "_", text)[:200]
