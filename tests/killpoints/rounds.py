"""What a user does in a round, whatever dies meanwhile, until nothing is left to be done. What is wrong is an AssertionError."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import evolve

from latent.model import Run, RunStatus
from latent.store.run_stores import open_runs
from latent.store.runs import to_document
from tests.killpoints.site import Interrupted, KillSite

ROOT = Path(__file__).resolve().parents[2]

TOKEN = "a token that all agents share"
PASSWORD = "the password of a bot"


# --- what is declared ---------------------------------------------------------------------------------------------------------


def one_worker(site: KillSite, **keywords: Any) -> str:
    given = {"build_wait_timeout": 0, "check_instance_interval": 0.5, **keywords}
    return f"c['workers'] = [{site.provider.declared(site.directory.name, **given)}]\n"


def warm_worker(site: KillSite) -> str:
    """A controller that dies between an instance's end and the removal of its directory leaves that to the reaper."""
    return "c['reaper'] = {'interval': 1, 'min_age': 0.2}\n" + one_worker(site, build_wait_timeout=2)


def waiting_worker(site: KillSite) -> str:
    return one_worker(site, build_wait_timeout=600)


def watched_worker(site: KillSite) -> str:
    """What nobody expects is found at once."""
    return "c['reaper'] = {'interval': 1, 'min_age': 0.2}\n" + one_worker(site)


def hurried_worker(site: KillSite) -> str:
    """Somebody who embeds the controller gives each build a priority as soon as it is there."""
    return (
        "from latent.controller.service import Controller\n"
        "submit = Controller.submit\n"
        "async def hurried(self, request):\n"
        "    build = await submit(self, request)\n"
        "    return await self.reprioritise(build.id, 5)\n"
        "Controller.submit = hurried\n" + one_worker(site)
    )


def worker_on_a_machine(site: KillSite) -> str:
    machine = "workers.KilledMachine('host', build_wait_timeout=0)"
    return f"c['machines'] = [{machine}]\n" + one_worker(site, machine_name="host")


def plain_worker(site: KillSite) -> str:
    bot = f"worker.Worker('bot', {PASSWORD!r}, labels={{'agent': 'bot'}})"
    return (
        "c['limits'] = {'session_timeout': 12}\n"
        f"c['protocols'] = {{'peer': {{'token': {TOKEN!r}}}, 'bots': {{}}}}\n"
        f"c['workers'] = [worker.Worker({socket.gethostname()!r}, 'a password'), {bot}]\n"
    )


# --- rounds -------------------------------------------------------------------------------------------------------------------


def succeeded(site: KillSite, build: int) -> None:
    """It has ended well, at the first try, and its step ran once."""
    done = site.finished(build)
    assert done["result"] == "success", done
    assert done["attempts"] == 1, done
    assert site.ran(build) == 1, f"build {build} ran {site.ran(build)} times"
    lines = [line["text"] for line in site.lines(build)]
    assert lines.count(f"said by {build_number(done)}") == 1, lines


def build_number(build: dict[str, Any]) -> int:
    return int(build["properties"]["number"])


def whole_life(site: KillSite) -> None:
    """One build, from its submission to the end of its instance."""
    succeeded(site, site.submit())
    site.at_rest()


def kept_life(site: KillSite) -> None:
    """The same; the plugin has its handle kept before its start answers."""
    site.order("keep the handle")
    whole_life(site)


FAULTS = {
    "lifecycle.start.failed": ["fail the start"],
    "lifecycle.backoff.before": ["fail the start"],
    "lifecycle.backoff.written": ["fail the start"],
    "lifecycle.call.cancelled": ["hang the start"],
    "lifecycle.stop.failed": ["fail the stop"],
    "lifecycle.condemn.written": ["fail the stop"],
    "reaper.destroy.before": ["fail the stop"],
    "reaper.destroy.answered": ["fail the stop"],
    "reaper.gone.written": ["fail the stop"],
    "reaper.failed.before": ["fail the stop", "fail to destroy"],
    "reaper.failed.written": ["fail the stop", "fail to destroy"],
    "reaper.list.before": ["fail the start when it is made", "fail the stop"],
    "reaper.list.answered": ["fail the start when it is made", "fail the stop"],
}
"""What is to go wrong for a controller to come to a point."""


