"""Instances of process workers are found again, and what is left of them: by a repeated start, by a handle, by a listing."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_twisted import ensureDeferred

from latent.errors import PluginError
from latent.model import Attempt
from latent.worker import hooks, instances, results
from latent.worker.processes import children
from tests.worker.conftest import Ear, Make, gone, python, started


@ensureDeferred
async def test_repeated_start(make: Make, controller_id: str) -> None:
    """A start with the same identity, by another controller process, adopts the instance that is there."""
    first = make()
    agent = await started(first)
    again = make()
    assert (await started(again)).pid == agent.pid
    assert again.instance_handle() == first.instance_handle()
    await hooks.call(again.stop_instance)
    assert not agent.is_running()


@ensureDeferred
async def test_repeated_start_without_a_record(make: Make) -> None:
    """The same when the controller died before it could write down what it had started."""
    first = make()
    agent = await started(first)
    (Path(agent.cwd()) / instances.RECORD).unlink()
    again = make()
    assert (await started(again)).pid == agent.pid
    await hooks.call(again.stop_instance)


@ensureDeferred
async def test_repeated_start_after_its_agent_died(make: Make) -> None:
    """Where the first agent is gone, a repeated start starts one."""
    first = make()
    agent = await started(first)
    agent.kill()
    await gone(agent)
    again = make()
    other = await started(again)
    assert other.pid != agent.pid
    await hooks.call(again.stop_instance)


@ensureDeferred
async def test_list_and_destroy(make: Make, controller_id: str) -> None:
    """What carries a marker is listed with a handle that destroys it, twice if need be."""
    owner, reaper = make("w1", 3), make("w2", 1)
    agent = await started(owner)
    listed = results.listed(reaper, await hooks.call(reaper.list_instances))
    mine = [one for one in listed if one.controller_id == controller_id]
    assert [one.attempt for one in mine] == [Attempt("w1", 3)]
    assert results.handle(reaper, mine[0].handle) == owner.instance_handle()
    assert mine[0].created_at == agent.create_time()
    directory = Path(agent.cwd())
    for _ in range(2):
        await hooks.call(reaper.destroy_instance, mine[0].handle)
        assert not agent.is_running()
        assert not directory.exists()


@ensureDeferred
async def test_a_directory_without_a_process_is_listed(make: Make, controller_id: str) -> None:
    """A controller died between an instance's end and the removal of its directory: that is found, and removed when asked."""
    owner, reaper = make("w1", 3), make("w2", 1)
    agent = await started(owner)
    directory = Path(agent.cwd())
    agent.kill()
    await gone(agent)
    (mine,) = [
        one for one in results.listed(reaper, await hooks.call(reaper.list_instances)) if one.controller_id == controller_id
    ]
    assert (mine.attempt, mine.handle, mine.protected) == (Attempt("w1", 3), owner.instance_handle(), False)
    assert mine.title == f"the directory {directory}, without a process"
    (directory / instances.PROTECT).touch()
    (mine,) = [
        one for one in results.listed(reaper, await hooks.call(reaper.list_instances)) if one.controller_id == controller_id
    ]
    assert mine.protected
    await hooks.call(reaper.destroy_instance, mine.handle)
    assert not directory.exists()


class Killed(BaseException):
    """Nothing of what would have followed is done."""


@pytest.mark.parametrize("emptied", [False, True], ids=["before", "after"])
@ensureDeferred
async def test_a_removal_that_is_cut_short_is_found(
    make: Make, controller_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emptied: bool
) -> None:
    """The controller dies while it removes a directory: until all of it is gone, a listing finds it."""
    owner, reaper = make("w1", 3), make("w2", 1)
    agent = await started(owner)
    directory = Path(agent.cwd())
    agent.kill()
    await gone(agent)
    real = instances.shutil.rmtree

    def cut_short(path: Path) -> None:
        if emptied:
            real(path)
        raise Killed

    monkeypatch.setattr(instances.shutil, "rmtree", cut_short)
    with pytest.raises(Killed):
        instances.sweep(directory.parent, instances.marker_of(controller_id, Attempt("w1", 4)))
    monkeypatch.undo()
    assert directory.exists() is not emptied
    (mine,) = [one for one in await hooks.call(reaper.list_instances) if one.controller_id == controller_id]
    assert (mine.attempt, mine.handle) == (Attempt("w1", 3), owner.instance_handle())
    await hooks.call(reaper.destroy_instance, mine.handle)
    assert list((tmp_path / "instances").iterdir()) == []


@pytest.mark.parametrize("record", ["", "[]", '{"pid": 1}', "of another place"])
@ensureDeferred
async def test_records_that_tell_nothing_are_passed_by(make: Make, controller_id: str, record: str) -> None:
    """One that is half written or damaged, and one in a directory that was copied: nothing is listed by it, nothing fails."""
    owner = make("w1", 3)
    agent = await started(owner)
    path = Path(agent.cwd()) / instances.RECORD
    text = path.read_text()
    agent.kill()
    await gone(agent)
    path.write_text(record)
    if record == "of another place":
        path.write_text(text)
        path.parent.rename(path.parent.with_name("moved"))
    listed = await hooks.call(owner.list_instances)
    assert [one for one in listed if one.controller_id == controller_id] == []
    await hooks.call(owner.stop_instance)


