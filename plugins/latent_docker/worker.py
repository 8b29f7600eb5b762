"""DockerLatentWorker: each attempt is a container. Options and their meaning are Buildbot's; docs/docker.md has them all."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.logger import Logger

from latent.errors import (
    ConfigError,
    LatentError,
    LatentWorkerCannotSubstantiate,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    PluginError,
)
from latent.model import JSON
from latent.worker import (
    AbstractLatentWorker,
    CompatibleLatentWorkerMixin,
    ListedInstance,
    MissingProperty,
    ProviderStatus,
    discard,
    render,
)
from latent.worker.properties import holds_renderable
from latent_docker import containers, pool
from latent_docker import recipe as options
from latent_docker.containers import Made
from latent_docker.daemon import Daemon, Endpoint
from latent_docker.environment import agent_variables, warnings
from latent_docker.faults import DaemonUnreachable
from latent_docker.identity import Handle, Identity
from latent_docker.images import Wanted
from latent_docker.recipe import RENDERED, Recipe
from latent_docker.startup import StartupLog

log = Logger()

SILENCE = 15.0
"""Seconds that a daemon may be away before its containers count as ill: it may just be restarting."""

PROTOCOLS = ("pb", "msgpack_experimental_v7")

HOSTS_FILE = "docker-hosts.json"
"""In the state directory: every daemon that a build's properties have chosen, so that all are looked at after a crash."""


@frozen
class Instance:
    daemon: Daemon
    made: Made
    recipe: Recipe | None