def faulty_life(site: KillSite) -> None:
    """The same, while the plugin fails; the build takes no harm."""
    for what in FAULTS.get(site.at, []):
        site.order(what)
    if site.at == "lifecycle.call.cancelled":
        site.configure(one_worker(site, start_timeout=3))
        site.repeat("POST", "reconfig")
    build = site.submit()
    site.wait("the end of the build", lambda: _ended_without_back_off(site, build))
    succeeded(site, build)
    site.at_rest()


def starts_and_stops(site: KillSite) -> None:
    """Starts and stops that are cut short, and such that fail."""
    site.order("keep the handle")
    if site.at == "lifecycle.start.failed":
        site.order("fail the stop")
    faulty_life(site)


def _ended_without_back_off(site: KillSite, build: int) -> bool:
    if any(worker["quarantined_until"] for worker in site.workers()):
        site.repeat("POST", f"workers/{site.directory.name}/unpause")
    return bool(site.build(build)["state"] == "finished")


def two_builds(site: KillSite) -> None:
    """Two builds on one instance, the second while the first runs."""
    builds = [site.submit("sleep 1"), site.submit()]
    for build in builds:
        succeeded(site, build)

    def compressed() -> bool:
        site.live()  # one that dies at that leaves it to the next
        return not list((site.directory / "state" / "logs").glob("*[!z]"))

    site.wait("the logs to be compressed", compressed)
    for build in builds:
        succeeded(site, build)
    site.at_rest()


def cancelled(site: KillSite) -> None:
    """A build is cancelled while it runs."""
    build = site.submit("sleep 600")
    site.wait("the build to run", lambda: site.ran(build))
    cancel(site, build)
    assert site.ran(build) == 1
    site.at_rest()


def cancelled_in_queue(site: KillSite) -> None:
    """A build is cancelled that no worker may have."""
    site.repeat("POST", f"workers/{site.directory.name}/pause")
    build = site.submit()
    cancel(site, build)
    assert site.ran(build) == 0
    site.repeat("POST", f"workers/{site.directory.name}/unpause")
    site.at_rest()


def cancel(site: KillSite, build: int) -> None:
    """Who sees that the cancellation was heard, or is answered, does not ask again."""
    while not (seen := site.build(build))["cancel_requested"] and seen["state"] != "finished":
        with suppress(Interrupted):
            site.answer("POST", f"builds/{build}/cancel")
    assert site.finished(build)["result"] == "cancelled"


def occupied(site: KillSite) -> None:
    """Another process has the machine, so that a build has to wait, or is not wanted any more before it could start."""
    site.live()
    unwanted = site.at == "scheduler.cancelled.written"
    runs = open_runs(f"sqlite:///{site.directory}/state/latent.sqlite")
    run, _ = runs.prepare_atomic(site.directory.name, "another's", lambda: Run(id="", machine=""))
    build = site.submit()
    if unwanted:
        cancel(site, build)
    else:
        died = len(site.died)
        site.wait("the store to refuse it", lambda: "busy" in site.build(build)["why"] or len(site.died) > died)
    runs.update(evolve(run, status=RunStatus.COMPLETED))
    if not unwanted:
        succeeded(site, build)
    site.at_rest()


