"""What all workers have in common: their declaration, checked when it is written down and compared when it is read again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import Deferred, succeed

from latent.errors import (
    ConfigError,
    PluginError,
)
from latent.model import Offer
from latent.worker import values
from latent.worker.checking import keywords_of, raised_by
from latent.worker.declaration import Declaration
from latent.worker.properties import Properties
from latent.worker.words import did_you_mean, shown

T = TypeVar("T")

_PLACE = re.compile(r"\{n(?::0?\d{1,2}d?)?\}")

MOST_IN_POOL = 100_000

UNSUPPORTED = {
    "locks": "give builds labels, and workers max_builds",
    "keepalive_interval": "take it out: it is a setting of c['protocols']['pb'], for all agents that speak it",
}
"""Buildbot's keywords that mean nothing here, and what to do instead."""


COMMON_SETTINGS = frozenset(
    {
        "build_wait_timeout",
        "missing_timeout",
        "check_instance_interval",
        "start_timeout",
        "stop_timeout",
        "reattach_timeout",
        "max_builds",
        "notify_on_missing",
        "labels",
        "properties",
        "defaultProperties",
    }
)
"""The common keywords that no instance depends on."""


class AbstractWorker:
    """What all workers have in common. Constructing one checks its declaration and changes nothing else in the world.

    Raises ConfigError with everything that is wrong, PluginError when checkConfig itself is broken.
    """

    renderables: ClassVar[Sequence[str]] = ()
    """The keywords that may be decided by a build's properties, for whoever reads the class."""

    keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "max_builds",
            "notify_on_missing",
            "missing_timeout",
            "properties",
            "defaultProperties",
            "machine_name",
            "labels",
        }
    )
    """Keywords beside those that the signatures of checkConfig and reconfigService name; a subclass's are added to them."""

    settings: ClassVar[frozenset[str]] = frozenset()
    """The keywords that no instance depends on, beside the common ones: when they change, one that is up may stay."""

    missing_timeout: float = 3600.0

    name: str
    password: str | None
    max_builds: int
    """How many builds at once; 1 where the declaration says nothing."""
    labels: Mapping[str, str]
    properties: Properties
    defaultProperties: Properties
    notify_on_missing: tuple[str, ...]
    machine_name: str | None

    reactor: Any = None
    """Set by the controller before any hook is called: timers, threads, processes."""
    state_dir: Path = Path("state")
    """Set by the controller: where the worker may keep files of its instances."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.check_class()
        count = kwargs.pop("count", None)
        self.__declaration = Declaration(type(self), args, kwargs, type(self).settings | COMMON_SETTINGS)
        self.__count = count
        self.__errors: list[str] | None = []
        self.__label = shown(args[0] if args else kwargs.get("name"))
        template, args, kwargs = self.__first_of_pool(count, args, kwargs)
        self.__check(args, kwargs)
        errors, self.__errors = self.__errors, None
        if errors:
            raise ConfigError(errors)
        if not isinstance(getattr(self, "name", None), str):
            raise PluginError(f"{qualified(type(self))}.checkConfig does not call super().checkConfig(name, password, **kwargs)")
        if template is not None:
            self.name = template

    # --- what a subclass overrides -------------------------------------------------------------------------------------------

    def checkConfig(self, name: str, password: str | None = None, **kwargs: Any) -> None:
        """Check the declaration; a plain function. A subclass checks its own keywords and hands all others on.

        Report with `config_error`, which collects, or raise ConfigError or ValueError.
        """
        common = {keyword: kwargs.pop(keyword, None) for keyword in AbstractWorker.keywords}
        for keyword in kwargs:
            self.config_error(self.__unknown(keyword))
        self.name = taken(self, values.name, name, default=str(name))
        self.password = taken_if_given(self, values.text, "password", password)
        self.max_builds = taken_if_given(self, values.number, "max_builds", common["max_builds"], default=1)
        self.notify_on_missing = taken(self, values.texts, "notify_on_missing", common["notify_on_missing"], default=())
        take_seconds(self, "missing_timeout", common["missing_timeout"])
        self.properties = _properties(self, "properties", common["properties"], "Worker")
        self.defaultProperties = _properties(self, "defaultProperties", common["defaultProperties"], "Worker (default)")
        self.machine_name = taken_if_given(self, values.text, "machine_name", common["machine_name"])
        self.labels = taken(self, values.labels, common["labels"], default={})
        self.__offer: Offer = {**{k: frozenset({v}) for k, v in self.labels.items()}, "worker": frozenset({self.name})}

    def reconfigService(self, name: str, password: str | None = None, **kwargs: Any) -> Any:
        """Take the declaration over: called at the first set-up and at each change of it, with what checkConfig let pass.

        A subclass sets its attributes and calls this, in a plain method, in one that returns a Deferred, or in an ``async
        def`` one (``await super().reconfigService(...)``).
        """
        AbstractWorker.checkConfig(self, name, password, **kwargs)
        return succeed(None)

    # --- what a subclass may use ---------------------------------------------------------------------------------------------

    def config_error(self, message: str) -> None:
        """Report a mistake ("what; remedy"): together with all others while the worker is constructed, else at once."""
        full = f"worker {self.__label}: {message}"
        if self.__errors is None:
            raise ConfigError(full)
        if full not in self.__errors:
            self.__errors.append(full)

    # --- what the controller uses --------------------------------------------------------------------------------------------

    @classmethod
    def check_class(cls) -> None:
        """Raises PluginError if the class itself can't be a worker."""

    @property
    def workername(self) -> str:
        """Buildbot's other name for ``name``."""
        return self.name

    @property
    def declaration(self) -> Declaration:
        """Equal iff nothing changed."""
        return self.__declaration

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What reconfigService is called with: (args, kwargs)."""
        return self.__declaration.args, dict(self.__declaration.kwargs)

    def adopt_declaration(self, other: AbstractWorker) -> None:
        """This worker has been reconfigured to be what ``other`` was declared as."""
        self.__declaration = other.__declaration

    def offer(self) -> Offer:
        """What it offers to builds: its labels, and its name as ``worker``."""
        return self.__offer

    def expand(self) -> list[AbstractWorker]:
        """The workers that the declaration stands for: ``("linux-{n}", count=3)`` is linux-1, linux-2 and linux-3."""
        if self.__count is None:
            return [self]
        args, kwargs = self.arguments
        template = self.name
        pool = []
        for n in range(1, self.__count + 1):
            named_args, named_kwargs = _named(template.format(n=n), args, kwargs)
            pool.append(type(self)(*named_args, **named_kwargs))
        return pool

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'name', '?')}>"

    # --- inside, under names that no plugin uses by chance ------------------------------------------------------------------

    def __check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            inspect.signature(self.checkConfig).bind(*args, **kwargs)
        except TypeError as error:
            raise ConfigError([*(self.__errors or ()), f"worker {self.__label}: {self.__misfit(error, kwargs)}"]) from None
        try:
            answer: object = self.checkConfig(*args, **kwargs)  # type: ignore[func-returns-value]  # a wrong plugin's may
        except ConfigError as error:
            raise ConfigError([*(self.__errors or ()), *error.errors]) from error
        except ValueError as error:
            raise ConfigError([*(self.__errors or ()), f"worker {self.__label}: {error}"]) from error
        except PluginError:
            raise
        except Exception as error:
            if self.__errors:  # what was reported may well be what it stumbled over
                raise ConfigError(self.__errors) from error
            raise PluginError(raised_by(type(self), "checkConfig", error)) from error
        if isinstance(answer, Deferred) or inspect.iscoroutine(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise PluginError(
                f"{qualified(type(self))}.checkConfig must be a plain function; do what has to wait in reconfigService"
            )

    def __misfit(self, error: TypeError, kwargs: Mapping[str, Any]) -> str:
        taken = keywords_of(type(self))
        unknown = [keyword for keyword in kwargs if keyword not in taken]
        if unknown:
            return self.__unknown(unknown[0])
        return f"{type(self).__name__}: {error}; see its documentation for its arguments"

    def __unknown(self, keyword: str) -> str:
        if keyword in UNSUPPORTED:
            return f"{keyword} is not supported; {UNSUPPORTED[keyword]}"
        known = {*keywords_of(type(self)), "count"}
        remedy = did_you_mean(keyword, known, f"keywords of {type(self).__name__}")
        return f"{type(self).__name__} has no keyword {keyword!r}; {remedy}"

    def __first_of_pool(
        self, count: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str | None, tuple[Any, ...], dict[str, Any]]:
        """The pool's template, and the arguments of its first worker, which are checked in place of all."""
        name = args[0] if args else kwargs.get("name")
        has_place = isinstance(name, str) and _PLACE.search(name) is not None
        if count is None:
            if has_place:
                self.config_error("the name has a place for a number; add count=N, or take it out")
                raise ConfigError(self.__errors or [])
            return None, args, kwargs
        taken(self, values.number, "count", count, most=MOST_IN_POOL, default=1)
        if not isinstance(name, str) or not has_place or set("{}") & set(_PLACE.sub("", name)):
            self.config_error("count=N needs a name with a place for the number; write '{n}' in it, 'linux-{n}' for example")
            raise ConfigError(self.__errors or [])
        return name, *_named(name.format(n=1), args, kwargs)