@ensureDeferred
async def test_resume(make: Make) -> None:
    """A handle that was persisted finds its instance, as long as it runs."""
    first = make()
    agent = await started(first)
    handle = json.loads(json.dumps(first.instance_handle()))
    later = make(basedir="elsewhere")
    assert results.resume_result(later, await hooks.call(later.resume_instance, handle)) is True
    assert later.instance_handle() == handle
    assert await hooks.call(later.check_instance) == (True, "")
    other = make("w1", 2)
    assert await hooks.call(other.resume_instance, handle) is False
    await hooks.call(later.stop_instance)
    assert not agent.is_running()
    assert not Path(handle["dir"]).exists()
    assert await hooks.call(make().resume_instance, handle) is False


@ensureDeferred
async def test_resume_of_a_reused_pid(make: Make) -> None:
    """A process that has the pid now but is another is not taken for the instance, and not ended."""
    worker = make()
    agent = await started(worker)
    handle = worker.instance_handle()
    stranger = subprocess.Popen(python("import signal; signal.pause()"))
    try:
        for fake in ({**handle, "pid": stranger.pid}, {**handle, "born": handle["born"] - 1}):
            assert await hooks.call(make().resume_instance, fake) is False
        agent.kill()
        await gone(agent)
        await hooks.call(worker.destroy_instance, {**handle, "pid": stranger.pid})
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    "handle", [None, 3, {}, {"pid": 1}, {"pid": 1, "create_time": 1, "born": 1, "dir": "/etc", "instance": "c/w/1"}]
)
@ensureDeferred
async def test_foreign_handles(make: Make, handle: Any) -> None:
    """What is no handle of ours is refused: nothing is ended, no directory removed."""
    for hook in (make().resume_instance, make().destroy_instance):
        with pytest.raises(PluginError, match="is no handle of a ProcessLatentWorker"):
            await hooks.call(hook, handle)


@ensureDeferred
async def test_leftover_directories(make: Make, controller_id: str) -> None:
    """A directory of an earlier attempt, left by a crash, goes with the next start; those in use and others' stay."""
    running = make("w1", 1)
    base = Path((await started(running)).cwd()).parent
    stale, others = base / f"w1-2-{controller_id[:8]}", base / f"w1-x-2-{controller_id[:8]}"
    stale.mkdir()
    others.mkdir()
    worker = make("w1", 5)
    await started(worker)
    assert sorted(path.name.rsplit("-", 1)[0] for path in base.iterdir()) == ["w1-1", "w1-5", "w1-x-2"]
    await hooks.call(worker.stop_instance)
    await hooks.call(running.stop_instance)


CONTROLLER = """
    import sys
    from pathlib import Path
    from twisted.internet import reactor
    from latent.worker.process import ProcessLatentWorker
    from latent.worker import hooks
    from tests.worker.conftest import SLEEPER
    from tests.worker.kit import enrolment
    command = [*SLEEPER, sys.argv[3]]
    worker = ProcessLatentWorker("w1", command=command)
    worker.reconfigService("w1", command=command)
    worker.reactor, worker.state_dir = reactor, Path(sys.argv[1])
    worker.enrolment = enrolment("w1", 4, sys.argv[2])
    hooks.call(worker.start_instance, None).addCallback(lambda _: print(worker.instance_handle()["pid"], flush=True))
    reactor.run()
"""


@ensureDeferred
async def test_instances_outlive_a_killed_controller(make: Make, ear: Ear, tmp_path: Path, controller_id: str) -> None:
    """An instance goes on when its controller is killed, is found by the next one, and ends without a zombie."""
    controller = subprocess.Popen(
        [*python(CONTROLLER), str(tmp_path), controller_id, ear.path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert controller.stdout is not None
        pid = int(controller.stdout.readline())
        assert await ear.heard() == "ready"
    finally:
        controller.send_signal(signal.SIGKILL)
        controller.wait()
        controller.stdout.close()  # type: ignore[union-attr]
    worker = make("w1", 4)
    listed = [one for one in await hooks.call(worker.list_instances) if one.controller_id == controller_id]
    assert [(one.attempt, one.handle["pid"]) for one in listed] == [(Attempt("w1", 4), pid)]
    assert await hooks.call(worker.resume_instance, listed[0].handle) is True
    agent = psutil.Process(pid)
    agent.kill()
    await gone(agent)
    assert children.exit_code(pid, listed[0].handle["born"]) is None
    assert await hooks.call(worker.check_instance) == (False, "agent is gone; last lines: ready")
    await hooks.call(worker.stop_instance)
