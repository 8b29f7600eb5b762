"""EC2LatentWorker: each attempt is an EC2 instance. Options and their meaning are Buildbot's; docs/ec2.md has them all."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from attrs import evolve

from latent.errors import (
    ConfigError,
    LatentWorkerCannotSubstantiate,
    PluginError,
)
from latent.model import JSON, Attempt
from latent.worker import (
    CompatibleLatentWorkerMixin,
    Enrolment,
    ListedInstance,
    ProviderStatus,
    render,
)
from latent.worker.properties import holds_renderable
from latent.worker.variables import agent_variables, loopback_addresses
from latent_ec2 import credentials, declaration, extras, live, parking
from latent_ec2.attempt import CurrentAttempt
from latent_ec2.declared import DeclaredWorker
from latent_ec2.handle import Handle
from latent_ec2.instances import PROTECT
from latent_ec2.recipe import RENDERED, Made, Recipe, recipe


class EC2LatentWorker(CompatibleLatentWorkerMixin, DeclaredWorker):
    """Beside Buildbot's options: lists of types, subnets and zones, ``launch_template``, ``spot_fallback``, ``stop_mode``..."""

    renderables = RENDERED
    settings = frozenset(
        {*credentials.OPTIONS, "keep_stopped", "spot_fallback", "spot_timeout", "expiry"} - {"region", "endpoint_url"}
    )

    _current: CurrentAttempt | None = None

    def checkConfig(
        self,
        name: str,
        password: str | None = None,
        instance_type: Any = None,
        ami: Any = None,
        valid_ami_owners: Any = None,
        valid_ami_location_regex: Any = None,
        elastic_ip: Any = None,
        identifier: str | None = None,
        secret_identifier: str | None = None,
        aws_id_file_path: Any = None,
        user_data: Any = None,
        region: str | None = None,
        keypair_name: Any = None,
        security_name: Any = None,
        spot_instance: Any = False,
        max_spot_price: Any = 1.6,
        volumes: Any = None,
        placement: Any = None,
        price_multiplier: Any = 1.2,
        tags: Any = None,
        product_description: Any = "Linux/UNIX",
        subnet_id: Any = None,
        security_group_ids: Any = None,
        instance_profile_name: Any = None,
        block_device_map: Any = None,
        session: Any = None,
        *,
        launch_template: Any = None,
        spot_fallback: bool = False,
        spot_timeout: float | None = None,
        stop_mode: str = "terminate",
        keep_stopped: float | None = None,
        metadata_options: Any = None,
        enrolment: str | None = "cloud-init",
        agent_command: Any = "latent-agent",
        masterFQDN: str | None = None,
        master_protocol: str = "pb",
        expiry: float | None = None,
        profile: str | None = None,
        session_token: str | None = None,
        endpoint_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = locals()
        super().checkConfig(name, password, **kwargs)
        declaration.check_all(self, given)

    def reconfigService(self, name: str, password: str | None = None, *args: Any, **kwargs: Any) -> Any:
        bound = _SIGNATURE.bind(self, name, password, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        self.declared(given)
        # Where a build decides nothing, no build needs to be asked.
        self.builds_may_be_incompatible = holds_renderable(self.options)
        return super().reconfigService(name, password, **given["kwargs"])

    # --- Buildbot's names, for who extends this class ------------------------------------------------------------------------

    async def renderWorkerProps(self, build: Any) -> Recipe:
        """Everything that a build decides; two builds whose recipes are equal can have the same instance."""
        rendered = await render(self.options, self.properties if build is None else build)
        try:
            return recipe(rendered, self.account.region_name)
        except ConfigError as error:
            raise LatentWorkerCannotSubstantiate(f"worker {self.name}, as rendered: {'; '.join(error.errors)}") from error

    def createEnvironment(self, build: Any = None) -> dict[str, str]:
        """The variables that the instance's agent is started with: those of `latent-agent`, and those of `buildbot-worker`."""
        return agent_variables(self, self.masterFQDN, self.master_protocol)

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    async def start_instance(self, build: Any) -> list[str]:
        self._current = None
        whose = self._enrolled()
        tell: Callable[[str], None] = (lambda line: None) if build is None else build.log
        made_from: Recipe = await self.renderWorkerPropsOnStart(build)
        variables = self.createEnvironment(build)
        current = self._current = CurrentAttempt(self, whose, made_from, variables, tell)
        if whose.kept is not None:
            current.handle = Handle.from_json(whose.kept)
        await current.start()
        detail = current.detail()
        if addresses := loopback_addresses(variables):
            detail.append(
                f"its agent is told to attach to {' and '.join(addresses)}, which there is the instance itself: set masterFQDN, "
                "or 'advertise' in c['protocols']"
            )
            tell(detail[-1])
        return detail

    async def stop_instance(self, fast: bool = False) -> None:
        if self.enrolment is None:
            return
        current = self._current
        if current is None and self.enrolment.kept is not None:
            current = CurrentAttempt(self, self.enrolment, None, {}, lambda line: None)
            current.handle = Handle.from_json(self.enrolment.kept)
        if current is not None:
            await current.stop(fast)
        self._current = None
        self.resetWorkerPropsOnStop()

    async def check_instance(self) -> tuple[bool, str]:
        if self._current is None:
            return False, "no instance was started"
        return await self._current.check()

    def instance_handle(self) -> JSON:
        return None if self._current is None or self._current.handle is None else self._current.handle.to_json()

    async def resume_instance(self, handle: JSON) -> bool:
        found = Handle.from_json(handle)
        current = CurrentAttempt(self, self._enrolled(), None, {}, lambda line: None)
        current.handle = found
        if not await current.resume():
            return False
        self._current = current
        self.rememberWorkerProps(Made(found.made_from))
        return True

    def list_scope(self) -> str:
        account = self.account
        session = f"{id(account.session):x}" if account.session is not None else ""  # two sessions may be two accounts
        return " ".join(part for part in (account.label, account.endpoint_url or "", session) if part)

    async def list_instances(self) -> list[ListedInstance]:
        """Instances of ours, any controller's, but those that wait stopped for their worker; and volumes and addresses left."""
        region, where = self.region, self._here()
        listed: dict[tuple[str, Attempt], ListedInstance] = {}
        for instance in await region.find():
            if instance.attempt is None or instance.controller_id is None or parking.is_parked(instance):
                continue
            handle = evolve(
                where,
                instance=instance.id,
                controller=instance.controller_id,
                attempt=str(instance.attempt),
                address=self.options["elastic_ip"] is True,
            )
            listed[instance.controller_id, instance.attempt] = ListedInstance(
                instance.attempt,
                handle.to_json(),
                instance.controller_id,
                instance.launched_at,
                protected=PROTECT in instance.tags,
                expires_at=instance.expires,
                title=instance.id,
            )
        for left in await extras.leftovers(region, self.reactor):
            known = listed.get((left.controller_id, left.attempt))
            handle = where if known is None else Handle.from_json(known.handle)
            handle = evolve(
                handle,
                volumes=(*handle.volumes, *([left.volume] if left.volume else [])),
                addresses=(*handle.addresses, *([left.address] if left.address else [])),
            )
            title = " ".join(filter(None, (known.title if known else "", left.volume, left.address)))
            found = known or ListedInstance(left.attempt, None, left.controller_id)
            listed[left.controller_id, left.attempt] = evolve(found, handle=handle.to_json(), title=title)
        return list(listed.values())

    async def destroy_instance(self, handle: JSON) -> None:
        found = Handle.from_json(handle)
        region = self.region_of(found)
        if found.instance is not None:
            await region.end(found.instance)
        elif found.document is not None:
            await region.destroy(found.document)
        if found.address and (owner := found.owner) is not None:
            await extras.release_addresses(region, *owner)
        for volume in found.volumes:
            await extras.delete_volume(region, volume)
        for address in found.addresses:
            await extras.release_address(region, address)

    async def check_live(self) -> list[str]:
        return await live.mistakes(self)

    def provider_status(self) -> ProviderStatus | None:
        return live.status(self.region.status(), self.shelf)

    # --- inside ---------------------------------------------------------------------------------------------------------------

    def _here(self) -> Handle:
        return Handle(region=self.account.region_name, endpoint=self.account.endpoint_url)

    def _enrolled(self) -> Enrolment:
        if self.enrolment is None:
            raise PluginError(f"worker {self.name}: an instance was asked for outside an attempt")
        return self.enrolment


_SIGNATURE = inspect.signature(EC2LatentWorker.checkConfig)