def dispatched(site: KillSite) -> None:
    """A run is dispatched to a machine, and records of another store are taken in."""
    number = site.next_number()
    about = {"machine": site.directory.name, "test_dir": f"/t/{number}", "test_dir_hash": f"hash {number}"}
    command, properties = site.step(number), {"number": number}
    while (build := site.find(number)) is None:
        with suppress(Interrupted):
            site.answer("POST", "dispatches", command=command, properties=properties, **about)
    succeeded(site, build)
    record = to_document(Run(id=str(10_000 + number), machine="elsewhere", status=RunStatus.COMPLETED, exit_code=0))
    site.repeat("POST", "runs", runs=[record])
    succeeded(site, site.submit())
    kept = [run for run in site.call("GET", "runs?machine=elsewhere")["runs"] if run["id"] == record["id"]]
    assert len(kept) == 1, kept
    site.at_rest()


def agents_of_others(site: KillSite) -> None:
    """Plain workers: an agent that shows the token that all share, one that is paused, and a bot that leaves its work behind."""
    host = socket.gethostname()
    site.live()
    port = (site.directory / "state" / "peer.port").read_text().strip()
    agent = ["-P", "-m", "latent.agent.main", "--server", f"127.0.0.1:{port}", "--token", TOKEN]
    with running(site, *agent) as process:
        succeeded(site, site.submit(labels={"worker": host}))
        if site.at == "sessions.resume.written":
            silence(site, host, process)
        site.repeat("POST", f"workers/{host}/pause")
        site.repeat("POST", f"workers/{host}/unpause")
        succeeded(site, site.submit(labels={"worker": host}))
    with running(site, "-m", "tests.killpoints.bot", str(site.directory / "state" / "bots.port"), PASSWORD):
        build = site.ask_for(site.next_number(), payload={"type_url": "type.googleapis.com/some.Work", "value": "YQ=="})
        assert site.finished(build)["result"] == "success"


def machine_life(site: KillSite) -> None:
    """A build whose worker's machine is started for it, and stopped after it."""
    if site.at == "machine.start.failed":
        site.order("fail the machine's start")
    if site.at == "machine.stop.failed":
        site.order("fail the machine's stop")
    faulty_life(site)
    site.wait("the machine to stop", lambda: site.call("GET", "workers")["machines"][0]["state"] == "STOPPED")
    told = (site.directory / "machine").read_text().split()
    assert told[-1] == "stop", told
    # What was under way when its controller died may be done again; nothing is left out.
    assert [word for word, after in zip(told, [*told[1:], ""], strict=True) if word != after] == ["start", "stop"], told
    (site.directory / "machine").unlink()


def silence(site: KillSite, worker: str, agent: subprocess.Popen[bytes]) -> None:
    """The agent is not heard for so long that it counts as lost, and then it is."""

    def attached() -> bool:
        return next(one for one in site.workers() if one["name"] == worker)["session"] is not None

    agent.send_signal(signal.SIGSTOP)
    site.wait("the silence to be noticed", lambda: not attached())
    agent.send_signal(signal.SIGCONT)
    site.wait("the agent to be heard", attached)


