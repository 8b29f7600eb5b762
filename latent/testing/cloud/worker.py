"""CloudLatentWorker: a plugin with every hook, whose provider is a `Cloud`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.errors import (
    LatentError,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
    LatentWorkerThrottled,
    PluginError,
)
from latent.model import JSON
from latent.testing.cloud.cloud import Cloud
from latent.testing.cloud.expiry import Expiry
from latent.testing.cloud.line import Line, LocalLine, RemoteLine
from latent.testing.cloud.values import ATTEMPT, CONTROLLER, EXITED, GONE, STOPPING, WORKER, CloudError, Instance
from latent.worker.abstract import take_seconds, taken_if_given
from latent.worker.base import AbstractLatentWorker, Enrolment, ListedInstance, ProviderStatus, enrolled
from latent.worker.compatible import CompatibleLatentWorkerMixin
from latent.worker.properties import is_renderable, render
from latent.worker.values import text
from latent.worker.words import shown

log = Logger()

_ERRORS: Mapping[str, type[LatentWorkerFailedToSubstantiate]] = {
    "capacity": LatentWorkerCapacityError,
    "quota": LatentWorkerQuotaError,
    "throttled": LatentWorkerThrottled,
    "image": LatentWorkerConfigurationError,
    "invalid": LatentWorkerConfigurationError,
}


class CloudLatentWorker(CompatibleLatentWorkerMixin, AbstractLatentWorker):
    """``cloud``: a `Cloud`, or "host:port" of one that is a process of its own. ``image``: what instances are made from, "agent"
    or "empty"; it may be a renderable. ``settle``: seconds for which the cloud's lists may lag behind. ``poll``: seconds between
    two looks at an instance that is stopping. ``expiry``: seconds that an instance is wanted after its agent was last heard by
    its controller, as its tag says; None: it has no such tag.
    """

    renderables = ("image",)
    settings = frozenset({"settle", "poll"})
    check_instance_interval = 2.0

    settle: float = 0.0
    poll: float = 0.2
    expiry: float | None = None

    _id: str | None = None
    _asked_at: float | None = None
    _trouble = ""
    _expiry: Expiry | None = None
    line: Line | None = None
    """To its cloud, once it was asked for something."""

    def checkConfig(
        self,
        name: str,
        password: str | None = None,
        *,
        cloud: Any = None,
        image: Any = None,
        settle: float | None = None,
        poll: float | None = None,
        expiry: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().checkConfig(name, password, **kwargs)
        self._set(cloud, image, settle, poll, expiry)

    def reconfigService(
        self,
        name: str,
        password: str | None = None,
        *,
        cloud: Any = None,
        image: Any = None,
        settle: float | None = None,
        poll: float | None = None,
        expiry: float | None = None,
        **kwargs: Any,
    ) -> Any:
        self._set(cloud, image, settle, poll, expiry)
        self.builds_may_be_incompatible = is_renderable(self.image)
        return super().reconfigService(name, password, **kwargs)

    def _set(self, cloud: Any, image: Any, settle: float | None, poll: float | None, expiry: float | None) -> None:
        if isinstance(cloud, str):
            host, _, port = cloud.rpartition(":")
            if not host or not port.isdigit():
                self.config_error(f"cloud is {cloud!r}; write 'HOST:PORT', as python -m latent.testing.cloud prints it")
        elif not isinstance(cloud, Cloud):
            self.config_error(f"cloud is {shown(cloud)}; give it a latent.testing.cloud.Cloud, or 'HOST:PORT' of one")
        if cloud is not getattr(self, "cloud", None):
            self.line = None
        self.cloud = cloud
        self.image = image if is_renderable(image) else taken_if_given(self, text, "image", image, default="agent")
        take_seconds(self, "settle", settle, least=0)
        take_seconds(self, "poll", poll)
        if expiry is not None:
            take_seconds(self, "expiry", expiry)

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    async def start_instance(self, build: Any) -> list[str]:
        self._has_nothing_to_expire()
        self._id, self._asked_at = None, self.reactor.seconds()
        enrolment = enrolled(self, "start_instance")
        image = await self.renderWorkerPropsOnStart(build)
        arguments = {
            "token": enrolment.idempotency_token,
            "tags": _tags(enrolment),
            "image": image,
            "environment": self._environment(enrolment),
            "expires_in": self.expiry,
        }
        try:
            made = Instance.from_json(await self._call("create", late=self._came_late, **arguments))
        except CloudError as error:
            raise _ERRORS.get(error.kind, LatentWorkerFailedToSubstantiate)(f"{self._where}: {error}") from error
        self._has(made.id)
        if made.state in (STOPPING, GONE, EXITED):
            self.failed_to_start(made.id, made.state)
        return [made.id, image]

    async def renderWorkerProps(self, build: Any) -> str:
        return str(await render(self.image, self.properties if build is None else getattr(build, "properties", build)))

    async def stop_instance(self, fast: bool = False) -> None:
        if self.enrolment is None:
            return
        mine = _tags(self.enrolment)
        self._has_nothing_to_expire()
        # Until then an instance that was asked for may not be listed yet. Where nobody knows when that was, it was just now.
        until = (self.reactor.seconds() if self._asked_at is None else self._asked_at) + self.settle
        if self._id is not None:
            await self._destroy(self._id)
        while True:
            for instance in await self._listed(mine):
                await self._destroy(instance.id)
            if self.reactor.seconds() >= until:
                break
            await self._pause(min(self.poll, until - self.reactor.seconds()))
        self._id = self._asked_at = None
        self.resetWorkerPropsOnStop()

    async def check_instance(self) -> tuple[bool, str]:
        if self._id is None:
            return False, "no instance was started"
        try:
            instance = Instance.from_json(await self._call("describe", id=self._id))
        except CloudError as error:
            if error.kind != "unknown":
                # How the cloud is says nothing of the instance; its agent tells whether it lives.
                return True, f"{self._where} does not tell how {self._id} is: {error}"
            young = self._asked_at is not None and self.reactor.seconds() < self._asked_at + self.settle
            return young, f"{self._id} is not known yet" if young else f"{self._id} is gone"
        if instance.state in (STOPPING, GONE, EXITED):
            return False, f"{instance.id} is {instance.state}{': ' + instance.message if instance.message else ''}"
        if not instance.responds:
            return False, f"{instance.id} does not respond"
        return True, ""

    def instance_handle(self) -> JSON:
        return None if self._id is None else {"id": self._id}

    async def resume_instance(self, handle: JSON) -> bool:
        # Also where it is not found: the stop that follows asks for it by its id, which no lag can hide.
        self._id = _id_of(handle)
        try:
            instance = Instance.from_json(await self._call("describe", id=self._id))
        except CloudError as error:
            if error.kind == "unknown":
                return False
            raise LatentError(f"{self._where}: {error}") from error
        ours = _tags(enrolled(self, "resume_instance")).items() <= instance.tags.items()
        if ours and instance.state not in (STOPPING, GONE, EXITED):
            self._has(instance.id, at_once=True)
            self.rememberWorkerProps(instance.image)
            return True
        return False

    def list_scope(self) -> str:
        return f"the cloud {self._where}"

    async def list_instances(self) -> list[ListedInstance]:
        return [
            ListedInstance(
                one.attempt, {"id": one.id}, one.controller_id, one.created_at, one.protected, one.expires_at, title=one.id
            )
            for one in await self._listed({})
            if one.attempt is not None and one.controller_id
        ]

    async def destroy_instance(self, handle: JSON) -> None:
        await self._destroy(_id_of(handle))

    async def check_live(self) -> list[str]:
        try:
            known = await self._call("images")
        except CloudError as error:
            return [f"{self._where}: {error}"]
        if is_renderable(self.image) or self.image in known:
            return []
        return [f"{self._where} has no image {self.image!r}; take one of {', '.join(known)}"]

    def provider_status(self) -> ProviderStatus:
        remedy = "see what ails it, or wait" if self._trouble else ""
        return ProviderStatus(
            subject=f"cloud {self._where}", message=self._trouble or "it answers", ok=not self._trouble, remedy=remedy
        )

    # --- the expiry of its instance ------------------------------------------------------------------------------------------

    def _has(self, instance_id: str, at_once: bool = False) -> None:
        self._id = instance_id
        self._has_nothing_to_expire()
        if self.expiry is not None:
            push = partial(self._call, "tag", id=instance_id, tags={}, expires_in=self.expiry)
            self._expiry = Expiry(self.reactor, self.expiry, push, self.is_wanted)
            self._expiry.begin(at_once)

    def _has_nothing_to_expire(self) -> None:
        if self._expiry is not None:
            self._expiry.end()
            self._expiry = None

    # --- inside --------------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return self.cloud if isinstance(self.cloud, str) else self.cloud.name

    def _environment(self, enrolment: Enrolment) -> dict[str, str]:
        # An agent in the same process speaks to the controller without a gateway.
        told = (
            self.agent_environment()
            if isinstance(self.cloud, str) or "peer" in enrolment.servers
            else {
                "LATENT_TOKEN": enrolment.agent_token,
                "LATENT_WORKER": enrolment.attempt.worker,
                "LATENT_ATTEMPT": str(enrolment.attempt.number),
            }
        )
        return {**told, "LATENT_CAPACITY": str(self.max_builds)}

    def _call(self, call: str, late: Any = None, **arguments: Any) -> Deferred[Any]:
        if self.line is None:
            self.line = RemoteLine(self.reactor, self.cloud) if isinstance(self.cloud, str) else LocalLine(self.cloud)
        answer = self.line.call(call, late, **arguments)

        def well(result: Any) -> Any:
            self._trouble = ""
            return result

        def ill(failure: Failure) -> Failure:
            if isinstance(failure.value, CloudError) and failure.value.kind in ("internal", "throttled", "unreachable"):
                self._trouble = str(failure.value)
            return failure

        return answer.addCallbacks(well, ill)

    async def _listed(self, tags: Mapping[str, str]) -> list[Instance]:
        try:
            return [Instance.from_json(doc) for doc in await self._call("list", tags=tags)]
        except CloudError as error:
            raise LatentError(f"{self._where}: its instances can't be listed: {error}") from error

    async def _destroy(self, instance_id: str) -> None:
        """Until the cloud says that it is gone."""
        while True:
            try:
                instance = await self._call("destroy", id=instance_id)
            except CloudError as error:
                if error.kind == "unknown":
                    return
                raise LatentError(f"{self._where}: {instance_id} can't be destroyed: {error}") from error
            if instance["state"] == GONE:
                return
            await self._pause(self.poll)

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self.reactor, seconds)

    def _came_late(self, made: JSON) -> None:
        """The start was given up before the cloud said what it made, and who stopped it may not have seen it."""
        ending = Deferred.fromCoroutine(self._destroy(made["id"]))
        ending.addErrback(lambda f: log.warn("{id} came late and could not be destroyed: {error}", id=made["id"], error=f.value))


def _tags(enrolment: Enrolment) -> dict[str, str]:
    return {CONTROLLER: enrolment.controller_id, WORKER: enrolment.attempt.worker, ATTEMPT: str(enrolment.attempt.number)}


def _id_of(handle: JSON) -> str:
    match handle:
        case {"id": str(instance_id)}:
            return instance_id
    raise PluginError(f"{shown(handle)} is no handle of a CloudLatentWorker; destroy its instance by hand")
