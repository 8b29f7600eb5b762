"""Properties, and values that are decided by them: `Property`, `Interpolate`, `renderer`.

A renderable is anything with a method ``getRenderingFor(properties)`` that returns the value, a Deferred of it, or is
``async def``. Strings are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, FirstError, fail, gatherResults, succeed
from twisted.python.failure import Failure

from latent.errors import LatentWorkerCannotSubstantiate, PluginError
from latent.worker import hooks, interpolation
from latent.worker.words import did_you_mean, kind


class MissingProperty(LatentWorkerCannotSubstantiate):
    """A value needs a property that there is not, and has no default. ``name`` is the property's."""

    def __init__(self, name: str, known: Mapping[str, object]) -> None:
        super().__init__(f"there is no property {name!r}; {did_you_mean(name, known, 'the properties')}, or give it a default")
        self.name = name


class Properties(Mapping[str, Any]):
    """Named values, each with the source that it came from. A mapping, with Buildbot's methods on top."""

    def __init__(self, values: Mapping[str, Any] | None = None, source: str = "") -> None:
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self.update(values or {}, source)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Properties({self._values!r})"

    def getProperty(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def hasProperty(self, name: str) -> bool:
        return name in self._values

    def getPropertySource(self, name: str) -> str:
        """Where the value came from; KeyError if there is none."""
        return self._sources[name]

    def setProperty(self, name: str, value: Any, source: str) -> None:
        self._values[name] = value
        self._sources[name] = source

    def update(self, values: Mapping[str, Any], source: str) -> None:
        for name, value in values.items():
            self.setProperty(name, value, source)

    def updateFromProperties(self, other: Properties) -> None:
        """Take all of ``other``, with its sources."""
        for name, value in other.items():
            self.setProperty(name, value, other.getPropertySource(name))

    def getProperties(self) -> Properties:
        return self

    def asDict(self) -> dict[str, tuple[Any, str]]:
        """{name: (value, source)}."""
        return {name: (value, self._sources[name]) for name, value in self._values.items()}

    def render(self, value: Any) -> Deferred[Any]:
        """`render` with these properties."""
        return render(value, self)


NO_DEFAULT: Final = object()


class Property:
    """The value of one property.

    Without a default, a property that there is not raises `MissingProperty`. With one, the default also stands in for a value
    that counts as false ("", 0, None), unless ``defaultWhenFalse`` is False.
    """

    def __init__(self, name: str, default: Any = NO_DEFAULT, defaultWhenFalse: bool = True) -> None:
        self.name = name
        self.default = default
        self.defaultWhenFalse = defaultWhenFalse

    def getRenderingFor(self, props: Any) -> Any:
        found = properties_of(props)
        if self.default is NO_DEFAULT:
            if self.name not in found:
                raise MissingProperty(self.name, found)
            return found[self.name]
        usable = self.name in found and (found[self.name] or not self.defaultWhenFalse)
        return found[self.name] if usable else self.default

    def __repr__(self) -> str:
        default = "" if self.default is NO_DEFAULT else f", default={self.default!r}"
        return f"Property({self.name!r}{default})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Property):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.name)


class Interpolate:
    """A string with places: ``Interpolate("%(prop:os)s/%(prop:arch:-amd64)s/%(kw:image)s", image=Property("image"))``.

    After the name of a ``prop`` or ``kw`` may follow ``:-text`` (when there is none), ``:~text`` (when there is none or it
    counts as false), ``:+text`` (when there is one; else nothing), each of which may hold places itself. ``%%`` is a percent
    sign; ``%s`` takes the positional arguments in turn. ConfigError for a format that can't be read.
    """

    def __init__(self, fmtstring: str, *args: Any, **kwargs: Any) -> None:
        self.fmtstring = fmtstring
        self.args = args
        self.kwargs = kwargs
        self._parts = interpolation.parse(fmtstring, len(args), frozenset(kwargs))

    def getRenderingFor(self, props: Any) -> Any:
        found = properties_of(props)
        needed = interpolation.needed(self._parts)
        kw = {name: value for name, value in self.kwargs.items() if ("kw", name) in needed}
        return _gather([_walk(kw, found), _walk(self.args, found)], lambda done: self._fill(found, *done))

    def _fill(self, props: Properties, kw: Mapping[str, Any], args: tuple[Any, ...]) -> str:
        return interpolation.fill(self._parts, {"prop": props, "kw": kw}, iter(args), lambda name: MissingProperty(name, props))

    def __repr__(self) -> str:
        return f"Interpolate({self.fmtstring!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Interpolate):
            return NotImplemented
        return (self.fmtstring, self.args, self.kwargs) == (other.fmtstring, other.args, other.kwargs)

    def __hash__(self) -> int:
        return hash(self.fmtstring)


class _Renderer:
    """A function of the properties as a value."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def getRenderingFor(self, props: Any) -> Any:
        return self.function(props)

    def __repr__(self) -> str:
        return f"renderer({getattr(self.function, '__qualname__', '?')})"


def renderer(function: Callable[[Any], Any]) -> Any:
    """Make a value of ``function(properties)``, which may return anything that a hook may."""
    return _Renderer(function)


def is_renderable(value: Any) -> bool:
    """Whether a value is decided by properties, itself (not whether it holds such values)."""
    return not isinstance(value, type) and callable(getattr(value, "getRenderingFor", None))


def holds_renderable(value: Any) -> bool:
    """Whether properties decide a value, or any part of it."""
    if is_renderable(value):
        return True
    if isinstance(value, Mapping):
        return any(holds_renderable(one) for one in value.values())
    return isinstance(value, list | tuple) and any(holds_renderable(one) for one in value)


def properties_of(props: Any) -> Properties:
    """Properties of whatever carries some: Properties, a build, a plain mapping; None has none."""
    if isinstance(props, Properties):
        return props
    if (get := getattr(props, "getProperties", None)) is not None:
        return properties_of(get())
    if props is None or isinstance(props, Mapping):
        return Properties(props)
    raise TypeError(f"{kind(props)} has no properties; give Properties, a build or a dict")


def render(value: Any, props: Any) -> Deferred[Any]:
    """``value`` with every renderable in it, at any depth of lists, tuples and dicts, replaced by what it stands for.

    Fails with what a renderable raised; `MissingProperty` for a property that there is not.
    """
    try:
        done = _walk(value, properties_of(props))
    except Exception:
        return fail(Failure())
    return done if isinstance(done, Deferred) else succeed(done)


def render_now(value: Any, props: Any) -> Any:
    """The same at once. PluginError if a renderable has to wait for something."""
    done = _walk(value, properties_of(props))
    if not isinstance(done, Deferred):
        return done
    answers: list[Any] = []
    done.addBoth(answers.append)
    if not answers:
        done.cancel()
        raise PluginError(f"{kind(value)} has to wait for its value, where one is needed at once; render it with `await`")
    if isinstance(answers[0], Failure):
        answers[0].raiseException()
    return answers[0]


def _walk(value: Any, props: Properties) -> Any:
    """The rendered value, or a Deferred of it only where something has to be waited for."""
    if isinstance(value, str | int | float | bytes | None):
        return value
    if is_renderable(value):
        result = hooks.later(value.getRenderingFor(props), repr(value))
        if isinstance(result, Deferred):
            return result.addCallback(_walk, props)
        return _walk(result, props)
    if isinstance(value, list):
        return _gather([_walk(item, props) for item in value], list)
    if type(value) is tuple:
        return _gather([_walk(item, props) for item in value], tuple)
    if isinstance(value, dict):
        keys = list(value)
        return _gather([_walk(item, props) for item in value.values()], lambda done: dict(zip(keys, done, strict=True)))
    return value


def _gather(parts: list[Any], make: Callable[[list[Any]], Any]) -> Any:
    if not any(isinstance(part, Deferred) for part in parts):
        return make(parts)
    waiting = [part if isinstance(part, Deferred) else succeed(part) for part in parts]
    return gatherResults(waiting, consumeErrors=True).addCallbacks(make, _first_error)


def _first_error(failure: Failure) -> Failure:
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure
