"""What a worker is declared with: checked at once, compared at a reload."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from latent.core.states import Policy
from latent.errors import ConfigError, LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate, PluginError
from latent.model import Attempt
from latent.worker import (
    AbstractLatentWorker,
    AbstractWorker,
    Enrolment,
    Interpolate,
    Properties,
    Worker,
    hooks,
)
from latent.worker.variables import agent_variables, loopback_addresses
from tests.worker.kit import Idle, enrolment, result_of


class Imaged(Idle):
    """A plugin in the manner of Buildbot's."""

    renderables = ("image",)
    build_wait_timeout = 0
    image: Any

    def checkConfig(self, name: str, password: str | None = None, image: Any = None, size: int = 1, **kwargs: Any) -> None:
        super().checkConfig(name, password, **kwargs)
        if image is None:
            self.config_error("no image; write image='NAME'")
        if size > 9:
            raise ValueError("size is above 9; choose a smaller one")

    def reconfigService(self, name: str, password: str | None = None, image: Any = None, size: int = 1, **kwargs: Any) -> Any:
        self.image = image
        return super().reconfigService(name, password, **kwargs)


def test_defaults() -> None:
    """The common keywords have Buildbot's defaults; a subclass's class attributes are its own."""
    made = Idle("w1")
    assert made.policy() == Policy()
    assert (made.name, made.workername, made.password, made.max_builds, made.notify_on_missing) == ("w1", "w1", None, 1, ())
    assert (made.machine_name, dict(made.properties), made.builds_may_be_incompatible) == (None, {}, False)
    assert Imaged("w2", image="x").policy().build_wait_timeout == 0


def test_common_keywords() -> None:
    """All of them arrive where the controller looks."""
    made = Idle(
        "w1",
        "pw",
        build_wait_timeout=-1,
        missing_timeout=5,
        check_instance_interval=2.5,
        start_timeout=3,
        stop_timeout=4,
        reattach_timeout=6,
        max_builds=3,
        properties={"a": 1},
        defaultProperties={"b": 2},
        notify_on_missing="who@example.org",
        machine_name="m1",
        labels={"os": "linux"},
    )
    assert made.policy() == Policy(
        build_wait_timeout=-1,
        missing_timeout=5,
        check_instance_interval=2.5,
        start_timeout=3,
        stop_timeout=4,
        reattach_timeout=6,
        has_machine=True,
    )
    assert made.properties.asDict() == {"a": (1, "Worker")}
    assert made.defaultProperties["b"] == 2
    assert (made.password, made.max_builds, made.notify_on_missing) == ("pw", 3, ("who@example.org",))
    assert made.offer() == {"os": frozenset({"linux"}), "worker": frozenset({"w1"})}


