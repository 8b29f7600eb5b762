"""A configuration that was checked: what `latent.config.loader.load` returns and the controller runs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from latent.config.builder import Builder
from latent.worker.base import AbstractWorker
from latent.worker.machine import Machine


@frozen(kw_only=True)
class Peer:
    """Where agents attach. ``port`` 0: any free one. ``advertise``: the ``host:port`` that agents are told, if it is another."""

    port: int = 0
    interface: str = "127.0.0.1"
    advertise: str | None = None

    def bind(self, port: int) -> str:
        """What to listen on, as ``host:port``."""
        return f"{self._host}:{port}"

    def address(self, bound_port: int) -> str:
        """What an agent is told to dial, once the controller listens on ``bound_port``."""
        if self.advertise is not None:
            return self.advertise
        return f"{self._host}:{bound_port}"

    @property
    def _host(self) -> str:
        return f"[{self.interface}]" if ":" in self.interface else self.interface


def _blanked(secret: str | None) -> str:
    return "None" if secret is None else "'...'"


@frozen(kw_only=True)
class PeerAgents(Peer):
    """Where agents attach that speak the peer protocol. ``token``: with it any plain worker's agent may come, see
    `latent.controller.sessions.Sessions.name`. ``version``: told to agents that do not tell which one is theirs."""

    token: str | None = field(default=None, repr=_blanked)
    version: int = 16


@frozen(kw_only=True)
class Tls:
    """Files in PEM, absolute. ``chain``: certificates between the controller's own and the authority's."""

    certificate: Path
    key: Path
    chain: Path | None = None

    def pem(self) -> tuple[bytes, bytes]:
        """The key, and the certificate with its chain."""
        certificates = [self.certificate, *([self.chain] if self.chain else [])]
        return self.key.read_bytes(), b"\n".join(path.read_bytes() for path in certificates)


@frozen(kw_only=True)
class Buildbot(Peer):
    """Where stock agents attach over one of Buildbot's protocols. ``keepalive_interval``: seconds between two questions whether
    an agent lives; three without any sign of life and it is dead."""

    tls: Tls | None = None
    keepalive_interval: float = 10.0


@frozen(kw_only=True)
class Bots(Peer):
    """Where bots attach. ``instances``: the names that they may come to; a worker's label ``instance`` says which is its own.

    ``keep_alive``: seconds after which a bot that has nothing to do, and says nothing, is gone.
    """

    tls: Tls | None = None
    instances: tuple[str, ...] = ("",)
    keep_alive: float = 600.0


@frozen(kw_only=True)
class Www:
    """Where the HTTP API listens on TCP, beside its local socket. ``port`` 0: any free one."""

    port: int
    interface: str = "127.0.0.1"


@frozen(kw_only=True)
class Limits:
    """``max_instances``: up at once, in all; ``max_starting``: starting at once; None is no limit.

    ``session_timeout``: seconds of silence after which an agent counts as lost. ``lease_seconds``: how long an agent may keep a
    run without renewing its lease.
    """

    max_instances: int | None = None
    max_starting: int | None = None
    session_timeout: float = 60.0
    lease_seconds: float = 60.0


@frozen(kw_only=True)
class ReaperSettings:
    """``interval``: seconds between two scans for leaked instances; None: only when somebody asks. ``dry_run``: only show them.

    ``min_age``: seconds; younger ones are left alone. ``grace``: seconds for which another controller's must have been expired.
    """

    interval: float | None = 300.0
    min_age: float = 60.0
    grace: float = 600.0
    dry_run: bool = False


@frozen(kw_only=True)
class Config:
    """All that master.cfg says. ``workers`` has pools expanded; it and ``builders`` are in the order of the file.

    ``buildbot``: those of Buildbot's protocols that are served, by their names. ``bots`` None: no bots are. ``db_url`` is an
    SQLAlchemy URL, its SQLite path absolute. ``www`` None: the API has only its local socket. ``journal_days``: how long the
    history of workers is kept; None is for ever.
    """

    path: Path
    workers: Mapping[str, AbstractWorker]
    builders: Mapping[str, Builder] = field(factory=dict)
    machines: Mapping[str, Machine] = field(factory=dict)
    peer: PeerAgents = field(factory=PeerAgents)
    buildbot: Mapping[str, Buildbot] = field(factory=dict)
    bots: Bots | None = None
    db_url: str
    www: Www | None = None
    limits: Limits = field(factory=Limits)
    reaper: ReaperSettings = field(factory=ReaperSettings)
    title: str = "latent"
    journal_days: float | None = 30.0
