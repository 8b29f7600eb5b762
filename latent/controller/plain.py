"""A plain worker: its agent is always on, so there is no instance to start; it is there when a session of it is."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from latent.controller.clock import Clock
from latent.core import quarantine as quarantining
from latent.core.quarantine import Quarantine
from latent.killpoints import here, passing
from latent.store import journal
from latent.store.database import Store
from latent.worker.base import AbstractWorker

log = Logger()


class PlainWorker:
    """What the dispatcher needs of a worker without a lifecycle. ``drop_session`` closes a session by its id."""

    latent = False

    def __init__(
        self,
        plugin: AbstractWorker,
        quarantine: Quarantine,
        *,
        store: Store,
        clock: Clock,
        drop_session: Callable[[str, str, str], None],
        changed: Callable[[str], None],
        jitter: Callable[[], float],
    ) -> None:
        self.plugin = plugin
        self.name = plugin.name
        self.quarantine = quarantine
        self.since = clock.seconds()
        self.session: str | None = None
        self.removed = False
        self.setting_up = True
        self.unusable = ""
        self._store = store
        self._clock = clock
        self._drop_session = drop_session
        self._changed = changed
        self._jitter = jitter

    @property
    def state_name(self) -> str:
        return "ATTACHED" if self.session else "DETACHED"

    def attach(self, session: str, accepted: Callable[[], None]) -> Deferred[None]:
        """The newest agent is the worker's: one that comes back after a crash must not wait for its old session to lapse."""
        if self.session not in (None, session):
            self._drop_session(self.name, str(self.session), "another agent attached with this worker's password")
        accepted()
        self._set(session)
        return succeed(None)

    def detach(self, session: str) -> None:
        if self.session == session:
            self._set(None)

    def _set(self, session: str | None) -> None:
        self.session = session
        self.since = self._clock.seconds()
        self._changed(self.name)

    def why_closed(self) -> str:
        if self.removed:
            return "no longer declared"
        if self.unusable:
            return self.unusable
        if self.setting_up:
            return "it is being set up"
        if self.session is None:
            return "its agent is not attached"
        return quarantining.why_closed(self.quarantine, self._clock.seconds())

    def pause(self, paused: bool) -> Deferred[None]:
        """Fires when it is on disk."""
        change = quarantining.pause if paused else quarantining.unpause
        return self._set_quarantine(change(self.quarantine))

    def blame(self, reason: str) -> None:
        """Its agent failed in a way that is not the build's fault: others are to have builds first, for a while."""
        self._set_quarantine(quarantining.failed(self.quarantine, reason, self._clock.seconds(), self._jitter()))

    def good_build(self) -> None:
        if self.quarantine != (better := quarantining.good_build(self.quarantine)):
            self._set_quarantine(better)

    def _set_quarantine(self, quarantine: Quarantine) -> Deferred[None]:
        self.quarantine = quarantine
        doc = attrs.asdict(quarantine)
        here("plain.backoff.before")
        saved = self._store.write(lambda conn: journal.save_quarantine(conn, self.name, doc)).addCallbacks(
            passing("plain.backoff.written"),
            lambda f: log.failure("{worker}: its back-off could not be saved", failure=f, worker=self.name),
        )
        self._changed(self.name)
        return saved