class DockerLatentWorker(CompatibleLatentWorkerMixin, AbstractLatentWorker):
    """Beside Buildbot's options: ``max_containers`` (at each daemon), ``stop_grace`` (seconds from SIGTERM to SIGKILL),
    ``private_network`` (a network for each container); ``docker_host`` may be a list of daemons.
    """

    renderables = RENDERED
    settings = frozenset({"followStartupLogs", "stop_grace", "max_containers", "autopull", "alwaysPull"})
    build_wait_timeout = 0.0

    stop_grace: float = 10.0

    _instance: Instance | None = None
    _changed = False
    _note = ""
    _following: StartupLog | None = None
    _touched: set[Daemon] | None = None
    """The daemons that may have something of the attempt; None: nobody knows, all have to be asked."""

    def checkConfig(
        self,
        name: str,
        password: str | None = None,
        docker_host: Any = None,
        image: Any = None,
        command: Any = None,
        volumes: Any = None,
        dockerfile: Any = None,
        version: str | None = None,
        tls: Any = None,
        followStartupLogs: bool = False,
        masterFQDN: str | None = None,
        master_protocol: str = "pb",
        hostconfig: Any = None,
        autopull: bool = False,
        alwaysPull: bool = False,
        custom_context: Any = False,
        encoding: Any = "gzip",
        target: Any = "",
        buildargs: Any = None,
        hostname: Any = None,
        *,
        max_containers: int | None = None,
        stop_grace: float | None = None,
        private_network: bool = False,
        **kwargs: Any,
    ) -> None:
        super().checkConfig(name, password, **kwargs)
        given = locals()
        for option in RENDERED:
            self._check_option(option, given[option])
        if image is None and dockerfile is None:
            self.config_error("neither image nor dockerfile is given; write image='NAME:TAG', or dockerfile='FROM ...'")
        if version is not None and not isinstance(version, str):
            self.config_error(f"version is {version!r}; write the API's version as a string, '1.41' for example")
        if tls is not None and not isinstance(tls, bool) and not hasattr(tls, "configure_client"):
            self.config_error(f"tls is {tls!r}; write docker.tls.TLSConfig(...)")
        if masterFQDN is not None and (not isinstance(masterFQDN, str) or not masterFQDN.strip()):
            self.config_error(f"masterFQDN is {masterFQDN!r}; write the controller's name as containers reach it")
        if master_protocol not in PROTOCOLS:
            self.config_error(f"master_protocol is {master_protocol!r}; write one of {', '.join(map(repr, PROTOCOLS))}")
        if alwaysPull and not autopull and dockerfile is None:
            self.config_error("alwaysPull does nothing by itself; set autopull=True, too")
        if max_containers is not None and (isinstance(max_containers, bool) or not isinstance(max_containers, int)):
            self.config_error(f"max_containers is {max_containers!r}; write a whole number")
        elif max_containers is not None and max_containers < 1:
            self.config_error(f"max_containers is {max_containers}; write 1 or more")
        if stop_grace is not None and (not isinstance(stop_grace, int | float) or stop_grace < 0):
            self.config_error(f"stop_grace is {stop_grace!r}; write a number of seconds, 0 for none")
        if private_network and isinstance(hostconfig, Mapping) and "network_mode" in hostconfig:
            self.config_error("private_network and hostconfig's network_mode exclude each other; take one of them out")

    def reconfigService(
        self,
        name: str,
        password: str | None = None,
        docker_host: Any = None,
        image: Any = None,
        command: Any = None,
        volumes: Any = None,
        dockerfile: Any = None,
        version: str | None = None,
        tls: Any = None,
        followStartupLogs: bool = False,
        masterFQDN: str | None = None,
        master_protocol: str = "pb",
        hostconfig: Any = None,
        autopull: bool = False,
        alwaysPull: bool = False,
        custom_context: Any = False,
        encoding: Any = "gzip",
        target: Any = "",
        buildargs: Any = None,
        hostname: Any = None,
        *,
        max_containers: int | None = None,
        stop_grace: float | None = None,
        private_network: bool = False,
        **kwargs: Any,
    ) -> Any:
        given = locals()
        self.options: dict[str, Any] = {option: given[option] for option in RENDERED}
        self.version, self.tls = version, tls
        self.followStartupLogs = bool(followStartupLogs)
        self.masterFQDN, self.master_protocol = masterFQDN, master_protocol
        self.autopull, self.alwaysPull = bool(autopull), bool(alwaysPull)
        self.max_containers = max_containers
        self.stop_grace = type(self).stop_grace if stop_grace is None else float(stop_grace)
        self.private_network = bool(private_network)
        # Where a build decides nothing, no build needs to be asked.
        self.builds_may_be_incompatible = holds_renderable(self.options)
        self._kept_daemons: dict[tuple[str, ...], list[Daemon]] = {}
        return super().reconfigService(name, password, **kwargs)

    def _check_option(self, option: str, value: Any) -> None:
        if holds_renderable(value) or option == "custom_context":
            return
        try:
            getattr(options, "hosts" if option == "docker_host" else option)(value)
        except ConfigError as error:
            for message in error.errors:
                self.config_error(message)

    # --- Buildbot's names, for who extends this class --------------------------------------------------------------------------

    async def renderWorkerProps(self, build: Any) -> Recipe:
        """Everything that a build decides; two builds whose recipes are equal can have the same container."""
        return self._checked(await render(self.options, self.properties if build is None else build))

    def createEnvironment(self, build: Any = None) -> dict[str, str]:
        """The variables that the container is started with: those of `latent-agent`, and those of Buildbot's own images."""
        return agent_variables(self, self.masterFQDN, self.master_protocol)

    def getContainerName(self) -> str:
        return self._identity().names[0]

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    async def start_instance(self, build: Any) -> list[str]:
        self._instance, self._changed, self._note = None, False, ""
        self._touched = set()
        tell = _teller(build)
        recipe: Recipe = await self.renderWorkerPropsOnStart(build)
        environment = self.createEnvironment(build)
        identity = self._identity()
        daemons = self._daemons(recipe)
        first = await self._holder(identity, daemons) if len(daemons) > 1 else None

        async def start(daemon: Daemon) -> Made:
            return await self._start_at(daemon, identity, recipe, environment, tell)

        placed = await pool.place(daemons, identity.key, self.max_containers, start, first)
        made = placed.answer
        assert isinstance(made, Made)
        self._instance = Instance(placed.daemon, made, recipe)
        self._note = made.found.message
        for line in (*placed.skipped, *(f"a container that is not ours has the name {name}" for name in made.strangers)):
            tell(line)
        if self.followStartupLogs:
            self._follow(tell)
        await self._raise_if_ended(made)
        detail = [made.name, made.id[:12], recipe.reference, placed.daemon.host, *(f"skipped: {line}" for line in placed.skipped)]
        if made.adopted:
            detail.append("it was there already")
        if self.private_network or recipe.hostconfig.get("network_mode") != "host":
            detail += warnings(environment)
        for line in detail[4:]:
            tell(line)
        return detail

    async def stop_instance(self, fast: bool = False) -> None:
        if self.enrolment is None:
            return
        if self._following is not None:
            self._following.stop()
            self._following = None
        identity = self._identity()
        # A declaration that was read again since the start knows no daemon yet.
        for daemon in {*self._known_daemons(), *(self._touched or ())}:
            daemon.unwatch(*identity.names)
        instance = self._instance
        where = set(await self._all_daemons()) if self._touched is None else self._touched
        made = ("", ()) if instance is None else (instance.made.id, instance.made.volumes)
        grace = 0.0 if fast else self.stop_grace
        await _all_of(daemon.run(containers.remove, identity.labels, *made, grace, adopt=discard) for daemon in where)
        for daemon in where:
            daemon.taken.discard(identity.key)
        self._instance, self._touched = None, None
        self.resetWorkerPropsOnStop()

    async def check_instance(self) -> tuple[bool, str]:
        instance = self._instance
        if instance is None:
            return False, "no container was started"
        if instance.daemon.listening and not self._changed:
            return True, self._note
        self._changed = False
        try:
            found = await instance.daemon.run(containers.look, instance.made.id, adopt=discard)
        except DaemonUnreachable as error:
            self._changed = True
            return instance.daemon.silent_for() < SILENCE, str(error)
        self._changed = self._changed or not found.good
        self._note = found.message if found.good else ""
        return found.good, found.message

    def instance_handle(self) -> JSON:
        instance = self._instance
        if instance is None:
            return None
        identity = self._identity()
        made_from = None if instance.recipe is None else instance.recipe.to_json()
        return Handle(
            instance.daemon.host, identity.controller_id, identity.attempt, instance.made.id, instance.made.volumes, made_from
        ).to_json()

    async def resume_instance(self, handle: JSON) -> bool:
        found = Handle.from_json(handle)
        identity = self._identity()
        if (found.controller_id, found.attempt) != (identity.controller_id, identity.attempt):
            return False
        daemon = self._daemon(found.host)
        how = await daemon.run(containers.resume, found, adopt=discard)
        if how is None or how.finished:
            return False
        recipe = None if found.made_from is None else Recipe.from_json(found.made_from)
        made = Made(found.container, identity.names[0], found.volumes, how, adopted=True)
        self._instance, self._changed, self._note = Instance(daemon, made, recipe), not how.good, how.message
        self._touched = {daemon}
        self.rememberWorkerProps(recipe)
        daemon.taken.add(identity.key)
        self._watch(daemon, identity)
        return True

    def list_scope(self) -> str:
        hosts = self.options["docker_host"]
        if holds_renderable(hosts):
            return f"Docker, wherever {self.name} goes"
        return "Docker " + " ".join(sorted(options.hosts(hosts)))

    async def list_instances(self) -> list[ListedInstance]:
        """Fails if one of the daemons does not answer: what can't be seen must not be taken for gone."""
        return [one for found in await _all_of(daemon.listed() for daemon in await self._all_daemons()) for one in found]

    async def destroy_instance(self, handle: JSON) -> None:
        found = Handle.from_json(handle)
        daemon = self._daemon(found.host)
        await daemon.run(containers.remove, found.labels, found.container, found.volumes, 0.0, adopt=discard)
        daemon.taken.discard(Identity(found.controller_id, found.attempt, "").key)

    def provider_status(self) -> ProviderStatus | None:
        """What is on each daemon, and which can't be reached."""
        hosts = self.options["docker_host"]
        known = self._known_daemons() if holds_renderable(hosts) else self._daemons_at(options.hosts(hosts))
        daemons = sorted(known, key=lambda daemon: daemon.host)
        if not daemons:
            return None
        told = "; ".join(daemon.shown() for daemon in daemons)
        if all(not daemon.down for daemon in daemons):
            return ProviderStatus(subject="Docker", message=told)
        remedy = "start it" if len(daemons) == 1 else "start those that are away; meanwhile the others get the containers"
        return ProviderStatus(subject="Docker", message=told, ok=False, remedy=remedy)

    # --- starting ------------------------------------------------------------------------------------------------------------

    async def _start_at(
        self, daemon: Daemon, identity: Identity, recipe: Recipe, environment: Mapping[str, str], tell: Callable[[str], None]
    ) -> Made:
        wanted = Wanted(
            recipe.reference,
            recipe.dockerfile,
            recipe.custom_context,
            recipe.encoding,
            recipe.target,
            tuple(sorted(recipe.buildargs.items())),
            self.autopull,
            self.alwaysPull,
        )
        try:
            image = await daemon.images.get(wanted, tell)
        except LatentWorkerConfigurationError as error:
            raise self._whose_fault(error, "image", "dockerfile", "target", "buildargs", "custom_context", "encoding") from error
        init = await daemon.has_init()
        self._watch(daemon, identity)
        assert self._touched is not None
        self._touched.add(daemon)
        begun = threading.Event()
        try:
            # By its name where it has one: docker ps shows it.
            reference = recipe.reference if recipe.image is not None else image
            return await daemon.run(
                containers.start, identity, recipe, reference, environment, init, self.private_network, begun,
                adopt=lambda made: self._came_late(daemon, identity, made),
            )  # fmt: skip
        except DaemonUnreachable as error:
            if not error.sent and not begun.is_set():
                self._touched.discard(daemon)
            raise
        except LatentWorkerConfigurationError as error:
            raise self._whose_fault(error, "image", "command", "volumes", "hostconfig", "hostname") from error

    def _whose_fault(self, error: LatentWorkerConfigurationError, *involved: str) -> LatentError:
        """The declaration's, unless it lets the build decide what went wrong."""
        if any(holds_renderable(self.options[option]) for option in involved):
            return LatentWorkerCannotSubstantiate(str(error))
        return error

    async def _raise_if_ended(self, made: Made) -> None:
        """A container that has ended before its start was answered: there is no next check to wait for."""
        found = made.found
        if found.good and self._changed:
            good, message = await self.check_instance()
            found = containers.Found(good, message)
        if not found.good:
            raise LatentWorkerFailedToSubstantiate(found.message)

    async def _holder(self, identity: Identity, daemons: list[Daemon]) -> Daemon | None:
        """The daemon that has the attempt's container already: this start was cut short by a crash and is being repeated."""
        for daemon in daemons:
            try:
                if await daemon.run(containers.find, identity.labels, adopt=discard):
                    return daemon
            except DaemonUnreachable:
                continue  # that one is passed by, and the reaper will find what it may have
        return None

    def _came_late(self, daemon: Daemon, identity: Identity, made: Made) -> None:
        """The start was cancelled, and whoever cancelled it may have looked for the container before there was one."""
        if self._instance is not None and self._instance.made.id == made.id:
            return
        daemon.run(containers.remove, identity.labels, made.id, made.volumes, 0.0, adopt=discard).addErrback(
            lambda f: log.failure("{name} came late and could not be removed", f, name=made.name)
        )

    def _follow(self, tell: Callable[[str], None]) -> None:
        assert self._instance is not None
        made, daemon = self._instance.made, self._instance.daemon
        self._following = StartupLog(daemon, made.id, made.name, tell, self.missing_timeout, self.reactor)

    def _watch(self, daemon: Daemon, identity: Identity) -> None:
        def changed() -> None:
            self._changed = True
            self.instance_changed()

        daemon.watch(changed, *identity.names)

    def _checked(self, rendered: Mapping[str, Any]) -> Recipe:
        try:
            return options.recipe(rendered)
        except ConfigError as error:
            raise LatentWorkerCannotSubstantiate(f"worker {self.name}, as rendered: {'; '.join(error.errors)}") from error

    def _identity(self) -> Identity:
        if self.enrolment is None:
            raise PluginError(f"worker {self.name}: a container's name was asked for outside an attempt")
        return Identity.of(self.enrolment)

    # --- daemons -------------------------------------------------------------------------------------------------------------

    def _daemon(self, host: str) -> Daemon:
        if self.reactor is None:
            raise PluginError(f"worker {self.name} has no reactor; whoever calls its hooks sets worker.reactor first")
        return self._daemons_at((host,))[0]

    def _daemons_at(self, hosts: tuple[str, ...]) -> list[Daemon]:
        """Kept by the worker: a daemon that nobody keeps closes its connections."""
        found = self._kept_daemons.get(hosts)
        if found is None:
            found = [Daemon.of(Endpoint(host, self.version, self.tls), self.reactor) for host in hosts]
            self._kept_daemons[hosts] = found
        return found

    def _known_daemons(self) -> set[Daemon]:
        return {daemon for daemons in self._kept_daemons.values() for daemon in daemons}

    def _daemons(self, recipe: Recipe) -> list[Daemon]:
        if holds_renderable(self.options["docker_host"]):
            _remember_hosts(Path(self.state_dir), recipe.hosts)
        return self._daemons_at(recipe.hosts)

    async def _all_daemons(self) -> list[Daemon]:
        """All that an instance of this worker can be at."""
        hosts = self.options["docker_host"]
        if not holds_renderable(hosts):
            return self._daemons_at(options.hosts(hosts))
        remembered = _remembered_hosts(Path(self.state_dir))
        with contextlib.suppress(MissingProperty, ConfigError):  # only a build knows
            remembered += options.hosts(await render(hosts, self.properties))
        return [self._daemon(host) for host in dict.fromkeys(remembered)]


def _teller(build: Any) -> Callable[[str], None]:
    """Where progress is told: in the build's log."""
    if build is None:
        return lambda line: None
    return lambda line: build.log(line)


async def _all_of(calls: Iterable[Deferred[Any]]) -> list[Any]:
    """The answers of all; the first error, once all have answered."""
    waiting = list(calls)
    try:
        return list(await gatherResults(waiting, consumeErrors=True))
    except FirstError as error:
        error.subFailure.raiseException()
        raise


def _remember_hosts(state_dir: Path, hosts: Iterable[str]) -> None:
    """Before anything is started there: a start whose controller dies has left no handle."""
    known = _remembered_hosts(state_dir)
    new = [host for host in hosts if host not in known]
    if new:
        draft = state_dir / f"{HOSTS_FILE}.new"
        draft.write_text(json.dumps([*known, *new]))
        draft.replace(state_dir / HOSTS_FILE)


def _remembered_hosts(state_dir: Path) -> list[str]:
    try:
        return [str(host) for host in json.loads((state_dir / HOSTS_FILE).read_text())]
    except FileNotFoundError:
        return []
