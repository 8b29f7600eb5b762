"""All latent machines of a controller: which there are, which worker lives on which, and how they are seen from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from latent.controller.asking import ask
from latent.controller.clock import Clock
from latent.controller.failures import explained
from latent.controller.lifecycle import Lifecycle
from latent.controller.machine import MachineShell
from latent.controller.roster import Roster
from latent.core import events as ev
from latent.core import machines as core
from latent.core.machines import MachineState, Started, Stopped, Use
from latent.core.states import (
    Insubstantiating,
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    ShutDown,
    Substantiated,
    Substantiating,
    SubstantiatingStarting,
)
from latent.errors import StoreError
from latent.killpoints import here
from latent.model import JSON, Attempt
from latent.store import machines as rows
from latent.store.database import Store
from latent.worker.machine import AbstractLatentMachine, Machine

log = Logger()

SET_UP_TIMEOUT = 60.0
"""Seconds that a machine's reconfigService has."""


@frozen(kw_only=True)
class MachineStatus:
    """A latent machine as it is now. ``since``: when the state began, in POSIX seconds. ``workers``: those that live on it.

    ``error``: why its last stop may not have taken effect, or it can't be used; ``retry_at``: when the stop is tried again.
    """

    name: str
    kind: str
    state: str
    since: float
    starts: int
    workers: list[str]
    error: str = ""
    retry_at: float | None = None
    idle_until: float | None = None


