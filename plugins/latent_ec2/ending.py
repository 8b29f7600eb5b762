"""Ends and restarts of instances, asked of EC2 for many at once."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent_ec2.batches import Batch
from latent_ec2.calls import Answer, Calls
from latent_ec2.faults import NoSuchInstance, WrongState
from latent_ec2.instances import GONE, Instance
from latent_ec2.poll import Poller

log = Logger()

How = Literal["terminate", "stop", "hibernate"]

AGAIN = 5.0
"""Seconds before EC2 is asked again for what it could not do in the instance's state, or with one that it does not know yet."""

TRIES = 60
"""How often it is asked."""

LATE = (0.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds before each try to terminate an instance that nobody waits for. After that it is the reaper's, which finds it by its
tags."""


class Endings:
    def __init__(self, calls: Calls, poller: Poller, clock: Any) -> None:
        self._calls = calls
        self._poller = poller
        self._clock = clock
        self._batches = {
            "terminate": self._batch("terminate_instances", "TerminatingInstances"),
            "stop": self._batch("stop_instances", "StoppingInstances"),
            "hibernate": self._batch("stop_instances", "StoppingInstances", Hibernate=True),
            "start": self._batch("start_instances", "StartingInstances"),
        }
        self._running: dict[tuple[str, str], list[Deferred[None]]] = {}

    def end(self, instance_id: str, how: How, soon: bool) -> Deferred[None]:
        """One end for all who want the same."""
        key = (instance_id, how)
        waiter: Deferred[None] = Deferred()
        waiters = self._running.setdefault(key, [])
        waiters.append(waiter)
        if len(waiters) == 1:
            self._end(key, self._terminated(instance_id, soon) if how == "terminate" else self._stopped(instance_id, how, soon))
        elif soon:
            self._batches[how].hurry()
        return waiter

    def late(self, instance_id: str) -> None:
        """Terminate one that nobody wants, and of which nobody is told."""
        Deferred.fromCoroutine(self._late(instance_id)).addErrback(
            lambda failure: log.failure("{one}: it came late and could not be terminated", failure, one=instance_id)
        )

    async def restart(self, instance_id: str) -> Instance:
        state = await self._batches["start"].add(instance_id)
        found = self._poller.known(instance_id)
        if found is not None and state:
            return self._poller.learn(instance_id, state)
        seen = await self._poller.look(instance_id)
        if seen is None:
            raise NoSuchInstance(f"{self._calls.account.label}: {instance_id} was started, but is not there", (instance_id,))
        return seen

    def _end(self, key: tuple[str, str], ending: Coroutine[Any, Any, None]) -> None:
        def ended(result: Failure | None) -> None:
            for waiter in self._running.pop(key):
                if not waiter.called:
                    waiter.errback(result) if isinstance(result, Failure) else waiter.callback(None)

        Deferred.fromCoroutine(ending).addBoth(ended)

    async def _terminated(self, instance_id: str, soon: bool) -> None:
        for _ in range(TRIES):
            try:
                state = await self._batches["terminate"].add(instance_id, soon=soon)
            except NoSuchInstance:
                if not self._poller.young(instance_id):
                    self._poller.vanished(instance_id)
                    return
                await self._calls.pause(AGAIN)
                continue
            if state:
                self._poller.learn(instance_id, state)
            if state not in GONE:
                await self._poller.until(instance_id, GONE)
            return
        raise NoSuchInstance(f"{self._calls.account.label}: {instance_id} was launched, but EC2 does not know it", (instance_id,))

    async def _stopped(self, instance_id: str, how: str, soon: bool) -> None:
        for tries in range(TRIES):
            try:
                state = await self._batches[how].add(instance_id, soon=soon)
            except NoSuchInstance:
                if not self._poller.young(instance_id):
                    self._poller.vanished(instance_id)
                    return
            except WrongState:
                found = await self._poller.look(instance_id)
                if found is None or found.gone or found.state == "stopped":
                    return
                if tries == TRIES - 1:
                    raise
            else:
                if state:
                    self._poller.learn(instance_id, state)
                if state != "stopped":
                    await self._poller.until(instance_id, {"stopped", *GONE})
                return
            await self._calls.pause(AGAIN)

    async def _late(self, instance_id: str) -> None:
        for pause in LATE:
            if pause:
                await self._calls.pause(pause)
            try:
                await self.end(instance_id, "terminate", False)
            except Exception as error:
                log.warn("{one} came late and could not be terminated yet: {error}", one=instance_id, error=error)
            else:
                log.info("{one} came late, nobody wanted it any more, and it was terminated", one=instance_id)
                return

    def _batch(self, operation: str, key: str, **more: Any) -> Batch[str, str]:
        """Answers each instance's state, as EC2 says it at once."""

        def parameters(ids: list[str]) -> Answer:
            return {"InstanceIds": ids, **more}

        async def ask(ids: list[str]) -> Mapping[str, str | Exception]:
            answers, faults = await self._calls.together(operation, ids, parameters)
            said = {
                str(one["InstanceId"]): str((one.get("CurrentState") or {}).get("Name", ""))
                for answer in answers
                for one in answer.get(key, ())
            }
            return {one: faults.get(one) or said.get(one, "") for one in ids}

        # A start is waited for, an end is not.
        return Batch(self._clock, ask, paced=operation != "start_instances")
