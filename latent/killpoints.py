"""Places in the controller where a test can end it.

A process that is killed dies between two of its statements. What matters is on which side of a write, or of a plugin's call, that
is. Each such side has a name here. `here` does nothing unless a test has armed it; then it may end the process (`os._exit`), and
what the next controller makes of that is what the test is about: see tests/killpoints.

How the names are made: ``before`` is before anything was asked; ``called``, the plugin's hook was called and has not answered;
``answered``, it has, and nobody knows but this process; ``written``, the write is on disk, and nothing was done about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

POINTS: Mapping[str, str] = {
    # One worker: latent.controller.lifecycle
    "lifecycle.event.before": "an event has changed the state, which is not on its way to the disk",
    "lifecycle.event.written": "event and new state are on disk, nothing of what follows is done",
    "lifecycle.actions.done": "all that follows of an event is done, nobody was told",
    "lifecycle.start.before": "start_instance is about to be called",
    "lifecycle.start.called": "start_instance is under way",
    "lifecycle.start.answered": "start_instance has answered",
    "lifecycle.start.failed": "start_instance has failed",
    "lifecycle.call.cancelled": "a start or stop that takes too long was cancelled",
    "lifecycle.handle.answered": "instance_handle has answered",
    "lifecycle.keep.before": "the plugin gives a handle to keep of its own accord",
    "lifecycle.keep.written": "that handle is on disk, the plugin was not told",
    "lifecycle.stop.before": "stop_instance is about to be called",
    "lifecycle.stop.called": "stop_instance is under way",
    "lifecycle.stop.answered": "stop_instance has answered",
    "lifecycle.stop.failed": "stop_instance has failed",
    "lifecycle.condemn.written": "the attempt is condemned, the reaper does not know",
    "lifecycle.check.before": "check_instance is about to be called",
    "lifecycle.check.answered": "check_instance has answered or failed",
    "lifecycle.accept.before": "the worker takes its agent, who is not told yet",
    "lifecycle.backoff.before": "the worker backs off, which is not on its way to the disk",
    "lifecycle.backoff.written": "its back-off is on disk",
    "plain.backoff.before": "a plain worker backs off, which is not on its way to the disk",
    "plain.backoff.written": "its back-off is on disk",
    # Runs: latent.controller.dispatcher
    "dispatcher.offer.before": "the worker has an agent, the lease is not before it",
    "dispatcher.lease.before": "an agent's call for work is about to be answered",
    "dispatcher.activate.before": "an agent has begun a run, which is not on its way to the disk",
    "dispatcher.activate.written": "the run's beginning is on disk, its agent does not know",
    "dispatcher.step.before": "an agent tells of a step",
    "dispatcher.step.written": "what it told is on disk, it does not know",
    "dispatcher.recall.answered": "an agent asks again what it told before",
    "dispatcher.cancel.before": "a run is to be cancelled, its agent was not told",
    "dispatcher.finish.before": "an agent says how a run ended",
    "dispatcher.end.queued": "a run's end is on its way to the disk, its worker knows",
    "dispatcher.end.written": "a run's end is on disk, its agent and who waits do not know",
    # Log files: latent.store.logs
    "logs.append.before": "lines of a log are about to be written",
    "logs.append.written": "they are written, their agent does not know",
    "logs.finish.before": "the log of a run that is over is about to be compressed",
    "logs.finish.packed": "it is compressed, under a name that counts for nothing",
    "logs.finish.replaced": "it is compressed, and its plain form still there",
    # What goes where: latent.controller.scheduler, compatibility, records
    "scheduler.claim.before": "a worker was found for a build, nothing is on its way to the disk",
    "scheduler.claim.written": "the claim is on disk, the worker does not know",
    "scheduler.claim.told": "the worker was told of its build",
    "scheduler.claim.refused": "the store says that the worker is busy",
    "scheduler.cancelled.written": "a build that nobody wants any more, and that could not claim a worker, has ended",
    "compatibility.ask.before": "isCompatibleWithBuild is about to be called",
    "compatibility.ask.answered": "isCompatibleWithBuild has answered",
    "records.dispatch.before": "a run is to be dispatched to a machine",
    "records.dispatch.written": "it is on disk, the planner does not know",
    "records.adopt.written": "records of runs were taken in, who gave them does not know",
    "records.reconcile.written": "runs that other processes have left are ended",
    # Agents: latent.controller.sessions
    "sessions.enrol.before": "an agent shows its token",
    "sessions.enrol.written": "its session is on disk, it does not know",
    "sessions.name.before": "an agent with the shared token says whose it is",
    "sessions.name.written": "whose it is is on disk, it does not know",
    "sessions.attach.before": "an agent says what it can do",
    "sessions.attach.written": "what it can do is on disk, its worker does not know of it",
    "sessions.resume.written": "a session that was taken for lost is open again on disk",
    "sessions.leave.before": "an agent leaves that still has a run",
    "sessions.leave.written": "that it leaves is on disk",
    "sessions.close.before": "a session ends",
    "sessions.close.queued": "its end is on its way to the disk, its worker and its runs are told",
    "sessions.close.written": "its end is on disk",
    # Instances that are to go: latent.controller.reaper
    "reaper.list.before": "list_instances is about to be called for an attempt without a handle",
    "reaper.list.answered": "list_instances has answered",
    "reaper.destroy.before": "destroy_instance is about to be called",
    "reaper.destroy.answered": "destroy_instance has answered",
    "reaper.failed.before": "destroy_instance has failed",
    "reaper.failed.written": "that it failed is on disk",
    "reaper.gone.written": "that the instance is gone is on disk",
    # After a start: latent.controller.recovery
    "recovery.remains.read": "what the controller before left is read",
    "recovery.builds.read": "unfinished builds and live runs are read, nothing is done about them",
    "recovery.builds.back": "builds, runs and sessions are back",
    "recovery.cancelled.written": "a build whose cancellation the crash cut short has ended",
    "recovery.session.written": "a session that never attached is closed, its token can be used again",
    "recovery.unreadable.written": "a run whose build can't be read has ended",
    "recovery.list.before": "list_instances is about to be called",
    "recovery.list.answered": "list_instances has answered",
    "recovery.handle.written": "a handle that was found by listing is on disk",
    "recovery.resume.before": "resume_instance is about to be called",
    "recovery.resume.answered": "resume_instance has answered",
    "recovery.forgotten.written": "attempts that the worker's state says nothing of are condemned",
    "recovery.worker.before": "what exists is known, the worker was not told",
    "recovery.worker.told": "the worker was told, its runs are not settled",
    "recovery.stray.before": "an instance was found that nobody expects",
    "recovery.stray.written": "it is condemned, the reaper does not know",
    # Leaked instances: latent.controller.scan
    "scan.list.before": "list_instances is about to be called",
    "scan.list.answered": "list_instances has answered, nothing is judged",
    # Latent machines: latent.controller.machine, machines
    "machine.setup.before": "a machine's reconfigService is about to be called",
    "machine.setup.answered": "a machine's reconfigService has answered",
    "machine.event.before": "an event has changed a machine's state, which is not on its way to the disk",
    "machine.event.written": "event and new state are on disk, nothing of what follows is done",
    "machine.start.before": "start_machine is about to be called",
    "machine.start.called": "start_machine is under way",
    "machine.start.answered": "start_machine has answered",
    "machine.start.failed": "start_machine has failed",
    "machine.stop.before": "stop_machine is about to be called",
    "machine.stop.called": "stop_machine is under way",
    "machine.stop.answered": "stop_machine has answered or failed",
    "machine.stop.failed": "stop_machine has failed",
    # The whole: latent.controller.service, reconfiguration
    "service.submit.before": "a build is asked for, nothing is on its way to the disk",
    "service.submit.written": "the build is on disk, neither the planner nor who asked knows",
    "service.priority.written": "a build's priority is on disk, the queue does not know",
    "service.cancel.before": "a build is to be cancelled",
    "service.cancel.written": "that it is to be cancelled is on disk, nothing is done about it",
    "service.cancel.ended": "a queued build's end is on disk, who waits does not know",
    "service.setup.before": "reconfigService is about to be called",
    "service.setup.answered": "reconfigService has answered",
    "service.started": "the controller takes builds, its workers come back one by one",
    "service.recovered": "all workers are back",
    "service.prune.before": "the journal is about to be pruned",
    "service.prune.written": "it is pruned",
    "service.stop.before": "the controller is asked to stop",
    "service.stop.drained": "no agent has a build any more",
    "service.stop.stopped": "all instances are stopped",
    "reconfiguration.change.before": "reconfigService is about to be called for a changed declaration",
    "reconfiguration.change.answered": "reconfigService has answered",
    # Workflows: latent.swarm.service, keeping, resuming, reaping
    "workflows.bind.written": "a workflow is on disk, who asked for it does not know",
    "workflows.tasks.written": "tasks are on disk, who gave them does not know",
    "workflows.link.written": "a driver's run is on disk, or that another is to let go; it does not know",
    "workflows.link.before": "all that had to end has ended, the new run is not on its way to the disk",
    "workflows.link.begun": "tasks begin anew and the new run is on disk, its driver does not know",
    "workflows.heartbeat.written": "a heartbeat is on disk, its driver does not know",
    "workflows.queue.before": "the builds of a batch are made up, nothing is on its way to the disk",
    "workflows.queue.written": "they are on disk, neither the planner nor the driver knows",
    "workflows.settle.written": "what a driver has decided is on disk, it does not know",
    "workflows.follow.written": "the tasks are brought up to their builds, who asked does not know",
    "workflows.finish.written": "a run has ended on disk, none of its builds is ended",
    "workflows.cancel.written": "a workflow is halted on disk, none of its builds is ended",
    "workflows.end.before": "builds of a workflow are about to be cancelled",
    "workflows.reap.before": "a driver is overdue, nothing is on its way to the disk",
    "workflows.reap.written": "its run has ended on disk",
    # Every write: latent.store.writer
    "writer.queued": "a write waits for its batch",
    "writer.begun": "a transaction is open, none of its writes is made",
    "writer.uncommitted": "all writes of a transaction are made, it is not committed",
    "writer.committed": "a transaction is on disk, the reactor's thread does not know",
    "writer.answered": "a batch is answered",
}
"""Each name, with what has happened by then and what has not."""

_armed: Callable[[str], None] | None = None


def arm(what: Callable[[str], None] | None) -> None:
    """For tests: have ``what`` called with the name of each point that is come to, in whichever thread. None: nothing again."""
    global _armed
    _armed = what


def here(point: str) -> None:
    """The program is at this point of `POINTS`."""
    if _armed is not None:
        _armed(point)


def passing(point: str) -> Callable[[T], T]:
    """A Deferred's callback that is at this point and hands on what it is given."""

    def passed(result: T) -> T:
        here(point)
        return result

    return passed
