"""One Docker daemon, as all workers of this process share it: its threads, its events, its images, its limit."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, TypeVarTuple
from weakref import WeakValueDictionary

import requests.exceptions
from attrs import frozen
from docker import APIClient
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.worker import ListedInstance, Shared, ThreadPool, discard
from latent_docker import containers
from latent_docker.events import EventStream
from latent_docker.faults import DaemonUnreachable, translate
from latent_docker.images import Images

log = Logger()

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS = 16
"""API calls at once at one daemon."""

CALL_TIMEOUT = 120
"""Seconds that a daemon has to answer one call."""

PING = 20.0
"""Seconds between two looks whether a daemon whose events are listened to is still there: a connection can die silently."""

AGAIN = 30.0
"""Seconds after which a daemon that could not be reached is tried again although others can be."""

_MATTERS = ("die", "oom", "destroy", "pause", "unpause", "kill", "health_status")
"""The events after which a container may be other than it was."""


class Client(APIClient):
    """docker-py's, but what the declaration's tls says counts before REQUESTS_CA_BUNDLE: requests has it the other way round."""

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        return super().merge_environment_settings(url, proxies, stream, self.verify if verify is None else verify, cert)


@frozen
class Endpoint:
    """Where a daemon is and how it is spoken to. ``version``: of the API, None for the newest both know. ``tls``: TLSConfig."""

    host: str
    version: str | None = None
    tls: Any = None

    @property
    def key(self) -> tuple[str, str | None, str]:
        """Equal for what comes to the same: master.cfg makes another TLSConfig at each load."""
        tls = "" if self.tls is None else repr(sorted(vars(self.tls).items()) if hasattr(self.tls, "__dict__") else self.tls)
        return self.host, self.version, tls

    def connect(self) -> APIClient:
        """Blocks: docker-py asks for the daemon's version."""
        _knock(self.host)
        more: dict[str, Any] = {"tls": self.tls} if self.tls else {}
        return Client(base_url=self.host, version=self.version or "auto", timeout=CALL_TIMEOUT, max_pool_size=THREADS + 8, **more)