class Machines:
    def __init__(self, store: Store, clock: Clock, roster: Roster, *, reactor: Any, state_dir: Path) -> None:
        self._store = store
        self._clock = clock
        self._roster = roster
        self._reactor = reactor
        self._state_dir = state_dir
        self._shells: dict[str, MachineShell] = {}
        self._homes: dict[str, str] = {}

    def __iter__(self) -> Iterator[MachineShell]:
        return iter(list(self._shells.values()))

    def get(self, name: str) -> MachineShell | None:
        return self._shells.get(name)

    # --- their life ----------------------------------------------------------------------------------------------------------

    async def start(self, declared: Mapping[str, Machine]) -> list[str]:
        """Take up what the controller before this one left. What could not be, in words.

        The workers must be in the roster, in the states that they were left in.
        """
        states, damaged = await self._store.read(rows.load_all)
        problems = [f"machine {name}: its state can't be read ({why}); it counts as stopped" for name, why in damaged.items()]
        for machine in declared.values():
            if isinstance(machine, AbstractLatentMachine):
                await self._add(machine, states.get(machine.name), problems)
        for name, document in states.items():
            if name not in self._shells and _may_be_up(document):
                problems.append(
                    f"machine {name} is no longer declared as it was, but may be up: declare it again so that it is stopped, "
                    f"or see to it by hand"
                )
        for shell in self:
            shell.resumed()
        return problems

    async def _add(self, machine: AbstractLatentMachine, document: JSON | None, problems: list[str]) -> MachineShell:
        state: MachineState = Stopped(policy=machine.policy())
        if document is not None:
            try:
                state = rows.load(document, machine.policy())
            except StoreError as error:
                problems.append(f"machine {machine.name}: its state can't be read ({error}); it counts as stopped")
        machine.reactor, machine.state_dir = self._reactor, self._state_dir
        shell = self._shells[machine.name] = MachineShell(
            machine,
            state,
            store=self._store,
            clock=self._clock,
            use=partial(self._use, machine.name),
            tell=self._tell,
            changed=self._gone,
        )
        await self._set_up(shell, machine, machine)
        return shell

    async def _set_up(self, shell: MachineShell, plugin: AbstractLatentMachine, declared: AbstractLatentMachine) -> None:
        args, kwargs = declared.arguments
        here("machine.setup.before")
        try:
            await ask(self._clock, SET_UP_TIMEOUT, plugin.reconfigService, *args, **kwargs)
            here("machine.setup.answered")
        except Exception as error:
            log.failure("machine {machine}: reconfigService failed", machine=shell.name)
            shell.unusable = f"reconfigService failed: {explained(error)}"
        else:
            shell.unusable = ""
            plugin.adopt_declaration(declared)

    async def declare(self, declared: Mapping[str, Machine]) -> None:
        """Take up what is new or another in ``c["machines"]``, before the workers are told of what is new there."""
        for name, machine in declared.items():
            if not isinstance(machine, AbstractLatentMachine):
                continue
            if (shell := self._shells.get(name)) is not None:
                await self._change(shell, machine)
            else:
                states, _ = await self._store.read(rows.load_all)
                (await self._add(machine, states.get(name), [])).resumed()

    async def _change(self, shell: MachineShell, machine: AbstractLatentMachine) -> None:
        if type(machine) is not type(shell.plugin):
            machine.reactor, machine.state_dir = self._reactor, self._state_dir
            await self._set_up(shell, machine, machine)
            shell.successor = machine
        elif machine.declaration != shell.plugin.declaration or shell.unusable:
            await self._set_up(shell, shell.plugin, machine)
        elif not shell.removed:
            return
        again, shell.removed = shell.removed, False
        shell.apply(core.Reconfigured(machine.policy(), again))

    def retire(self, declared: Mapping[str, Machine]) -> None:
        """Stop what is no longer declared: no worker names it now, and the last instance that was started there is waited for."""
        for shell in self:
            if not isinstance(declared.get(shell.name), AbstractLatentMachine) and not shell.removed:
                shell.removed = True
                shell.apply(core.Shutdown())
                self._gone(shell)

    def _gone(self, shell: MachineShell) -> None:
        """One that is no longer declared may have been stopped. A stop that failed is tried again, by the same shell."""
        if shell.removed and isinstance(shell.state, Stopped) and not shell.state.error:
            shell.stop()
            self._shells.pop(shell.name, None)

    async def shut_down(self, fast: bool) -> None:
        """Every machine is stopped, after its workers. Answers when that is done, or has failed: then the next one tries."""
        await DeferredList([shell.shut_down(fast) for shell in self], consumeErrors=True)
        self.stop()

    def stop(self) -> None:
        """Nothing more is done; what is left is taken up by the next controller."""
        for shell in self:
            shell.stop()

    def hurry(self) -> None:
        """Somebody is out of patience with a `shut_down` that waits."""
        for shell in self:
            shell.apply(core.Shutdown(fast=True))

    # --- their workers -------------------------------------------------------------------------------------------------------

    def wanted(self, attempt: Attempt) -> None:
        """The attempt can't start before its worker's machine is up; its worker is told what becomes of that."""
        post = self._roster.get(attempt.worker)
        name = post.plugin.machine_name if post is not None else None
        shell = self._shells.get(name or "")
        if shell is None or shell.removed:
            why = f"its machine {name!r} is not declared in c['machines']"
            failure = ev.Failure(ev.Fault.INFRASTRUCTURE, why, "LatentWorkerConfigurationError")
            self._tell(attempt.worker, ev.MachineFailed(attempt.number, failure))
            return
        self._homes[attempt.worker] = shell.name
        shell.apply(core.Wanted(attempt))

    def worker_changed(self, worker: str) -> None:
        """Its state, or what it builds, is another."""
        shell = self._shells.get(self.home(worker) or "")
        if shell is None:
            return
        post = self._roster.get(worker)
        if not isinstance(post, Lifecycle) or isinstance(post.state, NotSubstantiated | ShutDown):
            self._homes.pop(worker, None)
        shell.apply(core.Used())

    def home(self, worker: str) -> str | None:
        """The machine that the worker's instance is on, or is to be on: while there is one, that which it was started for."""
        if (name := self._homes.get(worker)) is not None:
            return name
        post = self._roster.get(worker)
        return None if post is None else post.plugin.machine_name

    def workers_of(self, machine: str) -> list[Lifecycle]:
        return [post for post in self._roster.latent() if self.home(post.name) == machine]

    def _use(self, machine: str) -> Use:
        posts = self.workers_of(machine)
        return Use(
            waiting=tuple(post.attempt for post in posts if isinstance(post.state, Substantiating)),
            users=frozenset(post.name for post in posts if _lives(post)),
            busy=frozenset(post.name for post in posts if _builds(post)),
        )

    def _tell(self, worker: str, event: ev.Event) -> None:
        post = self._roster.get(worker)
        if isinstance(post, Lifecycle):
            post.apply(event)

    # --- what can be seen of them --------------------------------------------------------------------------------------------

    def statuses(self) -> list[MachineStatus]:
        return [self._status(shell) for shell in self]

    def _status(self, shell: MachineShell) -> MachineStatus:
        state = shell.state
        return MachineStatus(
            name=shell.name,
            kind=type(shell.plugin).__name__,
            state=shell.state_name,
            since=shell.since,
            starts=state.attempt,
            workers=[post.name for post in self.workers_of(shell.name)],
            error=shell.unusable or (state.error if isinstance(state, Stopped) else ""),
            retry_at=state.retry_deadline if isinstance(state, Stopped) else None,
            idle_until=state.idle_deadline if isinstance(state, Started) else None,
        )

    def counts(self) -> dict[tuple[tuple[str, str], ...], float]:
        """How many machines are in each state, for Prometheus."""
        return {(("state", name),): float(sum(1 for shell in self if shell.state_name == name)) for name in core.NAMES.values()}

    def where(self, worker: str) -> str:
        """Of a worker that waits for its machine, how that is; else empty."""
        post = self._roster.get(worker)
        shell = self._shells.get(self.home(worker) or "")
        if shell is None or not isinstance(post, Lifecycle) or not isinstance(post.state, Substantiating):
            return ""
        return f"its machine {shell.name} is {shell.state_name}"


def _lives(post: Lifecycle) -> bool:
    """Whether the worker has an instance, or is starting or stopping one."""
    return isinstance(post.state, SubstantiatingStarting | Substantiated | Insubstantiating | InsubstantiatingSubstantiating)


def _builds(post: Lifecycle) -> bool:
    match post.state:
        case Substantiated(builds=builds):
            return bool(builds)
        case SubstantiatingStarting() | InsubstantiatingSubstantiating():
            return True
        case _:
            return False


def _may_be_up(document: JSON) -> bool:
    return isinstance(document, dict) and (document.get("state") != "STOPPED" or bool(document.get("error")))