def test_all_errors_at_once() -> None:
    """Everything that is wrong is told, each with its remedy."""
    with pytest.raises(ConfigError) as raised:
        Imaged(
            "a/b", "", buidl_wait_timeout=3, missing_timeout=0, max_builds="2", labels={"worker": "x", "os": 3}, properties=[1]
        )
    message = "\n".join(raised.value.errors)
    assert len(raised.value.errors) == 9
    assert all(error.startswith("worker 'a/b': ") for error in raised.value.errors)
    for part in (
        "no keyword 'buidl_wait_timeout'; did you mean 'build_wait_timeout'?",
        "the name of a worker is 'a/b'",
        "password is ''",
        "missing_timeout is 0; write a number of seconds above 0",
        "max_builds is '2'; write a whole number",
        "the label 'worker' is always the worker's name",
        "the label 'os' is an int, 3; labels are strings",
        "properties is a list, [1]; write a dict",
        "no image; write image='NAME'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Idle(), "missing a required argument: 'name'"),
        (lambda: Idle(None), "the name of a worker is None"),
        (lambda: Idle("-x"), "the name of a worker is '-x'"),
        (lambda: Idle("x" * 101), "the name of a worker"),
        (lambda: Idle("w1", locks=[]), "locks is not supported"),
        (lambda: Idle("w1", build_wait_timeout=float("nan")), "build_wait_timeout is nan"),
        (lambda: Idle("w1", build_wait_timeout=True), "build_wait_timeout is True"),
        (lambda: Idle("w1", properties={"a": {1}}), "JSON can't say"),
        (lambda: Idle("w1", notify_on_missing=[3]), "notify_on_missing"),
        (lambda: Imaged("w1", imgae="x", image="y"), r"Imaged has no keyword 'imgae'; did you mean 'image'\?"),
        (lambda: Imaged("w1", image="x", size=10), "worker 'w1': size is above 9; choose a smaller one"),
        (lambda: Worker("w1"), "give the one that its agent attaches with"),
        (lambda: Worker("w1", "pw", build_wait_timeout=3), "Worker has no keyword 'build_wait_timeout'"),
    ],
)
def test_wrong_declarations(make: Any, message: str) -> None:
    """Each is a ConfigError that names the worker and the remedy."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_plain_worker() -> None:
    """A plain worker has a name and a password, and does one build at a time."""
    made = Worker("w1", "pw")
    assert (made.name, made.password, made.max_builds) == ("w1", "pw", 1)
    assert not isinstance(made, AbstractLatentWorker)


def test_keywords_without_a_catch_all() -> None:
    """A checkConfig that takes no further keywords names the unknown one all the same."""

    class Narrow(Idle):
        def checkConfig(self, name: str, colour: str = "red") -> None:  # type: ignore[override]
            super().checkConfig(name)

    with pytest.raises(ConfigError, match=r"Narrow has no keyword 'color'; did you mean 'colour'\?"):
        Narrow("w1", color="blue")


def test_broken_check_config() -> None:
    """A checkConfig that raises by mistake, waits or forgets its base is the plugin's fault, and says where."""

    class Raises(Idle):
        def checkConfig(self, name: str, password: str | None = None, **kwargs: Any) -> None:
            {}["x"]  # type: ignore[index]

    class Waits(Idle):
        async def checkConfig(self, name: str, password: str | None = None, **kwargs: Any) -> None:  # type: ignore[override]
            super().checkConfig(name, password, **kwargs)

    class Forgets(Idle):
        def checkConfig(self, name: str, password: str | None = None, **kwargs: Any) -> None:
            pass

    with pytest.raises(PluginError, match=r"Raises\.checkConfig raised KeyError"):
        Raises("w1")
    with pytest.raises(PluginError, match=r"Waits\.checkConfig must be a plain function"):
        Waits("w1")
    with pytest.raises(PluginError, match=r"Forgets\.checkConfig does not call super"):
        Forgets("w1")


def test_classes_that_are_no_plugins() -> None:
    """A class without its hooks, or whose hooks can't be called, is refused before it is used."""

    class NoStop(AbstractLatentWorker):
        def start_instance(self, build: Any) -> Any:
            return None

    class OldStart(Idle):
        def start_instance(self) -> Any:  # type: ignore[override]
            return None

    class NoMethod(Idle):
        check_instance = (True, "")  # type: ignore[assignment]

    with pytest.raises(PluginError, match=r"NoStop has no stop_instance; define stop_instance\(self, fast=False\)"):
        NoStop("w1")
    with pytest.raises(PluginError, match=r"OldStart\.start_instance can't be called.*define start_instance\(self, build\)"):
        OldStart("w1")
    with pytest.raises(PluginError, match=r"NoMethod\.check_instance is not a method"):
        NoMethod("w1")
    with pytest.raises(PluginError, match="has no start_instance"):
        AbstractLatentWorker("w1")


# --- pools --------------------------------------------------------------------------------------------------------------------


