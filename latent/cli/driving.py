"""``latent workflow run``: a driver in this process, from FILE.py to the end of its workflow, and what Ctrl-C does to it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

from latent.cli import words
from latent.cli.exits import CliError, ExitCode, config_error
from latent.cli.place import Place
from latent.cli.reactor import install
from latent.cli.screen import Screen
from latent.cli.shared import call

if TYPE_CHECKING:
    from latent.swarm.http import Address
    from latent.swarm.listener import Summary
    from latent.swarm.workflow import Workflow

ASKED = 10.0
"""Seconds within which a second Ctrl-C is an answer to what the first one asked."""

AWAY = 5.0
"""Seconds without an answer after which the controller counts as away."""

SHOWN = 10
"""Failed tasks that are told in the end."""


@frozen(kw_only=True)
class Plan:
    """What the command line asks for. ``file`` or ``resume`` is given; ``hot``: how it is resumed."""

    file: Path | None
    resume: int | None
    hot: bool
    name: str | None
    timeout: float | None
    heartbeat: float
    as_json: bool


def carry_out(place: Place, plan: Plan) -> None:
    """Drive the workflow to its end. Leaves with the exit code for that; raises CliError when it can't be driven."""
    reactor = install()  # before anything can import another
    workflow, name = _found(place, plan)
    summary = _Driver(place, plan, reactor, workflow, name).run()
    _tell(place, plan, name, summary)
    code = _code(plan, summary)
    if code is not ExitCode.OK:
        raise click.exceptions.Exit(int(code))


def _found(place: Place, plan: Plan) -> tuple[Workflow | int, str]:
    """The workflow, or the id of the one to go on with, and its name. Raises CliError, also when no controller answers."""
    from latent.cli.workflow_file import load

    if plan.resume is None:
        assert plan.file is not None
        workflow, definition = load(plan.file, plan.name)
        call(place, "GET", "/workflows", params={"limit": 1})
        return workflow, definition.name
    doc = call(place, "GET", f"/workflows/{plan.resume}")
    if plan.file is not None:
        _, definition = load(plan.file, doc["name"])
        if definition.digest != doc["digest"]:
            raise CliError(
                ExitCode.REFUSED,
                f"{plan.file} is not what workflow {plan.resume} was made from: it has changed since, or is another",
                f"{_command(place, plan, plan.resume, file=False)} goes on with what was stored; "
                f"without --resume, {plan.file} begins a new workflow",
            )
    return plan.resume, str(doc["name"])


