"""The class that a plugin's author subclasses. Names, argument order and meaning of the hooks are Buildbot's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed

from latent.core.states import Policy
from latent.errors import LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate, PluginError
from latent.model import JSON, Attempt
from latent.worker.abstract import AbstractWorker, Worker, qualified, take_seconds
from latent.worker.checking import check_hooks
from latent.worker.properties import Properties
from latent.worker.words import shown

__all__ = ["AbstractLatentWorker", "AbstractWorker", "Enrolment", "ListedInstance", "ProviderStatus", "Worker"]


BUILDBOT_PROTOCOLS = ("pb", "msgpack_experimental_v7")
"""The protocols of stock `buildbot-worker` agents, as Buildbot calls them."""

RECOVERY_HOOKS = ("instance_handle", "resume_instance", "list_instances", "destroy_instance")
"""The hooks without which an instance can't be found again after a crash."""

OPTIONAL_HOOKS = (*RECOVERY_HOOKS, "check_live", "provider_status")


@frozen
class Enrolment:
    """What the controller gives one attempt. ``idempotency_token`` is the same when a start is repeated after a crash.

    ``agent_token`` opens one session, once. ``servers``: protocol -> "host:port", as an agent reaches it. ``kept``: after a
    restart of the controller, the last handle that was kept for the attempt (`AbstractLatentWorker.keep_handle`). ``tokens``:
    the agent token of any attempt of this controller, for instances that several attempts are started with in one call.
    """

    attempt: Attempt
    controller_id: str
    idempotency_token: str
    agent_token: str = field(repr=False)
    servers: Mapping[str, str]
    kept: JSON | None = None
    tokens: Callable[[Attempt], str] | None = field(default=None, eq=False, repr=False)


@frozen
class ListedInstance:
    """Something that carries our tags. ``created_at``: POSIX seconds, if the provider tells.

    ``protected``: somebody has marked it so that the reaper leaves it alone. ``expires_at``: POSIX seconds after which it is
    nobody's, unless its controller pushes that forward before. ``title``: what an operator knows it by ("i-0abc", "pid 123").
    """

    attempt: Attempt
    handle: JSON
    controller_id: str
    created_at: float | None = None
    protected: bool = False
    expires_at: float | None = None
    title: str = ""


@frozen(kw_only=True)
class ProviderStatus:
    """How a provider is, in words for an operator. ``subject``: which one ("ec2 eu-west-1"). ``remedy``: if it is not well."""

    subject: str
    message: str
    ok: bool = True
    remedy: str = ""