def test_pool() -> None:
    """One declaration with count=N stands for N workers."""
    pool = Imaged("linux-{n}", image="x", count=3)
    workers = pool.expand()
    assert [one.name for one in workers] == ["linux-1", "linux-2", "linux-3"]
    assert [one.offer()["worker"] for one in workers] == [frozenset({one.name}) for one in workers]
    assert all(one.expand() == [one] for one in workers)
    assert workers[0].declaration == Imaged("linux-1", image="x").declaration
    assert [one.name for one in Idle(name="w{n:02}", count=2).expand()] == ["w01", "w02"]
    single = Idle("w1")
    assert single.expand() == [single]


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("linux", 3, "write '{n}' in it"),
        ("linux-{n}", None, "add count=N"),
        ("linux-{n}", 0, "count is 0"),
        ("linux-{n}", "3", "count is '3'"),
        ("linux-{n}-{m}", 3, "write '{n}' in it"),
        ("linux {n}", 3, "the name of a worker is 'linux 1'"),
        ("linux-{n}", 10**9, "100000 or less"),
    ],
)
def test_wrong_pool(name: str, count: Any, message: str) -> None:
    """A pool needs a name with a place for the number, and a number."""
    with pytest.raises(ConfigError, match=message):
        Idle(name, **({} if count is None else {"count": count}))


# --- reloading ----------------------------------------------------------------------------------------------------------------


def run_config(text: str) -> Any:
    """What a configuration that is run anew makes of ``made``."""
    namespace: dict[str, Any] = {"Imaged": Imaged, "Idle": Idle, "__name__": "config"}
    exec("from latent.worker import *\n" + textwrap.dedent(text), namespace)
    return namespace["made"]


CONFIG = """
    SIZE = 2
    def helper(props):
        return SIZE + len(props)
    @renderer
    def image(props):
        return "img-%d" % helper(props)
    made = Imaged("w1", image=image, properties={"a": [1, 2]})
"""


@pytest.mark.parametrize(
    "text",
    [
        'made = Idle("w1", build_wait_timeout=3, labels={"os": "linux"})',
        'made = Imaged("w1", image=Interpolate("%(kw:a)s", a=Property("x")))',
        'made = Imaged("w1", image=(lambda x: lambda props: x)(3))',
        'class Mine(Imaged):\n    def start_instance(self, build):\n        return [self.name]\nmade = Mine("w1", image="x")',
        CONFIG,
    ],
)
def test_unchanged(text: str) -> None:
    """A file that is read again says the same, though all its functions and classes are new objects on other lines."""
    text = textwrap.dedent(text)
    assert run_config(text).declaration == run_config("\n\n" + text).declaration
    assert run_config(text).declaration.instance == run_config("\n\n" + text).declaration.instance


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('made = Idle("w1", machine_name="a")', 'made = Idle("w1", machine_name="b")'),
        ('made = Idle("w1")', 'made = Idle("w1", None)'),
        ('made = Imaged("w1", image=Property("x"))', 'made = Imaged("w1", image=Property("y"))'),
        ('made = Imaged("w1", image=lambda props: 1)', 'made = Imaged("w1", image=lambda props: 2)'),
        ('made = Imaged("w1", image=1)', 'made = Imaged("w1", image=True)'),
        (CONFIG, CONFIG.replace("SIZE = 2", "SIZE = 3")),
        (CONFIG, CONFIG.replace("SIZE + len", "SIZE - len")),
        (
            'class Mine(Idle):\n    x = 1\nmade = Mine("w1")',
            'class Mine(Idle):\n    x = 2\nmade = Mine("w1")',
        ),
        ('made = Imaged("w1", image=object())', 'made = Imaged("w1", image=object())'),
    ],
)
def test_changed(before: str, after: str) -> None:
    """Whatever an instance is made from is a change, also in what a function calls; what can't be compared is one too."""
    first, second = run_config(before), run_config(after)
    assert first.declaration != second.declaration
    assert first.declaration.instance != second.declaration.instance


def test_settings_do_not_touch_the_instance() -> None:
    """Timeouts, labels and the like change the declaration, and leave an instance that is up as it is."""
    before = Imaged("w1", image="x", build_wait_timeout=1, labels={"a": "b"})
    after = Imaged("w1", image="x", build_wait_timeout=2, max_builds=3, properties={"p": 1})
    assert before.declaration != after.declaration
    assert before.declaration.instance == after.declaration.instance


