"""A named template of builds: steps, what they require of a worker, properties. Asked for, it becomes a `BuildRequest`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from latent import model
from latent.config import values
from latent.config.steps import Step, step
from latent.errors import ConfigError
from latent.model import INFRASTRUCTURE_ATTEMPTS, JSON, BuildRequest, Labels, Requirements
from latent.worker.properties import MissingProperty, Properties
from latent.worker.values import number
from latent.worker.words import kind, shown

COMMAND = "command"
"""The builder's name of a build that is a single command, without a declared builder."""


PRIORITIES = 2**31 - 1
"""The highest priority; its negative is the lowest. Every database holds as much in an integer column."""


@frozen(init=False)
class Builder:
    """What master.cfg declares in ``c["builders"]``.

    ``steps``: a list of `Step`, shell command lines and argument lists. ``labels``: what a worker must offer.
    ``workernames``: the only workers that may run it; None: any that offers the labels. ``properties``: values that a build
    has unless it is submitted with others. ``priority``: higher goes first. ``timeout``: seconds for all steps together,
    from when the worker takes the build. ``max_attempts``: how often it is tried when the infrastructure fails.

    Raises `ConfigError` with all that is wrong.
    """

    name: str
    steps: tuple[Step, ...]
    labels: Labels
    workernames: frozenset[str] | None
    properties: Mapping[str, JSON]
    priority: int
    timeout: float
    max_attempts: int
    description: str

    def __init__(
        self,
        name: str,
        steps: Sequence[Step | model.Step | str | Sequence[Any]],
        labels: Labels | None = None,
        workernames: Iterable[str] | None = None,
        properties: Mapping[str, JSON] | None = None,
        priority: int = 0,
        timeout: float = 3600.0,
        max_attempts: int = INFRASTRUCTURE_ATTEMPTS,
        description: str = "",
    ) -> None:
        errors: list[str] = []
        attributes: dict[str, Any] = {
            "name": values.collect(errors, values.name, "name", name, default="?"),
            "steps": values.collect(errors, _steps, steps, default=()),
            "labels": values.collect(errors, values.labels, "labels", labels, default={}),
            "workernames": values.collect(errors, _workernames, workernames, default=None),
            "properties": values.collect(errors, values.properties, "properties", properties, default={}),
            "priority": values.collect(errors, _priority, priority, default=0),
            "timeout": values.collect(errors, values.seconds, "timeout", timeout, default=0.0),
            "max_attempts": values.collect(errors, number, "max_attempts", max_attempts, default=1),
            "description": values.collect(errors, _description, description, default=""),
        }
        if errors:
            raise ConfigError([f"builder {shown(name)}: {error}" for error in errors])
        self.__attrs_init__(**attributes)

    async def request(
        self,
        properties: Mapping[str, JSON] | None = None,
        labels: Labels | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> BuildRequest:
        """A build of this builder. ``properties`` and ``labels`` are put over the declared ones, ``buildername`` is added.

        The steps are rendered here, once: every attempt of the build runs the same commands.

        Raises `ConfigError` for wrong values, and for a property without a value that a step needs.
        """
        errors: list[str] = []
        nothing: dict[str, Any] = {}
        asked = values.collect(errors, values.properties, "properties", properties, default=nothing)
        required = values.collect(errors, values.labels, "labels", labels, default=nothing)
        first = values.collect(errors, _priority, self.priority if priority is None else priority, default=0)
        within = values.collect(errors, values.seconds, "timeout", self.timeout if timeout is None else timeout, default=0.0)
        if errors:
            raise ConfigError([f"builder {self.name!r}: {error}" for error in errors])
        known = {**self.properties, **asked, "buildername": self.name}
        return BuildRequest(
            builder=self.name,
            steps=await self._rendered(known),
            requirements=Requirements(labels={**self.labels, **required}, workers=self.workernames),
            properties=known,
            priority=first,
            timeout=within,
            max_attempts=self.max_attempts,
        )

    async def _rendered(self, known: Mapping[str, JSON]) -> tuple[model.Step, ...]:
        properties = Properties(known, "build")
        rendered: list[model.Step] = []
        errors: list[str] = []
        for declared in self.steps:
            place = f"builder {self.name!r}, step {declared.label}"
            try:
                rendered.append(await declared.render(properties))
            except MissingProperty as missing:
                remedy = f"submit with -p {missing.name}=VALUE, or declare a default in the builder's properties"
                errors.append(f"{place}: property {missing.name!r} has no value; {remedy}")
            except ConfigError as error:
                errors += [f"{place}: {message}" for message in error.errors]
            except Exception as error:  # a renderer is the user's own code
                errors.append(f"{place}: rendering it raised {values.described(error)}; correct the renderer in master.cfg")
        if errors:
            raise ConfigError(errors)
        return tuple(rendered)


def command_request(
    command: str | Sequence[str],
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    properties: Mapping[str, JSON] | None = None,
    labels: Labels | None = None,
    workernames: Iterable[str] | None = None,
    priority: int = 0,
    timeout: float = 3600.0,
    max_attempts: int = INFRASTRUCTURE_ATTEMPTS,
) -> BuildRequest:
    """A build of one command, without a declared builder. ``name`` is the step's. Raises `ConfigError` with all that is wrong.

    ``timeout``, in seconds, is for the whole build; its one step has no other.
    """
    errors: list[str] = []
    placeholder = Step("true")
    only = values.collect(errors, Step, command, name=name, env=env or {}, workdir=workdir, timeout=None, default=placeholder)
    builder = values.collect(
        errors, Builder, COMMAND, [only], labels, workernames, properties, priority, timeout, max_attempts, default=None
    )
    if errors or builder is None:
        raise ConfigError(errors)
    return BuildRequest(
        builder=COMMAND,
        steps=(only.made(only.command, only.name, only.workdir, only.env),),
        requirements=Requirements(labels=builder.labels, workers=builder.workernames),
        properties={**builder.properties, "buildername": COMMAND},
        priority=builder.priority,
        timeout=builder.timeout,
        max_attempts=builder.max_attempts,
    )


def _steps(declared: Any) -> tuple[Step, ...]:
    if not isinstance(declared, list | tuple):
        raise ConfigError(f"steps is {kind(declared)}, {shown(declared)}, not a list; write steps=['make test']")
    if not declared:
        raise ConfigError("there are no steps; write steps=['make test']")
    errors: list[str] = []
    steps = tuple(values.collect(errors, step, one, default=Step("true")) for one in declared)
    if errors:
        raise ConfigError(errors)
    return steps


def _workernames(declared: Any) -> frozenset[str] | None:
    if declared is None:
        return None
    remedy = "write workernames=['w1'], or leave it out for any worker"
    if isinstance(declared, str) or not isinstance(declared, Iterable):
        raise ConfigError(f"workernames is {kind(declared)}, {shown(declared)}, not a list; {remedy}")
    names = list(declared)
    if not names:
        raise ConfigError(f"workernames is empty, so no worker may run it; {remedy}")
    return frozenset(values.text("a name in workernames", name, remedy=remedy) for name in names)


def _priority(declared: Any) -> int:
    if isinstance(declared, bool) or not isinstance(declared, int) or not -PRIORITIES <= declared <= PRIORITIES:
        raise ConfigError(f"priority is {shown(declared)}; write a whole number, 0 is usual and more goes first")
    return int(declared)


def _description(declared: Any) -> str:
    if not isinstance(declared, str):
        raise ConfigError(f"description is {kind(declared)}, {shown(declared)}, not a string; write a string")
    return declared
