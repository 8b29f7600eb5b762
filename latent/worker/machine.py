"""Machines that workers live on, as they are declared in ``c["machines"]``. Names and meaning are Buildbot's.

A latent machine is started for the instances of its workers (those declared with its name as ``machine_name``), and stopped when
none of them has built for `AbstractLatentMachine.build_wait_timeout`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, succeed

from latent.core.machines import MachinePolicy
from latent.errors import ConfigError, PluginError
from latent.worker import values
from latent.worker.checking import raised_by
from latent.worker.declaration import Declaration
from latent.worker.words import did_you_mean, shown


class Machine:
    """A machine that is always there: a name for several workers. Constructing one checks its declaration and does nothing else.

    Raises ConfigError with everything that is wrong.
    """

    keywords: ClassVar[frozenset[str]] = frozenset()
    """Keywords beside those that the signature of checkConfig names; a subclass's are added to them."""

    name: str
    reactor: Any = None
    """Set by the controller before any hook is called."""
    state_dir: Path = Path("state")
    """Set by the controller: where the machine may keep files of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__declaration = Declaration(type(self), args, kwargs)
        self.__errors: list[str] | None = []
        self.__label = shown(args[0] if args else kwargs.get("name"))
        self.check_class()
        self.__check(args, kwargs)
        errors, self.__errors = self.__errors, None
        if errors:
            raise ConfigError(errors)
        if not isinstance(getattr(self, "name", None), str):
            raise PluginError(f"{_qualified(type(self))}.checkConfig does not call super().checkConfig(name, **kwargs)")

    def checkConfig(self, name: str, **kwargs: Any) -> None:
        """Check the declaration; a plain function. A subclass checks its own keywords and hands all others on.

        Report with `config_error`, which collects, or raise ConfigError or ValueError.
        """
        for keyword in kwargs:
            remedy = did_you_mean(keyword, self.__keywords(), f"keywords of {type(self).__name__}")
            self.config_error(f"{type(self).__name__} has no keyword {keyword!r}; {remedy}")
        self.name = self.take(values.name, name, default=str(name), subject="the name of a machine")

    def reconfigService(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Take the declaration over: called at the first set-up and at each change of it, with what checkConfig let pass.

        It does what checkConfig does. A subclass that has more to do, or to wait for, does that and calls this.
        """
        type(self).checkConfig(self, name, *args, **kwargs)
        return succeed(None)

    def mistakes(self, directory: Path) -> Iterable[str]:
        """What is wrong with what the declaration names on this machine (files, programs), each "what; remedy".

        Paths that are not absolute begin at ``directory``, that of master.cfg.
        """
        return ()

    def config_error(self, message: str) -> None:
        """Report a mistake ("what; remedy"): together with all others while the machine is constructed, else at once."""
        full = f"machine {self.__label}: {message}"
        if self.__errors is None:
            raise ConfigError(full)
        if full not in self.__errors:
            self.__errors.append(full)

    def take(self, check: Any, *args: Any, default: Any, subject: str = "", **kwargs: Any) -> Any:
        """What ``check`` makes of a value; ``default`` after it was reported that it is wrong."""
        try:
            return check(*args, **kwargs)
        except ConfigError as error:
            for message in error.errors:
                self.config_error(message.replace("the name of a worker", subject) if subject else message)
            return default

    # --- what the controller uses --------------------------------------------------------------------------------------------

    @classmethod
    def check_class(cls) -> None:
        """Raises PluginError if the class itself can't be a machine."""

    @property
    def declaration(self) -> Declaration:
        """Equal iff nothing changed."""
        return self.__declaration

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What reconfigService is called with: (args, kwargs)."""
        return self.__declaration.args, dict(self.__declaration.kwargs)

    def adopt_declaration(self, other: Machine) -> None:
        """This machine has been reconfigured to be what ``other`` was declared as."""
        self.__declaration = other.__declaration

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'name', '?')}>"

    # --- inside, under names that no plugin uses by chance ------------------------------------------------------------------

    def __check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            inspect.signature(self.checkConfig).bind(*args, **kwargs)
        except TypeError as error:
            what = f"machine {self.__label}: {type(self).__name__}: {error}; see its documentation for its arguments"
            raise ConfigError(what) from None
        try:
            answer: object = self.checkConfig(*args, **kwargs)  # type: ignore[func-returns-value]  # a wrong plugin's may
        except ConfigError as error:
            raise ConfigError([*(self.__errors or ()), *error.errors]) from error
        except ValueError as error:
            raise ConfigError([*(self.__errors or ()), f"machine {self.__label}: {error}"]) from error
        except Exception as error:
            if self.__errors:  # what was reported may well be what it stumbled over
                raise ConfigError(self.__errors) from error
            raise PluginError(raised_by(type(self), "checkConfig", error)) from error
        if isinstance(answer, Deferred) or inspect.iscoroutine(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise PluginError(f"{_qualified(type(self))}.checkConfig must be a plain function; wait in reconfigService")

    def __keywords(self) -> set[str]:
        names: set[str] = set()
        for base in type(self).__mro__[:-1]:
            names |= base.__dict__.get("keywords", frozenset())
            function = base.__dict__.get("checkConfig")
            if inspect.isfunction(function):
                parameters = list(inspect.signature(function).parameters.values())[1:]
                names |= {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        return names


class AbstractLatentMachine(Machine):
    """A machine that is up only while its workers build. A subclass defines `start_machine` and `stop_machine`.

    Both may return a plain value or a Deferred, or be ``async def``. They are never called while another call of either runs.
    After every start, also one that failed, comes a stop; one that fails is tried again. After a crash of the controller in the
    middle of a call the same is called once more: a start of a machine that is up, and a stop of one that is down, do no harm.
    """

    keywords = frozenset({"build_wait_timeout", "missing_timeout", "stop_timeout"})

    build_wait_timeout: float = 0.0
    """Seconds after the last build until it is stopped. 0: at once; below 0: not before the controller is."""
    missing_timeout: float = 1200.0
    """Seconds that start_machine has to answer; then it is cancelled, and the builds go elsewhere."""
    stop_timeout: float = 300.0

    def checkConfig(self, name: str, **kwargs: Any) -> None:
        times = {keyword: kwargs.pop(keyword, None) for keyword in sorted(AbstractLatentMachine.keywords)}
        super().checkConfig(name, **kwargs)
        for keyword, value in times.items():
            default = getattr(type(self), keyword)
            least = -math.inf if keyword == "build_wait_timeout" else None
            seconds = default if value is None else self.take(values.seconds, keyword, value, least=least, default=default)
            setattr(self, keyword, seconds)

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    def start_machine(self) -> Any:
        """Start it; it is up when this answers. Raise, or return False, when it can't be started."""
        raise PluginError(f"{_qualified(type(self))} has no start_machine")

    def stop_machine(self) -> Any:
        """Stop it; no instance is on it any more. Raise, or return False, when it may still be up: it is tried again."""
        raise PluginError(f"{_qualified(type(self))} has no stop_machine")

    # --- what the controller uses --------------------------------------------------------------------------------------------

    @classmethod
    def check_class(cls) -> None:
        for hook in ("start_machine", "stop_machine"):
            function = getattr(cls, hook)
            if not callable(function) or function is getattr(AbstractLatentMachine, hook):
                raise PluginError(f"{_qualified(cls)} has no {hook}; define {hook}(self)")

    def policy(self) -> MachinePolicy:
        return MachinePolicy(
            build_wait_timeout=self.build_wait_timeout,
            missing_timeout=self.missing_timeout,
            stop_timeout=self.stop_timeout,
        )


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
