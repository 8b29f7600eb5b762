"""One attempt: from the choices there are to an instance that runs, and to its end.

Note [What is kept when]
    Before RunInstances is called, the launch's document is on disk in the handle of every member, so that after a crash the same
    call is repeated, or what it made is found. Before a stopped instance is started, its id is. What was made is in the handle
    as soon as it is known, and on disk when the start is answered; until then the document finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail

from latent.errors import (
    ConfigError,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
)
from latent.model import JSON, Attempt
from latent.worker import Enrolment
from latent_ec2 import extras, parking
from latent_ec2.choices import Choice, choices
from latent_ec2.console import last_lines
from latent_ec2.declared import DeclaredWorker
from latent_ec2.faults import next_choice
from latent_ec2.handle import Handle
from latent_ec2.instances import ATTEMPT, CONTROLLER, WORKER, Instance
from latent_ec2.launches import Wish
from latent_ec2.recipe import Recipe
from latent_ec2.request import console_name, request, shape

RECLAIMED = "SpotInstanceTermination"
NO_ROOM = ("InsufficientInstanceCapacity", RECLAIMED, "SpotInstanceShutdown")
"""In a state's reason: EC2 had, or has, no room for the instance."""


class CurrentAttempt:
    """``handle``: what finds the instance, as far as it has come. ``recipe`` is None where nothing is to be started."""

    def __init__(
        self,
        worker: DeclaredWorker,
        whose: Enrolment,
        recipe: Recipe | None,
        variables: Mapping[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self.handle: Handle | None = None
        self._worker = worker
        self._whose = whose
        self._recipe = recipe
        self._variables = variables
        self._tell = tell
        self._seen: Instance | None = None
        self._watched: str | None = None
        self._waiting: list[Deferred[None]] = []
        self._over = False
        self._notes: list[str] = []

    # --- starting ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """An instance that runs, with all that goes with it."""
        self._check_user_data()
        instance = await self._again() or await self._parked() or await self._launched()
        recipe = self._wanted
        if recipe.volumes:
            await extras.attach_volumes(self._worker.region, self._worker.reactor, instance, recipe.volumes)
        if recipe.elastic_ip is not None:
            owner = {CONTROLLER: self._whose.controller_id, WORKER: self._whose.attempt.worker, ATTEMPT: self._number}
            address = await extras.associate(self._worker.region, instance, recipe.elastic_ip, owner)
            self._note(f"it has the address {address}")
        assert self.handle is not None
        self.handle = evolve(self.handle, complete=True)

    def detail(self) -> list[str]:
        """Short strings that tell what was started."""
        seen = self._seen
        assert seen is not None
        return [part for part in (seen.id, seen.type, seen.zone, seen.market, seen.image) if part] + self._notes

    async def _again(self) -> Instance | None:
        """What a start that was cut short by a crash was about; None if that comes to nothing."""
        kept = self.handle
        if kept is None:
            return None
        region = self._worker.region_of(kept)
        if region is not self._worker.region:  # what was begun there is of no use any more
            self.handle = None
            await (region.end(kept.instance) if kept.instance is not None else region.destroy(kept.document))
            return None
        if kept.woken and kept.instance is not None:
            return await self._woken(kept.instance, kept.made_from)
        choice = kept.choice
        if kept.document is None or choice is None:
            return None
        wish = self._wish(choice, kept.document["request"])
        try:
            return await self._running(self._worker.region.relaunch(kept.document, wish), choice)
        except LatentWorkerFailedToSubstantiate as error:
            self._passed_by(choice, error)
            return None

    async def _parked(self) -> Instance | None:
        """The worker's stopped instance, started again; None if there is none, or it does not start."""
        if self._worker.stop_mode == "terminate":
            return None
        fingerprint = self._wanted.fingerprint
        found = await self._worker.garage.take(self._worker.region, self._whose.controller_id, fingerprint)
        return None if found is None else await self._woken(found, fingerprint)

    async def _woken(self, found: str, fingerprint: str) -> Instance | None:
        region = self._worker.region
        choice = Choice(None, None, None, "on-demand")
        await self._keep(evolve(self._handle(), instance=found, made_from=fingerprint, woken=True))
        try:
            seen = await region.look(found)
            if seen is None or seen.gone:
                return None
            if seen.state in parking.ASLEEP:
                text = self._worker.user_data_of(self._wanted, choice, self._variables)(self._rows([self._whose.attempt]))
                await parking.wake(region, found, self._whose.attempt, text, self._worker.expiry)
            self._watch(found)
            instance = await self._until_running(found, None)
        except LatentWorkerFailedToSubstantiate as error:
            self._tell(f"{found}, which was stopped, can't be started again: {error}")
            self._unwatch()
            await region.end(found)
            return None
        self._note("it was stopped, and is started again")
        return instance

    async def _launched(self) -> Instance:
        """From the first choice that has room. Raises the last error when none has."""
        worker, shelf, recipe = self._worker, self._worker.shelf, self._wanted
        image = await self._image()
        skipped, last = [], None
        for choice in choices(recipe, worker.spot_fallback):
            if not shelf.memory.worth_asking(choice, shelf.now()):
                skipped.append(shelf.memory.why(choice, shelf.now()))
                continue
            try:
                asked = request(
                    recipe,
                    choice,
                    image,
                    price=await shelf.price(recipe, choice),
                    stop_mode=worker.stop_mode,
                    metadata=worker.metadata_options,
                    name=worker.name if self._alone else console_name(worker.name),
                )
                return await self._running(worker.region.launch(self._wish(choice, asked)), choice)
            except LatentWorkerFailedToSubstantiate as error:
                self._passed_by(choice, error)
                skipped.append(f"{choice}: {error}")
                last = error
        kind = LatentWorkerQuotaError if isinstance(last, LatentWorkerQuotaError) else LatentWorkerCapacityError
        raise kind(f"no choice has room: {'; '.join(skipped)}") from last

    async def _image(self) -> str | None:
        try:
            return await self._worker.shelf.image(self._wanted)
        except LatentWorkerConfigurationError as error:
            raise self._worker.whose_fault(error, "valid_ami_owners", "valid_ami_location_regex") from error

    def _passed_by(self, choice: Choice, error: LatentWorkerFailedToSubstantiate) -> None:
        """Remember that there is no room; an error that no other choice would mend is raised."""
        if not next_choice(error):
            raise self._worker.whose_fault(error) if isinstance(error, LatentWorkerConfigurationError) else error
        shelf = self._worker.shelf
        shelf.memory.had_no_room(choice, _brief(error), shelf.now())
        self._tell(f"{choice}: {error}")

    async def _running(self, launching: Deferred[Instance], choice: Choice) -> Instance:
        """The launch's instance, once it runs. One that EC2 takes back, or never gives, is a choice that has no room."""
        instance = await launching
        assert self.handle is not None
        self.handle = evolve(self.handle, instance=instance.id)
        self._watch(instance.id)
        try:
            return await self._until_running(instance.id, self._worker.spot_timeout if choice.market == "spot" else None)
        except TimeoutError:
            self._unwatch()
            await self._worker.region.end(instance.id)
            raise LatentWorkerCapacityError(
                f"{instance.id} of the spot market was still pending after {self._worker.spot_timeout:g} s, and was given up"
            ) from None

    async def _until_running(self, instance_id: str, seconds: float | None) -> Instance:
        clock = self._worker.reactor
        deadline = None if seconds is None else clock.seconds() + seconds
        while True:
            seen = self._worker.region.known(instance_id) if self._watched else None
            self._seen = seen or self._seen
            if seen is not None and seen.state == "running":
                return seen
            if (seen is not None and (seen.gone or seen.state in parking.ASLEEP)) or not self._watched:
                why = await self._told(instance_id)
                no_room = seen is not None and any(reason in seen.reason[0] for reason in NO_ROOM)
                raise (LatentWorkerCapacityError if no_room else LatentWorkerFailedToSubstantiate)(why)
            change: Deferred[None] = Deferred()
            self._waiting.append(change)
            if deadline is not None:
                change.addTimeout(max(0.0, deadline - clock.seconds()), clock)
            await change

    # --- what a launch is asked for -------------------------------------------------------------------------------------------

    @property
    def _wanted(self) -> Recipe:
        assert self._recipe is not None
        return self._recipe

    @property
    def _number(self) -> str:
        return str(self._whose.attempt.number)

    @property
    def _alone(self) -> bool:
        """Whether it shares no launch: its user data are its own, and may be changed, or name it alone."""
        return self._worker.enrolment_as is None or self._worker.stop_mode != "terminate" or self._whose.tokens is None

    def _check_user_data(self) -> None:
        """Raises what the one who wrote it is to be told, before anybody is asked for anything."""
        data = self._worker.user_data_of(self._wanted, choices(self._wanted, False)[0], self._variables)
        try:
            problem = data.problem(self._rows([self._whose.attempt]))
        except ConfigError as error:
            problem = str(error)
        if problem:
            raise self._worker.whose_fault(LatentWorkerConfigurationError(f"worker {self._worker.name}: {problem}"), "user_data")

    def _wish(self, choice: Choice, asked: Mapping[str, Any]) -> Wish:
        data = self._worker.user_data_of(self._wanted, choice, self._variables)
        alone = str(self._whose.attempt) if self._alone else ""

        def keep(document: JSON) -> Deferred[None]:
            fingerprint = self._wanted.fingerprint
            return self._keep(evolve(self._handle(), document=document, choice=choice, made_from=fingerprint))

        return Wish(
            member=self._whose.attempt,
            controller_id=self._whose.controller_id,
            request=asked,
            user_data=lambda members: data(self._rows(members)),
            shape=shape(asked, data.shape, self._worker.expiry, alone),
            keep=keep,
            expiry=self._worker.expiry,
        )

    def _rows(self, members: Sequence[Attempt]) -> list[tuple[str, int, str]]:
        whose = self._whose
        tokens = whose.tokens or {whose.attempt: whose.agent_token}.__getitem__
        return [(member.worker, member.number, tokens(member)) for member in members]

    def _handle(self) -> Handle:
        return Handle(
            region=self._worker.account.region_name,
            endpoint=self._worker.account.endpoint_url,
            controller=self._whose.controller_id,
            attempt=str(self._whose.attempt),
            address=self._wanted.elastic_ip is True,
        )

    def _keep(self, handle: Handle) -> Deferred[None]:
        if self._over or self._worker.enrolment is None or self._worker.enrolment.attempt != self._whose.attempt:
            return fail(CancelledError(f"{self._whose.attempt} is over"))
        self.handle = handle
        return self._worker.keep_handle(handle.to_json())

    def _note(self, line: str) -> None:
        self._notes.append(line)
        self._tell(line)

    # --- while it is up ------------------------------------------------------------------------------------------------------

    def _watch(self, instance_id: str) -> None:
        self._unwatch()
        self._watched = instance_id
        worker = self._worker
        every = worker.check_instance_interval * 3
        worker.region.watch(instance_id, self._heard, every=every, expiry=worker.expiry, wanted=worker.is_wanted)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._worker.region.unwatch(self._watched, self._heard)
            self._watched = None

    def _heard(self, instance: Instance | None) -> None:
        if instance is None:
            self._watched = None
        else:
            self._seen = instance
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.called:
                one.callback(None)
        self._worker.instance_changed()

    async def check(self) -> tuple[bool, str]:
        seen = self._seen
        if seen is None:
            return False, "no instance was started"
        if self._watched is None or seen.state not in ("pending", "running"):
            if RECLAIMED in seen.reason[0] and self.handle is not None and self.handle.choice is not None:
                shelf = self._worker.shelf
                shelf.memory.had_no_room(self.handle.choice, "EC2 took an instance back", shelf.now())
            return False, await self._told(seen.id)
        if seen.health not in ("", "ok", "initializing"):
            return False, f"instance {seen.id}: its status checks say {seen.health}"
        return True, ""

    async def _told(self, instance_id: str) -> str:
        """What became of an instance that is not as it should be, with the end of what it wrote to its console."""
        seen = self._seen
        code, message = ("", "") if seen is None else seen.reason
        state = "no longer known to EC2" if self._watched is None or seen is None else seen.state
        why = ": ".join(part for part in (code, message) if part)
        told = f"instance {instance_id} is {state}{f' ({why})' if why else ''}"
        lines = await last_lines(self._worker.region, instance_id)
        return f"{told}; the last lines of its console:\n{lines}" if lines else told

    async def resume(self) -> bool:
        """Whether what the handle finds is there and the attempt's. One whose start has more to do is not: it is repeated."""
        handle = self.handle
        assert handle is not None
        region = self._worker.region_of(handle)
        if region is not self._worker.region:
            return False
        if handle.instance is not None:
            found = await region.look(handle.instance, born=_composed_at(handle))
        elif handle.document is not None:
            launch, index = handle.document.get("launch"), handle.document.get("index")
            found = next((one for one in await region.find(launch=launch) if one.index == index), None)
        else:
            return False
        if found is None or found.gone or found.state in parking.ASLEEP or parking.expired(found):
            return False
        if found.attempt != self._whose.attempt or found.controller_id != self._whose.controller_id:
            return False
        if not handle.complete and self._has_more_to_do():
            return False
        self._seen = found
        self.handle = evolve(handle, instance=found.id)
        self._watch(found.id)
        return True

    def _has_more_to_do(self) -> bool:
        return any(self._worker.options[option] for option in ("volumes", "elastic_ip"))

    # --- its end -------------------------------------------------------------------------------------------------------------

    async def stop(self, fast: bool) -> None:
        """Fires when it is confirmed to be gone, or stopped and kept."""
        self._over = True
        self._unwatch()
        handle = self.handle
        if handle is None:
            return  # nothing was asked for
        region = self._worker.region_of(handle)
        if self._worth_keeping(handle):
            assert handle.instance is not None
            await parking.park(region, handle.instance, self._worker.stop_mode, self._worker.keep_stopped)
            self._worker.garage.put(region, handle.instance, handle.made_from, self._worker.keep_stopped)
        elif handle.instance is not None:
            await region.end(handle.instance, soon=fast)
        elif handle.document is not None:
            await region.destroy(handle.document, soon=fast)
        if handle.address and (owner := handle.owner) is not None:
            await extras.release_addresses(region, *owner)

    def _worth_keeping(self, handle: Handle) -> bool:
        """Whether it is to be stopped only: one that its agent attached from, and that is well."""
        seen = self._seen
        return (
            self._worker.stop_mode != "terminate"
            and self._worker.agent_attached
            and handle.instance is not None
            and seen is not None
            and seen.market == "on-demand"
            and seen.state == "running"
            and seen.health in ("", "ok", "initializing")
        )


def _brief(error: Exception) -> str:
    """The first sentence of an error, without what to do about it."""
    return str(error).partition("; ")[0]


def _composed_at(handle: Handle) -> float | None:
    return None if handle.document is None else handle.document.get("composed_at")
