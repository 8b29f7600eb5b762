"""Builders and steps: what they accept, and what they make of it when somebody asks for a build."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, succeed

from latent import model
from latent.config.builder import Builder, command_request
from latent.config.steps import Step
from latent.errors import ConfigError
from latent.model import Requirements
from latent.worker.properties import Interpolate, Property, renderer


def refused(make: Any, *args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make(*args, **kwargs)
    return caught.value.errors


@ensureDeferred
async def test_request_carries_the_declaration() -> None:
    """A build has its builder's steps, requirements and settings."""
    builder = Builder(
        "tests",
        steps=["make test", ["make", "clean"]],
        labels={"os": "linux"},
        workernames=["w1", "w2"],
        properties={"branch": "main"},
        priority=3,
        timeout=60,
        max_attempts=2,
    )
    request = await builder.request()
    assert request == model.BuildRequest(
        builder="tests",
        steps=(
            model.Step(name="make test", command="make test"),
            model.Step(name="make clean", command=("make", "clean")),
        ),
        requirements=Requirements(labels={"os": "linux"}, workers=frozenset({"w1", "w2"})),
        properties={"branch": "main", "buildername": "tests"},
        priority=3,
        timeout=60.0,
        max_attempts=2,
    )


@ensureDeferred
async def test_request_overrides() -> None:
    """What is asked for goes over what is declared; what is not asked for stays."""
    builder = Builder("b", ["true"], labels={"os": "linux", "gpu": "no"}, properties={"a": 1, "b": 2}, priority=1)
    request = await builder.request({"b": 3}, {"gpu": "yes"}, priority=0, timeout=5)
    assert request.properties == {"a": 1, "b": 3, "buildername": "b"}
    assert request.requirements.labels == {"os": "linux", "gpu": "yes"}
    assert (request.priority, request.timeout) == (0, 5.0)
    again = await builder.request()
    assert again.requirements.labels == {"os": "linux", "gpu": "no"}
    assert again.priority == 1


@ensureDeferred
async def test_steps_are_rendered() -> None:
    """Renderables in the command, its arguments, name, environment and directory become text, in all three manners."""

    @renderer
    def at_once(props: Any) -> str:
        return f"--jobs={props.getProperty('jobs')}"

    @renderer
    def later(props: Any) -> Deferred[list[str]]:
        return succeed(["-x", "-v"])

    @renderer
    async def awaited(props: Any) -> str:
        return "src"

    builder = Builder(
        "b",
        steps=[
            Step(["make", at_once, later, Property("jobs")], env={"BRANCH": Property("branch")}, workdir=awaited),
            Step(Interpolate("git checkout %(prop:branch)s"), name=Interpolate("check out %(prop:branch)s")),
            Step(Property("command", default="echo nothing")),
        ],
        properties={"jobs": 4},
    )
    first, second, third = (await builder.request({"branch": "main"})).steps
    assert first.command == ("make", "--jobs=4", "-x", "-v", "4")
    assert first.name == "make --jobs=4 -x"
    assert first.env == {"BRANCH": "main"}
    assert first.workdir == "src"
    assert (second.name, second.command) == ("check out main", "git checkout main")
    assert third.command == "echo nothing"


@ensureDeferred
async def test_missing_property_is_named() -> None:
    """Each property without a value is told, with its builder, its step and what to do."""
    builder = Builder(
        "release",
        steps=["true", Step(["tar", Property("version")], name="pack"), Step(Interpolate("scp %(prop:host)s:"), name="send")],
    )
    with pytest.raises(ConfigError) as caught:
        await builder.request()
    assert caught.value.errors == [
        "builder 'release', step 'pack': property 'version' has no value; "
        "submit with -p version=VALUE, or declare a default in the builder's properties",
        "builder 'release', step 'send': property 'host' has no value; "
        "submit with -p host=VALUE, or declare a default in the builder's properties",
    ]


@pytest.mark.parametrize(
    ("value", "says"),
    [(None, "None"), (True, "a bool"), ({"a": 1}, "a dict"), ("a\0b", "NUL")],
)
@ensureDeferred
async def test_rendering_to_what_is_no_text(value: Any, says: str) -> None:
    """A renderable that gives no text is refused at the request, not in the agent."""
    builder = Builder("b", [Step(["echo", renderer(lambda props: value)], name="say")])
    with pytest.raises(ConfigError) as caught:
        await builder.request()
    assert "builder 'b', step 'say'" in str(caught.value)
    assert says in str(caught.value)


@ensureDeferred
async def test_rendering_to_no_arguments() -> None:
    """A command whose only argument renders to nothing is refused."""
    builder = Builder("b", [Step([renderer(lambda props: [])], name="say")])
    with pytest.raises(ConfigError, match="has no arguments"):
        await builder.request()


@ensureDeferred
async def test_raising_renderer() -> None:
    """What a renderer of the user's raises comes back as a ConfigError that says where."""

    @renderer
    def broken(props: Any) -> str:
        raise ZeroDivisionError("oh")

    with pytest.raises(ConfigError, match="builder 'b', step 'say': rendering it raised ZeroDivisionError: oh; correct the"):
        await Builder("b", [Step(broken, name="say")]).request()


@ensureDeferred
async def test_request_refuses_wrong_values() -> None:
    """Wrong properties, labels, priority and timeout of a request are told together."""
    with pytest.raises(ConfigError) as caught:
        await Builder("b", ["true"]).request({"x": {1}}, {"os": 1}, priority=True, timeout=-1)  # type: ignore[dict-item]
    told = caught.value.errors
    assert [error.split(":")[1].split()[0] for error in told] == ["properties", "labels", "priority", "timeout"]