class AbstractLatentWorker(AbstractWorker):
    """A worker whose instance is started when there is work, and stopped when it has been idle.

    A subclass defines `start_instance` and `stop_instance`. Every hook may return a plain value or a Deferred, or be ``async
    def``. The two are never called while another call of either runs, and every start is followed by exactly one stop, also
    when it failed. A hook that does not answer in time is cancelled.
    """

    builds_may_be_incompatible: bool = False
    """Whether `isCompatibleWithBuild` is to be asked before a build gets an instance that is already there."""

    build_wait_timeout: float = 600.0
    missing_timeout = 1200.0
    check_instance_interval: float = 10.0
    start_timeout: float = 900.0
    stop_timeout: float = 300.0
    reattach_timeout: float = 60.0

    enrolment: Enrolment | None = None
    """Who the instance is: set by the controller before start_instance and resume_instance, and kept until after the stop."""

    when_instance_changed: Callable[[], None] | None = None
    """Set by the controller; see `instance_changed`."""

    agent_attached: bool = False
    """Set by the controller: whether an agent of the attempt has ever attached. If not, its instance may be no good."""

    handle_keeper: Callable[[Attempt, JSON], Deferred[None]] | None = None
    """Set by the controller; see `keep_handle`."""

    instance_lives: Callable[[], bool] | None = None
    """Set by the controller; see `is_wanted`."""

    keywords = frozenset({"build_wait_timeout", "check_instance_interval", "start_timeout", "stop_timeout", "reattach_timeout"})

    def checkConfig(self, name: str, password: str | None = None, **kwargs: Any) -> None:
        times = {keyword: kwargs.pop(keyword, None) for keyword in AbstractLatentWorker.keywords}
        super().checkConfig(name, password, **kwargs)
        for keyword, value in times.items():
            take_seconds(self, keyword, value, least=-math.inf if keyword == "build_wait_timeout" else None)

    def reconfigService(self, name: str, password: str | None = None, **kwargs: Any) -> Any:
        AbstractLatentWorker.checkConfig(self, name, password, **kwargs)
        return succeed(None)

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    def start_instance(self, build: Any) -> Any:
        """Start an instance whose agent will attach. ``build``: a `WorkerBuild`, or None when none is waiting for it.

        None, or an iterable of short strings that tell what was started. Raise LatentWorkerFailedToSubstantiate (or return
        False) when the infrastructure failed, LatentWorkerCannotSubstantiate when this build can't have an instance.
        """
        raise PluginError(f"{qualified(type(self))} has no start_instance")

    def stop_instance(self, fast: bool = False) -> Any:
        """Stop the attempt's instance, also if its start failed or was cut short. ``fast``: the controller is shutting down."""
        raise PluginError(f"{qualified(type(self))} has no stop_instance")

    def isCompatibleWithBuild(self, build_props: Properties) -> Any:
        """Whether the instance that is there (or being started) will do for a build with these properties."""
        return True

    def check_instance(self) -> Any:
        """(is_good, message). An error counts as (False, its text)."""
        return (True, "")

    def instance_handle(self) -> Any:
        """A JSON value that finds the instance again; asked for as soon as start_instance has answered."""
        return None

    def resume_instance(self, handle: JSON) -> Any:
        """After a restart of the controller: True if the instance of ``handle`` is there and is this attempt's."""
        return None

    def list_instances(self) -> Any:
        """Everything at the provider that carries our tags, other workers' and other controllers' too: `ListedInstance`."""
        return ()

    def list_scope(self) -> str:
        """What `list_instances` looks at (an account, a host): workers of a class that say the same share one call of it."""
        return self.name

    def destroy_instance(self, handle: JSON) -> Any:
        """Destroy the instance of ``handle``; idempotent, and it is confirmed to be gone when this answers."""
        raise PluginError(f"{qualified(type(self))} has no destroy_instance; make sure by hand that {shown(handle)} is gone")

    def check_live(self) -> Any:
        """Ask the provider, and change nothing there, whether it would do what the declaration wants.

        An iterable of mistakes, each "what; remedy". Called by ``latent checkconfig --live`` on a worker that is set up, outside
        any attempt. Workers that are declared alike but for their names share one call.
        """
        return ()

    def provider_status(self) -> ProviderStatus | None:
        """How the provider is, from what is known already: a plain function that asks nobody. Shared as `list_scope` says."""
        return None

    # --- what a subclass may use ---------------------------------------------------------------------------------------------

    def keep_handle(self, handle: JSON) -> Deferred[None]:
        """Put a handle on disk at once; fires when it is there.

        For a start that has to write down what it is about to ask for, so that it can be repeated or undone after a crash. The
        next one, or what instance_handle answers, takes its place. Outside a controller nothing is kept. PluginError outside an
        attempt, and for what JSON can't say.
        """
        attempt = enrolled(self, "keep_handle").attempt
        return succeed(None) if self.handle_keeper is None else self.handle_keeper(attempt, handle)

    def agent_environment(self) -> dict[str, str]:
        """The variables that `latent-agent` needs to attach as this attempt.

        PluginError outside an attempt; LatentWorkerConfigurationError when the controller does not speak the agent's protocol.
        """
        enrolment = enrolled(self, "agent_environment")
        server = enrolment.servers.get("peer")
        if server is None:
            raise LatentWorkerConfigurationError("no gateway listens for latent-agent; set c['protocols'] = {'peer': {...}}")
        return {
            "LATENT_SERVER": server,
            "LATENT_TOKEN": enrolment.agent_token,
            "LATENT_WORKER": enrolment.attempt.worker,
            "LATENT_ATTEMPT": str(enrolment.attempt.number),
        }

    def buildbot_environment(self, protocol: str | None = None) -> dict[str, str]:
        """The variables by which a stock `buildbot-worker`, as in its official image, attaches as this attempt.

        ``protocol``: one of `BUILDBOT_PROTOCOLS`; None is the first of them that the controller speaks. PluginError outside an
        attempt; LatentWorkerConfigurationError when the controller does not speak it.
        """
        enrolment = enrolled(self, "buildbot_environment")
        wanted = BUILDBOT_PROTOCOLS if protocol is None else (protocol,)
        spoken = [name for name in wanted if name in enrolment.servers]
        if not spoken:
            remedy = f"set c['protocols'] = {{{wanted[0]!r}: {{'port': 9989}}}}"
            raise LatentWorkerConfigurationError(f"no gateway listens for buildbot-worker over {' or '.join(wanted)}; {remedy}")
        host, _, port = enrolment.servers[spoken[0]].rpartition(":")
        return {
            "BUILDMASTER": host.removeprefix("[").removesuffix("]"),
            "BUILDMASTER_PORT": port,
            "BUILDMASTER_PROTOCOL": spoken[0],
            "WORKERNAME": enrolment.attempt.worker,
            "WORKERPASS": enrolment.agent_token,
        }

    def woodpecker_environment(self) -> dict[str, str]:
        """The variables by which a stock Woodpecker agent attaches as this attempt, through the same gateway as `latent-agent`.

        PluginError outside an attempt; LatentWorkerConfigurationError when the controller does not speak the agent's protocol.
        """
        told = self.agent_environment()
        return {
            "WOODPECKER_SERVER": told["LATENT_SERVER"],
            "WOODPECKER_AGENT_SECRET": told["LATENT_TOKEN"],
            "WOODPECKER_HOSTNAME": told["LATENT_WORKER"],
            "WOODPECKER_MAX_WORKFLOWS": str(self.max_builds),
            # Steps are command lines, not images.
            "WOODPECKER_BACKEND": "local",
        }

    def bot_environment(self) -> dict[str, str]:
        """The variables by which a bot of the Remote Workers API is told where to attach as this attempt.

        Its token goes into the metadata ``authorization: Bearer ...`` of its calls (as a stock bot's access token) or bot_id.
        PluginError outside an attempt; LatentWorkerConfigurationError when the controller does not listen for bots.
        """
        enrolment = enrolled(self, "bot_environment")
        server = enrolment.servers.get("bots")
        if server is None:
            raise LatentWorkerConfigurationError("no gateway listens for bots; set c['protocols'] = {'bots': {'port': 9990}}")
        return {
            "LATENT_BOTS_SERVER": server,
            "LATENT_BOTS_INSTANCE": self.labels.get("instance", ""),
            "LATENT_BOT_TOKEN": enrolment.agent_token,
            "LATENT_WORKER": enrolment.attempt.worker,
        }

    @property
    def agent_is_bot(self) -> bool:
        """Whether it is declared to have a bot: ``labels={"agent": "bot"}``."""
        return self.labels.get("agent") == "bot"

    def getRandomPass(self) -> str:
        """The attempt's agent token: the same while the instance is up. PluginError outside an attempt."""
        return enrolled(self, "getRandomPass").agent_token

    def is_wanted(self) -> bool:
        """Whether the time at which the instance expires is to be pushed forward now.

        For plugins whose provider has tags that can be changed, and that tell in `ListedInstance.expires_at` until when an
        instance is wanted: True while its agent gives signs of life, or is still to attach. Outside a controller it is True.
        """
        return self.instance_lives is None or self.instance_lives()

    def instance_changed(self) -> None:
        """Tell the controller that `check_instance` may answer something else now, so that it asks before the interval is over.

        For plugins whose provider tells what happens to an instance. It costs nothing to say it too often.
        """
        if self.when_instance_changed is not None:
            self.when_instance_changed()

    def failed_to_start(self, instance_id: str, instance_state: str) -> None:
        """Raise LatentWorkerFailedToSubstantiate for an instance that came into a wrong state."""
        raise LatentWorkerFailedToSubstantiate(f"instance {instance_id} failed to start: it is {instance_state}")

    # --- what the controller uses --------------------------------------------------------------------------------------------

    @classmethod
    def check_class(cls) -> None:
        check_hooks(cls, AbstractLatentWorker)

    def policy(self) -> Policy:
        return Policy(
            build_wait_timeout=self.build_wait_timeout,
            missing_timeout=self.missing_timeout,
            check_instance_interval=self.check_instance_interval,
            start_timeout=self.start_timeout,
            stop_timeout=self.stop_timeout,
            reattach_timeout=self.reattach_timeout,
            has_machine=self.machine_name is not None,
        )

    def supports(self, hook: str) -> bool:
        """Whether the plugin has a hook of its own, one of `OPTIONAL_HOOKS`."""
        if hook not in OPTIONAL_HOOKS:
            raise ValueError(f"{hook} is not an optional hook")
        return hook in vars(self) or getattr(type(self), hook) is not getattr(AbstractLatentWorker, hook)


def scope_of(worker: AbstractLatentWorker) -> str:
    """Its `list_scope`, so that no two classes say the same."""
    return f"{type(worker).__name__} {worker.list_scope()}"


def enrolled(worker: AbstractLatentWorker, what: str) -> Enrolment:
    """The worker's enrolment. PluginError outside an attempt, which says that ``what`` needs one."""
    if worker.enrolment is None:
        raise PluginError(f"{qualified(type(worker))}: {what} was called outside an attempt; call it in start_instance")
    return worker.enrolment