class _Driver:
    """One driver: its start, its signals, its end."""

    def __init__(self, place: Place, plan: Plan, reactor: Any, workflow: Workflow | int, name: str) -> None:
        # Here, and not at the top: what these import must find the reactor installed.
        from latent.cli.bars import display
        from latent.cli.watching import Watch
        from latent.controller.clock import WallClock
        from latent.swarm.control import Control

        self._place = place
        self._plan = plan
        self._reactor = reactor
        self._workflow = workflow
        self._clock = WallClock(reactor)
        self._control = Control()
        self._watch = Watch(display(sys.stderr), self._clock, name, plan.resume)
        self._outcome: Any = None
        self._asked_at: float | None = None
        self._over = False

    def run(self) -> Summary:
        """Run the reactor until the driver has ended. Raises CliError."""
        self._reactor.callWhenRunning(self._start)
        self._reactor.run()
        return self._judged(self._outcome)

    def _start(self) -> None:
        from twisted.internet.defer import Deferred

        for number, handler in (
            (signal.SIGINT, self._interrupted),
            (signal.SIGTERM, self._told_to_go),
            (signal.SIGHUP, self._told_to_go),
        ):
            # Not the event loop's own: that would take the wake-up pipe from Twisted.
            signal.signal(number, self._from_signal(handler))
        self._watch.start()
        Deferred.fromCoroutine(self._drive()).addBoth(self._end)

    async def _drive(self) -> Summary:
        from latent.swarm.drive import drive
        from latent.swarm.http import HttpRequester
        from latent.swarm.values import Resume

        resume = None if self._plan.resume is None else Resume.HOT if self._plan.hot else Resume.COLD
        requester = HttpRequester(self._reactor, lambda: _address(self._place))

        def linked() -> None:
            # From here on the driver bears with a controller that is away, and says so: calls need not.
            requester.patience = AWAY

        self._watch.when_linked(linked)
        try:
            return await drive(
                requester,
                self._workflow,
                clock=self._clock,
                resume=resume,
                listener=self._watch,
                control=self._control,
                timeout=self._plan.timeout,
                heartbeat_interval=self._plan.heartbeat,
            )
        finally:
            await requester.close()

    def _end(self, outcome: Any) -> None:
        if self._over:
            return
        self._over = True
        self._outcome = outcome
        self._watch.close()
        self._reactor.stop()

    def _judged(self, outcome: Any) -> Summary:
        from twisted.python.failure import Failure

        from latent.errors import (
            ConfigError,
            ControllerAway,
            ControllerStopping,
            EmptyWorkflowError,
            LatentError,
            NotFound,
            NotResumable,
        )

        if outcome is None:
            raise KeyboardInterrupt
        if not isinstance(outcome, Failure):
            summary: Summary = outcome
            return summary
        error = outcome.value
        if isinstance(error, ConfigError):
            raise config_error(self._plan.file or self._place.config, error.errors)
        code = ExitCode.REFUSED
        if isinstance(error, ControllerAway | ControllerStopping):
            code = ExitCode.NOT_RUNNING
        elif isinstance(error, NotFound | EmptyWorkflowError):
            code = ExitCode.NOT_FOUND
        elif not isinstance(error, LatentError):
            outcome.raiseException()
        message, _, remedy = str(error).partition("; ")
        number = self._watch.workflow_id
        if isinstance(error, NotResumable) and self._plan.resume is None and number is not None:
            remedy = f"{_command(self._place, self._plan, number)} goes on with it, with --cold instead it ends what still runs"
            if "nothing to resume" in message:
                remedy = "with --name NAME it is another workflow, which runs once more"
        raise CliError(code, message, remedy)

    # --- signals -------------------------------------------------------------------------------------------------------------

    def _from_signal(self, handler: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
        return lambda number, frame: self._reactor.callFromThread(handler)

    def _interrupted(self) -> None:
        now = self._clock.seconds()
        if self._control.detaching:
            self._abandon()
        elif self._watch.run is None or (self._asked_at is not None and now - self._asked_at < ASKED):
            self._detach()
        else:
            self._asked_at = now
            self._watch.say(
                f"Ctrl-C again within {ASKED:g} s leaves the workflow: what runs goes on, nothing new is begun",
                "bold yellow",
            )

    def _told_to_go(self) -> None:
        if self._control.detaching:
            self._abandon()
        else:
            self._detach()

    def _detach(self) -> None:
        self._watch.say("leaving the workflow (Ctrl-C again: without telling the controller)", "yellow")
        self._control.detach()

    def _abandon(self) -> None:
        """Without a word to the controller, which notices by itself."""
        from latent.swarm.listener import Summary
        from latent.swarm.statuses import RunStatus

        run, number = self._watch.run, self._watch.workflow_id
        if run is None or number is None:
            self._end(None)
            return
        self._end(
            Summary(
                workflow_id=number,
                run_id=run.id,
                status=RunStatus.TERMINATED,
                reason="the controller was not told, and will notice",
                counts={},
                detached=True,
            )
        )


def _address(place: Place) -> Address | None:
    """Where the controller of the place is now."""
    from latent.swarm.http import Address
    from latent.web.address import read_address, read_token

    if place.url is not None:
        return Address(url=place.url, token=place.token or "")
    found, token = read_address(place.state / "api.json"), place.token or read_token(place.state / "token")
    return None if found is None or token is None else Address(url="http://latent", token=token, socket=found.socket)


def _command(place: Place, plan: Plan, number: int, *, file: bool = True, hot: bool = True) -> str:
    named = [str(plan.file)] if file and plan.file is not None else []
    return place.command("workflow", "run", *named, "--resume", str(number), "--hot" if hot else "--cold")


def _code(plan: Plan, summary: Summary) -> ExitCode:
    from latent.swarm.statuses import RunStatus

    if summary.detached:
        return ExitCode.INTERRUPTED
    if summary.status is RunStatus.DONE:
        return ExitCode.OK
    if summary.status in (RunStatus.STOPPED, RunStatus.TERMINATED):
        return ExitCode.CANCELLED
    if plan.timeout is not None and summary.seconds >= plan.timeout:
        return ExitCode.TIMEOUT
    return ExitCode.FAILURE


def _tell(place: Place, plan: Plan, name: str, summary: Summary) -> None:
    """How it ended, and what to do about it: on standard output, as the command's answer."""
    from latent.swarm.looks import by_look, told
    from latent.swarm.statuses import RunStatus

    screen = Screen()
    if plan.as_json:
        screen.document(_document(summary))
        return
    number = summary.workflow_id
    who = f"workflow {number} ({name})"
    if summary.run_id is None:
        screen.line((f"{who}: nothing was begun", "yellow") if number else ("nothing was stored", "yellow"))
        return
    counts = told(by_look(summary.counts))
    took = f" after {words.duration(summary.seconds)}" if summary.seconds else ""
    if summary.detached:
        screen.line((f"{who} is left", "yellow"), f": {summary.reason}")
        screen.line("go on with it:  ", (_command(place, plan, number), "bold"))
        screen.line("look at it:     ", place.command("workflow", "status", str(number)))
        screen.line("end it:         ", place.command("workflow", "cancel", str(number)))
        return
    if summary.status is RunStatus.DONE:
        screen.line((f"{who} is done", "green"), f"{took}: {counts}")
        return
    how = {RunStatus.STOPPED: "is cancelled", RunStatus.TERMINATED: "has another driver"}.get(summary.status, "failed")
    screen.line((f"{who} {how}", "red" if how == "failed" else "yellow"), f"{took}: {counts}")
    if summary.reason and not (summary.failed and "failed" in summary.reason):  # which are told one by one
        screen.line(f"  {summary.reason}")
    for one in summary.failed[:SHOWN]:
        build = f"build {one.build_id}, " if one.build_id is not None else ""
        screen.line(
            ("  ✗ ", "red"),
            (one.label, "bold"),
            f" ({build}{'1 try' if one.attempts == 1 else f'{one.attempts} tries'}): {one.reason}",
        )
    if len(summary.failed) > SHOWN:
        screen.line(f"  more: {place.command('workflow', 'status', str(number))}")
    if how != "has another driver":
        screen.line("go on with what is not done:  ", (_command(place, plan, number, hot=False), "bold"))


def _document(summary: Summary) -> dict[str, Any]:
    return {
        "workflow": summary.workflow_id,
        "run": summary.run_id,
        "status": summary.status.value,
        "reason": summary.reason,
        "detached": summary.detached,
        "seconds": summary.seconds,
        "counts": {status.value: number for status, number in summary.counts.items()},
        "failed": [
            {"task": one.label, "attempts": one.attempts, "build": one.build_id, "reason": one.reason} for one in summary.failed
        ],
    }
