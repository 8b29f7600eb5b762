"""Properties, and values that are decided by them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from latent.errors import ConfigError, LatentWorkerCannotSubstantiate, PluginError
from latent.worker import Interpolate, MissingProperty, Properties, Property, WorkerBuild, render, renderer
from latent.worker.properties import is_renderable, render_now
from tests.worker.kit import result_of

PROPS = Properties({"os": "linux", "n": 7, "empty": "", "zero": 0, "list": ["a", "b"]}, "Build")


def test_properties_keep_their_source() -> None:
    """A value knows where it came from, and a later one takes its place."""
    props = Properties({"a": 1}, "Worker")
    props.setProperty("b", 2, "Build")
    props.updateFromProperties(Properties({"a": 3}, "Change"))
    assert props.asDict() == {"a": (3, "Change"), "b": (2, "Build")}
    assert (props.getProperty("c"), props.getProperty("c", 9)) == (None, 9)
    assert (props.hasProperty("a"), "c" in props, dict(props)) == (True, False, {"a": 3, "b": 2})
    assert props == Properties({"a": 3, "b": 2}, "elsewhere")


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        (Property("os"), "linux"),
        (Property("arch", default="amd64"), "amd64"),
        (Property("arch", default=None), None),
        (Property("arch", default=Property("os")), "linux"),
        (Property("zero"), 0),
        (Property("zero", default=4), 4),
        (Property("zero", default=4, defaultWhenFalse=False), 0),
        (Interpolate("%(prop:os)s-%(prop:n)03d"), "linux-007"),
        (Interpolate("%(prop:arch:-amd64)s/%(prop:os:-bsd)s"), "amd64/linux"),
        (Interpolate("%(prop:empty:~none)s%(prop:os:~none)s"), "nonelinux"),
        (Interpolate("%(prop:os:+--os %(prop:os)s)s%(prop:arch:+--arch)s"), "--os linux"),
        (Interpolate("%(prop:arch:-%(prop:os)s)s (100%%)"), "linux (100%)"),
        (Interpolate("%(kw:image)s:%(kw:tag)s", image=Property("os"), tag="v1"), "linux:v1"),
        (Interpolate("%s and %s", Property("n"), "x"), "7 and x"),
        (Interpolate("plain"), "plain"),
        (["a", Property("n"), ("b", Property("os"))], ["a", 7, ("b", "linux")]),
        ({"k": {"k": Property("n")}}, {"k": {"k": 7}}),
        (renderer(lambda props: [props.getProperty("n"), Property("os")]), [7, "linux"]),
        (renderer(lambda props: succeed("later")), "later"),
        ("%(prop:os)s", "%(prop:os)s"),
        (None, None),
    ],
)
def test_rendering(value: Any, rendered: Any) -> None:
    """Renderables are replaced, at any depth; everything else stays as it is."""
    assert result_of(render(value, PROPS)) == rendered
    assert render_now(value, PROPS) == rendered
    assert result_of(WorkerBuild(1, "b", PROPS).render(value)) == rendered


@pytest.mark.parametrize(
    "value",
    [Property("oss"), [Interpolate("%(prop:oss)s")], Interpolate("%(kw:a)s", a=Property("oss")), {"a": (Property("oss"),)}],
)
def test_missing_property(value: Any) -> None:
    """A property that there is not, and has no default, is the build's own fault; the message has the nearest one."""
    answer = render(value, PROPS)
    with pytest.raises(MissingProperty, match=r"no property 'oss'; did you mean 'os'\?") as raised:
        result_of(answer)
    assert raised.value.name == "oss"
    assert isinstance(raised.value, LatentWorkerCannotSubstantiate)


def test_unused_keyword_is_not_rendered() -> None:
    """Only what the format names is looked up."""
    assert render_now(Interpolate("%(kw:a)s", a="x", b=Property("missing")), PROPS) == "x"


def test_waiting() -> None:
    """A value may have to be waited for; the others are rendered meanwhile."""
    waited: Deferred[str] = Deferred()
    answer = render(Interpolate("%(kw:a)s-%(prop:os)s", a=renderer(lambda props: waited)), PROPS)
    waited.callback("late")
    assert result_of(answer) == "late-linux"


def test_async_renderer() -> None:
    """A renderer may be async def."""

    @renderer
    async def image(props: Properties) -> str:
        return "img-" + await succeed(props["os"])

    assert result_of(render([image], PROPS)) == ["img-linux"]


def test_error_of_one_of_several() -> None:
    """The error of one value is the error of all, as it was raised."""

    @renderer
    def broken(props: Properties) -> str:
        raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        result_of(render([renderer(lambda props: succeed(1)), broken], PROPS))

    @renderer
    async def late(props: Properties) -> str:
        raise ZeroDivisionError("there")

    with pytest.raises(ZeroDivisionError, match="there"):
        result_of(render([renderer(lambda props: succeed(1)), late], PROPS))


def test_render_now_does_not_wait() -> None:
    """Where a value is needed at once, one that has to be waited for is an error, and is cancelled."""
    cancelled: list[object] = []
    waited: Deferred[str] = Deferred(cancelled.append)
    with pytest.raises(PluginError, match="has to wait"):
        render_now(renderer(lambda props: waited), PROPS)
    assert cancelled == [waited]


def test_plain_mapping_has_properties() -> None:
    """Properties may be given as a dict, a build or nothing."""
    assert render_now(Property("a"), {"a": 1}) == 1
    assert render_now(Property("n"), WorkerBuild(1, "b", PROPS)) == 7
    assert render_now("x", None) == "x"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Interpolate("%(prop:a"), "parenthesis is not closed"),
        (lambda: Interpolate("%(src::branch)s"), "is unknown"),
        (lambda: Interpolate("%(prop:)s"), "has no name"),
        (lambda: Interpolate("%(prop:a:?x)s"), "may follow"),
        (lambda: Interpolate("%(kw:imgae)s", image=1), r"did you mean 'image'\?"),
        (lambda: Interpolate("100%"), "write %% for a percent sign"),
        (lambda: Interpolate("%s"), "1 positional places and 0 arguments"),
        (lambda: Interpolate(3), "takes a string"),  # type: ignore[arg-type]
    ],
)
def test_bad_format(make: Any, message: str) -> None:
    """A format that can't be read is found when it is written down, not when a build needs it."""
    with pytest.raises(ConfigError, match=message):
        make()


@given(st.text())
def test_any_format(text: str) -> None:
    """Every string is either read or refused with a ConfigError; one without percent signs stands for itself."""
    try:
        made = Interpolate(text)
    except ConfigError:
        assert "%" in text
    else:
        if "%" not in text:
            assert render_now(made, {}) == text


def test_equality() -> None:
    """Two renderables that say the same are equal."""
    assert Property("a") == Property("a")
    assert Property("a") != Property("a", default=None)
    assert Interpolate("%(kw:a)s", a=Property("x")) == Interpolate("%(kw:a)s", a=Property("x"))
    assert Interpolate("%(kw:a)s", a=Property("x")) != Interpolate("%(kw:a)s", a=Property("y"))
    assert is_renderable(Property("a"))
    assert not is_renderable(Property)