class Worker(AbstractWorker):
    """A plain worker: its agent is always on and attaches with ``password``."""

    def checkConfig(self, name: str, password: str | None = None, **kwargs: Any) -> None:
        super().checkConfig(name, password, **kwargs)
        if password is None:
            self.config_error(
                "a plain worker has no password; give the one that its agent attaches with: Worker('NAME', 'PASSWORD')"
            )


def taken(worker: AbstractWorker, check: Callable[..., T], *args: Any, default: Any, **kwargs: Any) -> Any:
    """What ``check`` makes of a value of the declaration; ``default`` after it was reported that it is wrong."""
    try:
        return check(*args, **kwargs)
    except ConfigError as error:
        for message in error.errors:
            worker.config_error(message)
        return default


def taken_if_given(worker: AbstractWorker, check: Callable[..., T], keyword: str, value: Any, default: Any = None) -> Any:
    """The same, where None stands for ``default``."""
    return default if value is None else taken(worker, check, keyword, value, default=default)


def take_seconds(worker: AbstractWorker, keyword: str, value: float | None, least: float | None = None) -> None:
    """Set the attribute; to the class's default when nothing is given."""
    default = getattr(type(worker), keyword)
    number = default if value is None else taken(worker, values.seconds, keyword, value, least=least, default=default)
    setattr(worker, keyword, number)


def _properties(worker: AbstractWorker, keyword: str, value: Any, source: str) -> Properties:
    return Properties(taken(worker, values.properties, keyword, value, default={}), source)


def _named(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((name, *args[1:]), dict(kwargs)) if args else (args, {**kwargs, "name": name})


def qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