@contextmanager
def running(site: KillSite, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with (site.directory / "agents.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def reconfigured(site: KillSite) -> None:
    """A changed declaration is applied to a worker that has an instance, which stays or goes with its last build."""
    succeeded(site, site.submit())
    site.configure(one_worker(site, build_wait_timeout=600, missing_timeout=500))
    site.repeat("POST", "reconfig")
    succeeded(site, site.submit())
    let_go(site)


def let_go(site: KillSite) -> None:
    """Let the worker's instance go, and be as before."""
    site.configure(one_worker(site))
    site.repeat("POST", "reconfig")
    site.at_rest()
    site.configure(waiting_worker(site))
    site.repeat("POST", "reconfig")


def stopped(site: KillSite) -> None:
    """The controller is stopped while it has an instance."""
    succeeded(site, site.submit())
    while site.at.startswith("service.stop"):
        site.stop()
    site.stop()
    assert site.provider.left() == []


def tasks_worker(site: KillSite) -> str:
    """A template for tasks: ``work`` is what they do."""
    command = site.step("%(prop:number)s", "%(prop:work)s")
    return f"c['builders'] = [util.Builder('task', [util.Interpolate({command!r})])]\n" + warm_worker(site)


def driven(site: KillSite) -> None:
    """A workflow, by a driver that repeats what is not answered, then by one that takes it over and is not heard of any more."""
    works = {"good": ":", "bad": "exit 3", "long": "sleep 600"}
    numbers = {name: site.next_number() for name in works}
    array = {"name": "a", "template": "task"}
    made = site.repeat("POST", "workflows", name="w", digest=f"of {numbers}", tasks=3, arrays=[array], max_running=5)
    path, first = f"workflows/{made['workflow_id']}", made["first_task"]
    tasks = [{"array": 0, "name": name, "properties": {"number": numbers[name], "work": works[name]}} for name in works]
    assert site.repeat("POST", f"{path}/tasks", first=0, tasks=tasks)["tasks"] == 3
    good, bad, long = range(first, first + 3)

    def statuses() -> dict[int, str]:
        site.call("GET", path)  # which brings the tasks up to their builds
        rows = site.call("GET", f"{path}/tasks?status=GQIORDEAF")["rows"]
        return {row[0]: row[3] for row in rows}

    def drive(who: str, **resume: str) -> str:
        linked: list[Any] = []

        def ours() -> bool:
            run = site.repeat("POST", f"{path}/link", driver=who, **resume)["run"]
            linked[:] = [run]
            return run is not None

        site.wait(f"a run of {who}", ours)
        run = f"workflow-runs/{linked[0]['id']}"
        site.repeat("POST", f"{run}/heartbeat", status="R", next_report_increment=600)
        return run

    def queue(run: str, task: int, attempt: int) -> None:
        site.repeat("POST", f"{run}/queue", array_id=made["arrays"][0], tasks=[[task, attempt]], resources={}, level=0)

    def until(run: str, task: int, status: str) -> None:
        site.wait(f"task {task} to be {status}", lambda: statuses()[task] == status)
        site.repeat("POST", f"{run}/sync", since=0)

    def runs(name: str) -> int:
        file = site.directory / f"ran.{numbers[name]}"
        return len(file.read_text().splitlines()) if file.exists() else 0

    run = drive("the first")
    queue(run, good, 1)
    until(run, good, "D")
    for attempt in (1, 2):
        queue(run, bad, attempt)
        until(run, bad, "E")
        site.repeat("POST", f"{run}/settle", changes=[[bad, "G" if attempt == 1 else "F", {}, 0]])
    queue(run, long, 1)
    until(run, long, "R")
    assert site.repeat("POST", f"{path}/link", driver="the second", resume="cold")["run"] is None
    site.repeat("POST", f"{run}/finish", status="T", reason="somebody resumes it")
    run = drive("the second", resume="cold")
    assert statuses() == {good: "D", bad: "G", long: "G"}
    queue(run, long, 1)
    until(run, long, "R")
    site.repeat("POST", f"{run}/heartbeat", status="R", next_report_increment=0.2)
    site.wait("the reaper", lambda: site.call("GET", path)["run"]["status"] == "E")
    site.repeat("POST", f"{path}/cancel", reason="enough")
    site.wait("the end of its builds", lambda: statuses()[long] == "E")
    assert (runs("good"), runs("bad"), runs("long")) == (1, 2, 2)
    site.at_rest()


def damaged(site: KillSite) -> None:
    """The store is not as the controller left it."""
    point = site.at
    build = site.submit("sleep 600")
    site.wait("the build to run", lambda: site.ran(build))
    site.kill()
    if point == "recovery.forgotten.written":
        site.change_disk("UPDATE workers SET state = '{broken'")
        cancel(site, build)
    else:
        site.change_disk(f"UPDATE builds SET request = '{{broken' WHERE id = {build}")
        site.live()
    site.at_rest()


def haunted(site: KillSite) -> None:
    """There is an instance that the store knows nothing of."""
    site.live()
    site.provider.plant(site.controller_id(), site.directory.name, 4000 + site.next_number())
    site.at_rest()
    succeeded(site, site.submit())
    site.at_rest()