class Daemon:
    """Made by `Daemon.of`, and kept by whoever uses it.

    ``down``: why it can't be reached, empty while it can. ``taken``: the keys of the instances that are on it or on their way.
    """

    _daemons: ClassVar[WeakValueDictionary[tuple[int, Any], Daemon]] = WeakValueDictionary()
    connect: ClassVar[Callable[[Endpoint], APIClient]] = Endpoint.connect

    def __init__(self, endpoint: Endpoint, reactor: Any) -> None:
        self.host = endpoint.host
        self.down = ""
        self.down_since = 0.0
        self._failed_at = 0.0
        self.listening = False
        self.taken: set[str] = set()
        self._endpoint = endpoint
        self._reactor = reactor
        self._lock = threading.Lock()
        self._kept: APIClient | None = None
        self._init: bool | None = None
        self._threads = ThreadPool.shared(f"docker {endpoint.host}", THREADS, reactor)
        self.images = Images(endpoint.host, self._client, reactor)
        self._listed: Shared[list[ListedInstance]] = Shared(lambda: self.run(containers.listed, self.host, adopt=discard))
        self._watchers: dict[str, Callable[[], None]] = {}
        self._events: EventStream | None = None
        self._ping: LoopingCall | None = None

    @classmethod
    def of(cls, endpoint: Endpoint, reactor: Any) -> Daemon:
        key = (id(reactor), endpoint.key)
        found = cls._daemons.get(key)
        if found is None:
            found = cls._daemons[key] = cls(endpoint, reactor)
        return found

    def __repr__(self) -> str:
        return f"<Docker daemon {self.host}>"

    # --- calls ---------------------------------------------------------------------------------------------------------------

    def run(self, func: Callable[[APIClient, *Ts], T], *args: *Ts, adopt: Callable[[T], object]) -> Deferred[T]:
        """``func(client, *args)`` in a thread; see `latent.worker.ThreadPool.run`. Errors are those of `latent_docker.faults`."""
        answer = self._threads.run(self._guarded, func, args, adopt=adopt)
        return answer.addCallbacks(self._reached, self._failed)

    def _guarded(self, func: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            return func(self._client(), *args)
        except Exception as error:
            raise translate(error, self.host) from error

    def _client(self) -> APIClient:
        with self._lock:
            if self._kept is None:
                try:
                    self._kept = type(self).connect(self._endpoint)
                    weakref.finalize(self, self._kept.close)
                except Exception as error:
                    told = translate(error, self.host)
                    if isinstance(told, DaemonUnreachable):
                        told.sent = False  # the version is all that was asked for
                    raise told from error
            return self._kept

    def _reached(self, result: T) -> T:
        if self.down:
            log.info("{host} answers again", host=self.host)
        self.down = ""
        return result

    def _failed(self, failure: Failure) -> Failure:
        if isinstance(failure.value, DaemonUnreachable):
            self._went_down(str(failure.value))
        return failure

    def _went_down(self, why: str) -> None:
        if not self.down:
            self.down_since = self._reactor.seconds()
            log.warn("{why}", why=why)
        self.down = why
        self._failed_at = self._reactor.seconds()

    def shown(self) -> str:
        """How it was when it was last spoken to, for an operator."""
        if self.down:
            return f"{self.down} (tried {self._reactor.seconds() - self._failed_at:.0f} s ago)"
        return f"{self.host}: {len(self.taken)} containers of ours"

    def worth_trying(self) -> bool:
        """Whether it can be reached, or could not a while ago."""
        return not self.down or self._reactor.seconds() - self._failed_at >= AGAIN

    def silent_for(self) -> float:
        """Seconds since it was last reachable; 0 while it is."""
        return float(self._reactor.seconds() - self.down_since) if self.down else 0.0

    async def has_init(self) -> bool:
        """Whether it can put an init process before a container's command, which reaps what the command leaves behind."""
        if self._init is None:
            self._init = await self.run(_has_init, adopt=discard)
        return self._init

    def listed(self) -> Deferred[list[ListedInstance]]:
        return self._listed.get()

    # --- events --------------------------------------------------------------------------------------------------------------

    def watch(self, changed: Callable[[], None], *names: str) -> None:
        """Call ``changed`` when a container of these names may have changed, and when the daemon comes or goes."""
        for name in names:
            self._watchers[name] = changed
        if self._events is None:
            listener = weakref.ref(self)
            endpoint, connect = self._endpoint, type(self).connect
            self._events = EventStream(self.host, lambda: connect(endpoint), self._reactor.callFromThread, listener)
            weakref.finalize(self, self._events.close)
            self._reactor.addSystemEventTrigger("during", "shutdown", self._events.close)
        if self._ping is None:
            self._ping = LoopingCall(self._look_alive)
            self._ping.clock = self._reactor
            self._ping.start(PING, now=False)

    def unwatch(self, *names: str) -> None:
        for name in names:
            self._watchers.pop(name, None)
        if not self._watchers and self._ping is not None:
            if self._ping.running:
                self._ping.stop()
            self._ping = None

    def connected(self) -> None:
        """What happened before is not told again, so everybody looks."""
        self.listening = True
        if self.down:
            log.info("{host} answers again", host=self.host)
        self.down = ""
        self._all_changed()

    def lost(self, why: str) -> None:
        self.listening = False
        self._went_down(why)
        self._all_changed()

    def event(self, event: dict[str, Any]) -> None:
        action = str(event.get("Action") or event.get("status") or "")
        name = (event.get("Actor") or {}).get("Attributes", {}).get("name", "")
        if action.partition(":")[0] in _MATTERS and (changed := self._watchers.get(name)) is not None:
            changed()

    def _all_changed(self) -> None:
        for changed in {id(changed): changed for changed in self._watchers.values()}.values():
            changed()

    def _look_alive(self) -> None:
        def gone(failure: Failure) -> None:
            if self._events is not None and failure.check(DaemonUnreachable):
                self._events.reconnect()

        self.run(lambda client: client.ping(), adopt=discard).addErrback(gone)


def _knock(host: str) -> None:
    """Raise at once if nobody listens at a Unix socket: docker-py would leave its socket open, once for each time it is asked."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect("/" + host.removeprefix("unix://").lstrip("/"))
            except OSError as error:
                raise requests.exceptions.ConnectionError(error) from error


def _has_init(client: APIClient) -> bool:
    """The daemon names its init program also when that is not installed; then it knows no version of it."""
    commit = (client.info().get("InitCommit") or {}).get("ID", "")
    return commit not in ("", "N/A")