def test_reconfigure() -> None:
    """reconfigService takes a new declaration over; afterwards the two compare equal."""
    live, new = Imaged("w1", image="x"), Imaged("w1", image="y", max_builds=4, labels={"os": "bsd"})
    args, kwargs = new.arguments
    result_of(hooks.call(live.reconfigService, *args, **kwargs))
    live.adopt_declaration(new)
    assert (live.image, live.max_builds, live.offer()["os"]) == ("y", 4, frozenset({"bsd"}))
    assert live.declaration == new.declaration


def test_ways_to_write_reconfigure() -> None:
    """super().reconfigService works from a plain method, from one with Deferreds and from an async one."""
    done = []

    class Plain(Idle):
        def reconfigService(self, name: str, password: str | None = None, **kwargs: Any) -> Any:
            super().reconfigService(name, password, **kwargs)
            done.append("plain")

    class Late(Idle):
        def reconfigService(self, name: str, password: str | None = None, **kwargs: Any) -> Any:
            before: Deferred[Any] = super().reconfigService(name, password, **kwargs)
            return before.addCallback(lambda _: done.append("late"))

    class Async(Idle):
        async def reconfigService(self, name: str, password: str | None = None, **kwargs: Any) -> Any:
            await super().reconfigService(name, password, **kwargs)
            done.append(await succeed("async"))

    for cls in (Plain, Late, Async):
        made = cls("w1")
        result_of(hooks.call(made.reconfigService, "w1", max_builds=2))
        assert made.max_builds == 2
    assert done == ["plain", "late", "async"]


# --- what a plugin uses -------------------------------------------------------------------------------------------------------


def test_supports() -> None:
    """Whether a plugin has an optional hook is seen from the class, or from the object."""

    class Finds(Idle):
        def instance_handle(self) -> Any:
            return {}

    assert Finds("w1").supports("instance_handle")
    assert not Finds("w1").supports("list_instances")
    odd = Idle("w1")
    odd.list_instances = list  # type: ignore[method-assign]
    assert odd.supports("list_instances")
    with pytest.raises(ValueError, match="not an optional hook"):
        odd.supports("start_instance")


def test_optional_hooks_do_nothing_wrong() -> None:
    """A plugin without them lists nothing, and never says that something is gone."""
    plain = Idle("w1")
    assert (plain.instance_handle(), plain.resume_instance({}), plain.list_instances()) == (None, None, ())
    assert (plain.check_instance(), plain.isCompatibleWithBuild(Properties())) == ((True, ""), True)
    with pytest.raises(PluginError, match="has no destroy_instance"):
        plain.destroy_instance({"id": 1})


def test_agent_environment() -> None:
    """An agent gets the address, its token and its identity."""
    made = Idle("w1")
    with pytest.raises(PluginError, match="outside an attempt"):
        made.agent_environment()
    made.enrolment = enrolment("w1", 7)
    assert made.agent_environment() == {
        "LATENT_SERVER": "127.0.0.1:9989",
        "LATENT_TOKEN": "secret-w1-7",
        "LATENT_WORKER": "w1",
        "LATENT_ATTEMPT": "7",
    }
    assert made.getRandomPass() == made.getRandomPass() == "secret-w1-7"
    assert "secret" not in repr(made.enrolment)
    made.enrolment = Enrolment(Attempt("w1", 1), "c", "i", "t", {})
    with pytest.raises(LatentWorkerConfigurationError, match="no gateway listens"):
        made.agent_environment()


def test_woodpecker_environment() -> None:
    """A Woodpecker agent gets the same address and token under its own names."""
    made = Idle("w1", max_builds=3)
    with pytest.raises(PluginError, match="outside an attempt"):
        made.woodpecker_environment()
    made.enrolment = enrolment("w1", 7)
    assert made.woodpecker_environment() == {
        "WOODPECKER_SERVER": "127.0.0.1:9989",
        "WOODPECKER_AGENT_SECRET": "secret-w1-7",
        "WOODPECKER_HOSTNAME": "w1",
        "WOODPECKER_MAX_WORKFLOWS": "3",
        "WOODPECKER_BACKEND": "local",
    }
    made.enrolment = Enrolment(Attempt("w1", 1), "c", "i", "t", {})
    with pytest.raises(LatentWorkerConfigurationError, match="no gateway listens"):
        made.woodpecker_environment()


