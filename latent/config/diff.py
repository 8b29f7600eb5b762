"""What is different between two configurations, so that a reload touches that and nothing else."""

from __future__ import annotations

from typing import Any

from attrs import asdict, astuple, fields, frozen

from latent.config.builder import Builder
from latent.config.database import without_password
from latent.config.protocols import BUILDBOT
from latent.config.settings import Bots, Buildbot, Config
from latent.worker.declaration import Declaration


@frozen
class WorkerAdded:
    name: str

    def __str__(self) -> str:
        return f"worker {self.name}: added"


@frozen
class WorkerRemoved:
    name: str

    def __str__(self) -> str:
        return f"worker {self.name}: removed"


@frozen
class WorkerChanged:
    """Its declaration is another. ``replaced``: its class is another now, or
    does other things, so that the object that is there can't become it."""

    name: str
    replaced: bool = False

    def __str__(self) -> str:
        return f"worker {self.name}: {'replaced, its class is another' if self.replaced else 'changed'}"


@frozen
class BuilderAdded:
    name: str

    def __str__(self) -> str:
        return f"builder {self.name}: added"


@frozen
class BuilderRemoved:
    """Nobody can ask for its builds any more; those that were asked for go on."""

    name: str

    def __str__(self) -> str:
        return f"builder {self.name}: removed"


@frozen
class BuilderChanged:
    """Builds asked for from now on are different; those that were asked for before stay as they were."""

    name: str

    def __str__(self) -> str:
        return f"builder {self.name}: changed"


@frozen
class MachineChange:
    """A machine of ``c["machines"]``. ``what``: "added", "removed, ...", "changed"."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"machine {self.name}: {self.what}"


@frozen
class SettingChanged:
    """Can be applied while the controller runs. ``key`` is as in master.cfg, with dots: ``limits.max_instances``."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


@frozen
class RestartNeeded:
    """Is applied when the controller is started again; until then it goes on with the old value. Passwords are blanked out."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}, at the next start of the controller"


Change = (
    WorkerAdded
    | WorkerRemoved
    | WorkerChanged
    | BuilderAdded
    | BuilderRemoved
    | BuilderChanged
    | MachineChange
    | SettingChanged
    | RestartNeeded
)


def diff(old: Config, new: Config) -> list[Change]:
    """What leads from ``old`` to ``new``. Removals come first, so that what they free can be used; order has no meaning else."""
    changes: list[Change] = [WorkerRemoved(name) for name in old.workers if name not in new.workers]
    changes += [BuilderRemoved(name) for name in old.builders if name not in new.builders]
    for name, worker in new.workers.items():
        before = old.workers.get(name)
        if before is None:
            changes.append(WorkerAdded(name))
        elif Declaration(type(before), (), {}) != Declaration(type(worker), (), {}):
            changes.append(WorkerChanged(name, replaced=True))
        elif before.declaration != worker.declaration:
            changes.append(WorkerChanged(name))
    for name, builder in new.builders.items():
        if name not in old.builders:
            changes.append(BuilderAdded(name))
        elif _builder(old.builders[name]) != _builder(builder):
            changes.append(BuilderChanged(name))
    return changes + _machines(old, new) + _settings(old, new)


def _machines(old: Config, new: Config) -> list[Change]:
    changes: list[Change] = [
        MachineChange(name, "removed; it is stopped when no instance is on it")
        for name in old.machines
        if name not in new.machines
    ]
    for name, machine in new.machines.items():
        before = old.machines.get(name)
        if before is None:
            changes.append(MachineChange(name, "added"))
        elif before.declaration != machine.declaration:
            changes.append(MachineChange(name, "changed"))
    return changes


def _settings(old: Config, new: Config) -> list[Change]:
    live, fixed = _live(old), _fixed(old)
    changes: list[Change] = [SettingChanged(key, live[key], value) for key, value in _live(new).items() if live[key] != value]
    changes += [RestartNeeded(key, fixed[key], value) for key, value in _fixed(new).items() if fixed[key] != value]
    if old.db_url != new.db_url:
        changes.append(RestartNeeded("db.url", without_password(old.db_url), without_password(new.db_url)))
    return changes


def _live(config: Config) -> dict[str, Any]:
    return {
        "title": config.title,
        "journal_days": config.journal_days,
        "limits.max_instances": config.limits.max_instances,
        "limits.max_starting": config.limits.max_starting,
        "limits.session_timeout": config.limits.session_timeout,
        "limits.lease_seconds": config.limits.lease_seconds,
        **{f"reaper.{key}": value for key, value in asdict(config.reaper).items()},
    }


def _fixed(config: Config) -> dict[str, Any]:
    return {
        **{f"protocols.peer.{key}": value for key, value in asdict(config.peer).items()},
        **{
            f"protocols.{protocol}.{field.name}": getattr(config.buildbot.get(protocol), field.name, None)
            for protocol in BUILDBOT
            for field in fields(Buildbot)
        },
        **{f"protocols.bots.{field.name}": getattr(config.bots, field.name, None) for field in fields(Bots)},
        "www.port": None if config.www is None else config.www.port,
        "www.interface": None if config.www is None else config.www.interface,
    }


def _builder(builder: Builder) -> Declaration:
    """Compared as workers are: a function of master.cfg is another object at every load, and equal if it does the same."""
    fields = asdict(builder, recurse=False)
    steps = tuple(astuple(step, recurse=False) for step in fields.pop("steps"))
    return Declaration(Builder, steps, fields)
