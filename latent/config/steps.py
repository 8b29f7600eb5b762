"""One command of a builder, as master.cfg declares it; rendered with a build's properties it is a `latent.model.Step`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from latent import model
from latent.config import values
from latent.errors import ConfigError
from latent.worker.properties import Properties, is_renderable, render
from latent.worker.words import kind, shown

_COMMAND_REMEDY = "write a shell command line, 'make test', or a list of arguments, ['make', 'test']"


@frozen
class Step:
    """A command to run.

    ``command`` is a shell command line, or a list of arguments that no shell touches. It, its arguments, ``name``, ``workdir``
    and the values of ``env`` may be renderables (`Property`, `Interpolate`, `renderer`). ``name`` defaults to the command's
    first words. ``timeout``: seconds without output, ``max_time``: seconds in all, after which the step is ended; None never
    ends it. ``workdir`` is relative to the build's directory. ``always_run``: also after a step that failed.

    Raises `ConfigError` with all that is wrong.
    """

    command: Any
    name: Any = field(default=None, kw_only=True)
    env: Mapping[str, Any] = field(factory=dict, kw_only=True)
    workdir: Any = field(default=None, kw_only=True)
    timeout: float | None = field(default=1200.0, kw_only=True)
    max_time: float | None = field(default=None, kw_only=True)
    always_run: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        errors: list[str] = []
        if not is_renderable(self.command):
            values.collect(errors, _check_command, self.command, default=None)
        values.collect(errors, _check_texts, self, default=None)
        for attribute in ("timeout", "max_time"):
            if getattr(self, attribute) is not None:
                values.collect(errors, values.seconds, attribute, getattr(self, attribute), default=0.0)
        if not isinstance(self.always_run, bool):
            errors.append(f"always_run is {shown(self.always_run)}; write True or False")
        if errors:
            raise ConfigError([f"step {self.label}: {error}" for error in errors])

    @property
    def label(self) -> str:
        """The step as messages name it: by its name, else by its command."""
        return shown(self.command if self.name is None else self.name)

    async def render(self, properties: Properties) -> model.Step:
        """The step with all its renderables replaced. Raises `ConfigError` if one of them gives what can't be run."""
        command, name, workdir = [
            text if text is None or type(text) is str else await render(text, properties)
            for text in (self.command, self.name, self.workdir)
        ]
        return self.made(command, name, workdir, await render(dict(self.env), properties) if self.env else {})

    def made(self, command: Any, name: Any, workdir: Any, env: Mapping[str, Any]) -> model.Step:
        """The step with these values in the place of its renderables. Raises `ConfigError` for what can't be run."""
        checked = _rendered_command(command)
        return model.Step(
            name=_first_words(checked) if name is None else values.text("name", name),
            command=checked,
            env={key: _argument(f"env[{key!r}]", value) for key, value in env.items()},
            workdir=None if workdir is None else values.text("workdir", workdir),
            timeout=None if self.timeout is None else float(self.timeout),
            max_time=None if self.max_time is None else float(self.max_time),
            always_run=self.always_run,
        )


def step(declared: Any) -> Step:
    """A `Step` from what a builder's list of steps may hold: a Step, a `latent.model.Step`, or a bare command."""
    if isinstance(declared, Step):
        return declared
    if isinstance(declared, model.Step):
        return Step(
            declared.command,
            name=declared.name,
            env=declared.env,
            workdir=declared.workdir,
            timeout=declared.timeout,
            max_time=declared.max_time,
            always_run=declared.always_run,
        )
    return Step(declared)


def _check_command(command: Any) -> None:
    if isinstance(command, str):
        if not command.strip():
            raise ConfigError(f"the command is empty; {_COMMAND_REMEDY}")
        _argument("the command", command)
        return
    if not isinstance(command, list | tuple):
        raise ConfigError(f"the command is {kind(command)}, {shown(command)}; {_COMMAND_REMEDY}")
    if not command:
        raise ConfigError(f"the command has no arguments; {_COMMAND_REMEDY}")
    for argument in command:
        if not is_renderable(argument):
            _argument("an argument of the command", argument)


def _check_texts(declared: Step) -> None:
    errors: list[str] = []
    for subject in ("name", "workdir"):
        value = getattr(declared, subject)
        if value is not None and not is_renderable(value):
            values.collect(errors, values.text, subject, value, default="")
    env = values.collect(errors, values.mapping, "env", declared.env, remedy="write {'NAME': 'value'}", default={})
    for key, value in env.items():
        if not key or "=" in key or "\0" in key:
            errors.append(f"env has {shown(key)}, which can't name a variable; write {{'NAME': 'value'}}")
        if not is_renderable(value):
            values.collect(errors, _argument, f"env[{key!r}]", value, default="")
    if errors:
        raise ConfigError(errors)


def _rendered_command(command: Any) -> str | tuple[str, ...]:
    flat = _flat(command) if isinstance(command, list | tuple) else command
    _check_command(flat)
    return flat if isinstance(flat, str) else tuple(_argument("an argument of the command", argument) for argument in flat)


def _flat(arguments: list[Any] | tuple[Any, ...]) -> list[Any]:
    """A renderable may stand for several arguments."""
    flat: list[Any] = []
    for argument in arguments:
        flat += _flat(argument) if isinstance(argument, list | tuple) else [argument]
    return flat


def _argument(subject: str, value: Any) -> str:
    """What a program gets as text. A number is a likely value of a property, and says the same as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}, not a string; write a string")
    if "\0" in value or not values.encodes(value):
        raise ConfigError(
            f"{subject} {shown(value)} has a character that no program can be given (NUL, half a pair); take it out"
        )
    return value


def _first_words(command: str | tuple[str, ...]) -> str:
    words = command.split() if isinstance(command, str) else [word for argument in command for word in argument.split()]
    name = " ".join("".join(character for character in word if character.isprintable()) for word in words[:3])
    return (name if len(name) <= 40 else name[:37] + "...") or "command"