def test_bot_environment() -> None:
    """A bot gets the address, its instance's name and the token; a provider's instances too, where the controller is reached."""
    made = Idle("w1", labels={"agent": "bot", "instance": "other"})
    with pytest.raises(PluginError, match="outside an attempt"):
        made.bot_environment()
    made.enrolment = Enrolment(Attempt("w1", 7), "c", "i", "secret", {"peer": "127.0.0.1:1", "bots": "127.0.0.1:9990"})
    told = {
        "LATENT_BOTS_SERVER": "127.0.0.1:9990",
        "LATENT_BOTS_INSTANCE": "other",
        "LATENT_BOT_TOKEN": "secret",
        "LATENT_WORKER": "w1",
    }
    assert made.bot_environment() == told
    assert told.items() <= agent_variables(made, None, "pb").items()
    assert loopback_addresses(agent_variables(made, None, "pb")) == ["127.0.0.1"]
    reached = agent_variables(made, "ci.example.org", "pb")
    assert (reached["LATENT_BOTS_SERVER"], reached["LATENT_SERVER"]) == ("ci.example.org:9990", "ci.example.org:1")
    other = Idle("w2")
    other.enrolment = made.enrolment
    assert "LATENT_BOT_TOKEN" not in agent_variables(other, None, "pb")
    made.enrolment = Enrolment(Attempt("w1", 1), "c", "i", "t", {"peer": "h:1"})
    with pytest.raises(LatentWorkerConfigurationError, match="no gateway listens for bots"):
        made.bot_environment()


def test_buildbot_environment() -> None:
    """A stock agent gets what Buildbot's image reads, for the protocol that is wanted or the first that is spoken."""
    made = Idle("w1")
    with pytest.raises(PluginError, match="outside an attempt"):
        made.buildbot_environment()
    servers = {"peer": "h:1", "pb": "[::1]:9989", "msgpack_experimental_v7": "ci.example.org:9990"}
    made.enrolment = Enrolment(Attempt("w1", 7), "c", "i", "secret", servers)
    assert made.buildbot_environment() == {
        "BUILDMASTER": "::1",
        "BUILDMASTER_PORT": "9989",
        "BUILDMASTER_PROTOCOL": "pb",
        "WORKERNAME": "w1",
        "WORKERPASS": "secret",
    }
    other = made.buildbot_environment("msgpack_experimental_v7")
    assert (other["BUILDMASTER"], other["BUILDMASTER_PORT"]) == ("ci.example.org", "9990")
    del servers["pb"]
    assert made.buildbot_environment()["BUILDMASTER_PROTOCOL"] == "msgpack_experimental_v7"
    with pytest.raises(LatentWorkerConfigurationError, match="over pb; set c"):
        made.buildbot_environment("pb")
    made.enrolment = Enrolment(Attempt("w1", 1), "c", "i", "t", {"peer": "h:1"})
    with pytest.raises(LatentWorkerConfigurationError, match="no gateway listens for buildbot-worker"):
        made.buildbot_environment()


def test_failed_to_start() -> None:
    """Buildbot's helper raises the error that makes the worker back off."""
    with pytest.raises(LatentWorkerFailedToSubstantiate, match="i-1 failed to start: it is terminated"):
        Idle("w1").failed_to_start("i-1", "terminated")


def test_constructor_touches_nothing() -> None:
    """A worker that is only declared has no enrolment and no reactor."""
    made: AbstractWorker = Idle("w1")
    assert isinstance(made, AbstractLatentWorker)
    assert (made.enrolment, made.reactor) == (None, None)
    assert Interpolate("x") == Interpolate("x")


def test_private_names_are_the_plugin_s() -> None:
    """A plugin may call its own methods and attributes what it likes: the base classes' private names are out of its way."""

    class Private(Idle):
        _check = _errors = _label = _count = _declaration = _offer = _unknown = "mine"  # type: ignore[assignment]

    made = Private("w{n}", count=2, labels={"a": "b"}).expand()[1]
    assert (made.offer()["worker"], made._check, made._offer) == (frozenset({"w2"}), "mine", "mine")  # type: ignore[attr-defined]
