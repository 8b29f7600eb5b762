"""What plugins add to a configuration: ``from latent.plugins import worker, util``, then ``worker.EC2LatentWorker(...)``.

A distribution adds a name through an entry point of the group ``latent.worker``, ``latent.machine`` or ``latent.util``. It is
imported when the name is first used, so that the dependencies of a plugin that nobody uses need not be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

from latent.errors import PluginError
from latent.worker.abstract import AbstractWorker
from latent.worker.machine import Machine
from latent.worker.words import did_you_mean, kind


class UnknownPlugin(PluginError, AttributeError):
    """No installed distribution has a plugin of this name."""


class Namespace:
    """The plugins of one entry-point group, by name. ``check`` raises PluginError for an object that can't be one."""

    def __init__(
        self,
        group: str,
        check: Callable[[Any], None],
        entry_points: Callable[[str], Iterable[metadata.EntryPoint]] = lambda group: metadata.entry_points(group=group),
    ) -> None:
        self._group = group
        self._check = check
        self._entry_points = entry_points
        self._known: dict[str, list[metadata.EntryPoint]] | None = None
        self._loaded: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by those who look what kind of object this is; no plugin is called so
            raise AttributeError(name)
        return self.get(name)

    def __dir__(self) -> list[str]:
        return self.names()

    def __repr__(self) -> str:
        return f"<plugins of {self._group}>"

    def names(self) -> list[str]:
        """All that are installed, loaded or not."""
        return sorted(self._installed())

    def get(self, name: str) -> Any:
        """The plugin. PluginError (UnknownPlugin if there is none) that names the distribution and the remedy."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _installed(self, again: bool = False) -> dict[str, list[metadata.EntryPoint]]:
        if self._known is None or again:
            self._known = {}
            for entry_point in self._entry_points(self._group):
                self._known.setdefault(entry_point.name, []).append(entry_point)
        return self._known

    def _load(self, name: str) -> Any:
        found = self._installed().get(name) or self._installed(again=True).get(name, [])
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            where = " and ".join(sorted(f"{_distribution(entry_point)} ({entry_point.value})" for entry_point in found))
            raise PluginError(f"{self._group} has {name!r} twice, from {where}; uninstall one of them")
        return self._import(found[0])

    def _import(self, entry_point: metadata.EntryPoint) -> Any:
        who = f"{entry_point.name!r} of {_distribution(entry_point)} ({self._group}: {entry_point.value})"
        try:
            plugin = entry_point.load()
        except (Exception, SystemExit) as error:  # whatever its module does when it is imported
            cause = f"{type(error).__name__}: {error}"
            raise PluginError(f"the plugin {who} can't be loaded: {cause}; {_remedy(entry_point, error)}") from error
        try:
            self._check(plugin)
        except PluginError as error:
            raise PluginError(f"the plugin {who} can't be used: {error}") from error
        return plugin

    def _unknown(self, name: str) -> UnknownPlugin:
        known = self.names()
        if not known:
            remedy = "none is installed, not even latent's own: install latent itself (pip install -e . in a checkout)"
        else:
            remedy = f"{did_you_mean(name, known, 'the plugins')} If it is a distribution's of its own, install that"
        return UnknownPlugin(f"{self._group} has no plugin {name!r}; {remedy}", name=name, obj=self)


def _distribution(entry_point: metadata.EntryPoint) -> str:
    distribution = entry_point.dist
    return "a distribution without a name" if distribution is None else f"{distribution.name} {distribution.version}"


def _remedy(entry_point: metadata.EntryPoint, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and entry_point.extras and entry_point.dist is not None:
        return f"install what it needs: pip install '{entry_point.dist.name}[{','.join(entry_point.extras)}]'"
    if isinstance(error, ModuleNotFoundError):
        return f"install the module {error.name!r}, which it needs"
    return "update the distribution, or report this to whoever wrote it"


def _check_worker(plugin: Any) -> None:
    if not isinstance(plugin, type):
        raise PluginError(f"it is {kind(plugin)}, not a class; let the entry point name a subclass of AbstractLatentWorker")
    if not issubclass(plugin, AbstractWorker):
        name = f"{plugin.__module__}.{plugin.__qualname__}"
        raise PluginError(f"{name} is not a worker; subclass latent.worker.AbstractLatentWorker")
    plugin.check_class()


def _check_machine(plugin: Any) -> None:
    """A machine's class, or an action's."""
    if not isinstance(plugin, type):
        raise PluginError(f"it is {kind(plugin)}, not a class; let the entry point name a subclass of AbstractLatentMachine")
    if issubclass(plugin, Machine):
        plugin.check_class()
    elif not callable(getattr(plugin, "perform", None)):
        name = f"{plugin.__module__}.{plugin.__qualname__}"
        raise PluginError(f"{name} is neither a machine nor an action; subclass latent.worker.AbstractLatentMachine")


def _check_util(plugin: Any) -> None:
    if not callable(plugin):
        raise PluginError(f"it is {kind(plugin)}, which can't be called; let the entry point name a class or a function")


worker: Any = Namespace("latent.worker", _check_worker)
machine: Any = Namespace("latent.machine", _check_machine)
util: Any = Namespace("latent.util", _check_util)