def test_all_mistakes_of_a_builder_at_once() -> None:
    """A builder that is wrong in every argument says so in one exception, each message with a remedy."""
    told = refused(
        Builder,
        "-b",
        steps=[5, "", Step("ok")],
        labels={"n": 1},
        workernames="w1",
        properties={"p": object},
        priority="high",
        timeout=0,
        max_attempts=0,
        description=None,
    )
    assert len(told) == 10
    assert all(message.startswith("builder '-b': ") and "; " in message for message in told)


@pytest.mark.parametrize("steps", [None, [], "make test", {"a": "b"}, 5])
def test_steps_must_be_a_list(steps: Any) -> None:
    """Steps that are no list, or none, are refused with an example."""
    assert "write steps=['make test']" in refused(Builder, "b", steps)[0]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"command": b"make"}, "the command is a bytes"),
        ({"command": ["make", None]}, "an argument of the command is None"),
        ({"command": ["make", True]}, "an argument of the command is a bool"),
        ({"command": "a\0b"}, "NUL"),
        ({"command": "x", "env": ["A=1"]}, "env is a list"),
        ({"command": "x", "env": {"A=B": "1"}}, "can't name a variable"),
        ({"command": "x", "env": {"A": None}}, "env['A'] is None"),
        ({"command": "x", "workdir": 5}, "workdir is an int"),
        ({"command": "x", "name": ""}, "name is empty"),
        ({"command": "x", "name": "a\nb"}, "can't be printed"),
        ({"command": "x", "timeout": "60"}, "timeout is '60'"),
        ({"command": "x", "timeout": float("nan")}, "timeout is nan"),
        ({"command": "x", "max_time": -1}, "max_time is -1"),
        ({"command": "x", "always_run": "yes"}, "always_run is 'yes'"),
    ],
)
def test_wrong_steps(kwargs: dict[str, Any], says: str) -> None:
    """Every argument of a step is checked when it is declared."""
    told = refused(Step, **kwargs)
    assert len(told) == 1
    assert says in told[0]
    assert "; " in told[0]


@ensureDeferred
async def test_step_settings_arrive() -> None:
    """Timeouts and `always_run` of a step are those of the build's step; a model step may be declared as it is."""
    ready = model.Step(name="n", command="c", timeout=None, max_time=5.0, always_run=True)
    builder = Builder("b", [Step("x", name="y", timeout=None, max_time=9, always_run=True), ready])
    steps = (await builder.request()).steps
    assert steps[0] == model.Step(name="y", command="x", timeout=None, max_time=9.0, always_run=True)
    assert steps[1] == ready


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("make -j4 test install", "make -j4 test"),
        (["python", "-m", "pytest", "-q"], "python -m pytest"),
        ("x" * 60, "x" * 37 + "..."),
        ("echo\tone\ntwo", "echo one two"),
    ],
)
def test_default_name(command: Any, name: str) -> None:
    """A step without a name is called by its command's first words."""
    assert command_request(command).steps[0].name == name


def test_command_request() -> None:
    """A single command is a build of the builder that is called command."""
    request = command_request(["ls", "-l"], name="list", properties={"a": 1}, labels={"os": "linux"}, priority=2, timeout=9)
    assert request.builder == "command"
    assert request.steps == (model.Step(name="list", command=("ls", "-l"), timeout=None),)
    assert request.properties == {"a": 1, "buildername": "command"}
    assert request.requirements == Requirements(labels={"os": "linux"})
    assert (request.priority, request.timeout) == (2, 9.0)


def test_command_request_tells_all_mistakes() -> None:
    """Nothing of a wrong request hides behind something else that is wrong."""
    told = refused(command_request, "", labels={"a": 1}, timeout="soon")
    assert len(told) == 3


def test_a_request_over_http_can_smuggle_no_renderable() -> None:
    """What is not text is refused in a single command, whatever methods it has."""
    with pytest.raises(ConfigError):
        command_request(Property("x"))  # type: ignore[arg-type]


def test_equal_declarations_are_equal() -> None:
    """Two loads of the same file make equal builders, with Property and Interpolate in them too."""

    def make() -> Builder:
        return Builder("b", [Step(["a", Property("x")], env={"E": Interpolate("%(prop:y)s")}), "c"], labels={"os": "linux"})

    assert make() == make()
    assert make() != Builder("b", ["c"], labels={"os": "linux"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_properties_are_kept(properties: dict[str, Any]) -> None:
    """Any JSON value is a property as it is."""
    assert Builder("b", ["true"], properties=properties).properties == properties


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1, 2}, "is a set"),
        (b"x", "is a bytes"),
        (float("inf"), "is inf"),
        ([1, {"a": object()}], "property 'p'[1]['a'] is an object"),
        ({1: 2}, "has the key 1"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_properties_that_are_no_json(value: Any, says: str) -> None:
    """A property that JSON can't say is refused, with the place in it."""
    (told,) = refused(Builder, "b", ["true"], properties={"p": value})
    assert says in told
    assert "stored as JSON" in told


def test_property_that_contains_itself() -> None:
    """A list that contains itself is refused, and the stack survives."""
    circle: list[Any] = []
    circle += [circle, circle]
    (told,) = refused(Builder, "b", ["true"], properties={"p": circle})
    assert "nests more than 50 deep" in told
