"""What no real daemon can be made to do, with a client that does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound, TLSParameterError
from twisted.internet.defer import Deferred
from urllib3.exceptions import ProtocolError

from latent.errors import (
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
    LatentWorkerThrottled,
)
from latent.worker import hooks
from latent.worker.results import check_result
from latent_docker import DockerLatentWorker
from latent_docker.daemon import PING, Daemon
from latent_docker.faults import DaemonUnreachable, translate
from latent_docker.worker import SILENCE
from tests.docker.fake import ClockedReactor, Events, FakeClient, api_error
from tests.docker.kit import enrolment_of

NAME = "latent-w-1-w-1"


class Bench:
    """One worker, its fake daemon, and a reactor that stands still."""

    def __init__(self, state_dir: Path) -> None:
        self.client = FakeClient()
        self.reactor = ClockedReactor()
        self.worker = self.another()
        self.state_dir = state_dir

    def another(self, number: int = 1, **keywords: Any) -> DockerLatentWorker:
        worker = DockerLatentWorker("w", None, "unix:///fake.sock", image="i", **keywords)
        worker.reactor = self.reactor
        args, kwargs = worker.arguments
        worker.reconfigService(*args, **kwargs)
        worker.enrolment = enrolment_of("w", number)
        return worker

    def run(self, hook: Any, *args: Any) -> Any:
        return self.reactor.answer(hooks.call(hook, *args))

    def up(self) -> None:
        self.run(self.worker.start_instance, None)

    def down(self) -> None:
        self.run(self.worker.stop_instance, True)

    def check(self) -> tuple[bool, str]:
        return check_result(self.worker, self.run(self.worker.check_instance))

    def stream(self) -> Events:
        """The daemon's events, once the plugin listens to them."""
        stream = self.client.streams.get(timeout=30)
        self.wait_for(lambda daemon: daemon.listening)
        return stream

    def wait_for(self, what: Any) -> None:
        (daemon,) = self.worker._known_daemons()
        while not what(daemon):
            self.reactor.turn()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    bench = Bench(tmp_path)
    monkeypatch.setattr(Daemon, "connect", staticmethod(lambda endpoint: bench.client))
    yield bench
    bench.reactor.shut_down()
    assert bench.reactor.getDelayedCalls() == []


LOST = requests.exceptions.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError(104, "reset by peer")))
REFUSED = requests.exceptions.ConnectionError(ProtocolError("Connection aborted.", ConnectionRefusedError(111, "refused")))


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (api_error(500, "write /x: no space left on device"), LatentWorkerCapacityError, "docker system df"),
        (api_error(500, "fork/exec runc: cannot allocate memory"), LatentWorkerCapacityError, "max_containers"),
        (api_error(500, "fork/exec: resource temporarily unavailable"), LatentWorkerCapacityError, "max_containers"),
        (api_error(500, "Bind for 0.0.0.0:80 failed: port is already allocated"), LatentWorkerCapacityError, "has the port"),
        (
            api_error(500, "could not find an available, non-overlapping IPv4 address pool among the defaults"),
            LatentWorkerQuotaError,
            "docker network prune",
        ),
        (api_error(429, "toomanyrequests: You have reached your pull rate limit"), LatentWorkerThrottled, "fewer pulls"),
        (
            api_error(500, "Get https://r/v2/: unauthorized: authentication required"),
            LatentWorkerConfigurationError,
            "docker login",
        ),
        (api_error(404, "pull access denied for x, repository does not exist"), LatentWorkerConfigurationError, "docker login"),
        (api_error(404, "manifest for x:1 not found: manifest unknown"), LatentWorkerConfigurationError, "correct its name"),
        (api_error(404, "No such image: x", ImageNotFound), LatentWorkerConfigurationError, "autopull"),
        (api_error(404, "network nope not found", NotFound), LatentWorkerConfigurationError, "network_mode"),
        (api_error(400, 'exec: "nope": executable file not found in $PATH'), LatentWorkerConfigurationError, "command"),
        (api_error(400, "invalid mount config for type bind"), LatentWorkerConfigurationError, "volumes"),
        (api_error(400, "something nobody foresaw"), LatentWorkerConfigurationError, "declaration"),
        (api_error(500, "something nobody foresaw"), LatentWorkerFailedToSubstantiate, "nobody foresaw"),
        (requests.exceptions.SSLError("certificate verify failed"), LatentWorkerConfigurationError, "TLSConfig"),
        (TLSParameterError("no key"), LatentWorkerConfigurationError, "TLSConfig"),
        (DockerException("Invalid bind address protocol: foo://"), LatentWorkerConfigurationError, "hostconfig"),
        (requests.exceptions.ReadTimeout("timed out"), DaemonUnreachable, "dockerd runs"),
        (LOST, DaemonUnreachable, "dockerd runs"),
        (OSError(5, "input/output error"), LatentWorkerFailedToSubstantiate, "input/output"),
    ],
)
def test_table(error: Exception, kind: type[Exception], remedy: str) -> None:
    """Each error becomes the type that says what happens next, names the daemon, and says what to do."""
    told = translate(error, "unix:///d.sock")
    assert type(told) is kind
    assert remedy in str(told)
    assert "unix:///d.sock" in str(told)


def test_only_our_errors_are_read() -> None:
    """A mistake in this plugin is not taken for the daemon's, and an error that is ours stays as it is."""
    mistake = KeyError("x")
    assert translate(mistake, "h") is mistake
    ours = LatentWorkerQuotaError("no space left on device")
    assert translate(ours, "h") is ours


@pytest.mark.parametrize(("error", "left"), [(LOST, 1), (REFUSED, 0)])
def test_connection_lost_while_creating(bench: Bench, error: Exception, left: int) -> None:
    """If the container may have been made, the stop looks for it and fails without a daemon; if not, there is nothing to stop."""
    bench.client.faults["create_container"] = error
    with pytest.raises(DaemonUnreachable):
        bench.up()
    bench.client.faults = dict.fromkeys(("containers", "inspect_container"), REFUSED)
    if left:
        with pytest.raises(DaemonUnreachable):
            bench.down()
        bench.client.faults = {}
    bench.down()


def test_daemon_dies_between_create_and_start(bench: Bench) -> None:
    """A container that was made and then could not be started for want of a daemon is not forgotten: the stop looks for it."""
    bench.client.faults = dict.fromkeys(("start", "containers", "inspect_container", "remove_container"), REFUSED)
    bench.client.faults["inspect_container"] = None
    with pytest.raises(DaemonUnreachable):
        bench.up()
    with pytest.raises(DaemonUnreachable):
        bench.down()
    bench.client.faults = {}
    bench.down()
    assert bench.client.there == {}


def test_no_daemon_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers nothing was made: the stop succeeds."""

    def refuse(endpoint: object) -> Any:
        cause = requests.exceptions.ConnectionError("Connection aborted.", FileNotFoundError(2, ""))
        raise DockerException(f"Error while fetching server API version: {cause}") from cause

    monkeypatch.setattr(Daemon, "connect", staticmethod(refuse))
    with pytest.raises(DaemonUnreachable, match="no Docker daemon answers at"):
        bench.up()
    bench.down()


def test_failed_start_leaves_nothing(bench: Bench) -> None:
    """A container that was made and can't be started is removed at once."""
    bench.client.faults["start"] = api_error(500, "no space left on device")
    with pytest.raises(LatentWorkerCapacityError):
        bench.up()
    assert bench.client.there == {}
    bench.down()


def test_removal_is_under_way(bench: Bench) -> None:
    """A container that somebody is removing already is waited for."""
    bench.up()
    bench.client.faults["remove_container"] = api_error(409, "removal of container x is already in progress")
    bench.down()
    assert bench.client.calls["wait"] == 1
    assert bench.client.there == {}


def test_removal_that_does_nothing(bench: Bench) -> None:
    """A container that is still there after its removal is never taken for gone."""
    bench.up()
    kept = dict(bench.client.there)
    bench.client.faults["remove_container"] = None
    bench.client.gone = lambda container: None  # type: ignore[method-assign]
    with pytest.raises(Exception, match="is still there after its removal"):
        bench.down()
    assert bench.client.there == kept
    del bench.client.gone
    bench.down()


def test_events_instead_of_polling(bench: Bench) -> None:
    """While events are listened to a check asks the daemon nothing; an event makes it ask once, and tells the controller."""
    changes: list[None] = []
    bench.worker.when_instance_changed = lambda: changes.append(None)
    bench.up()
    stream = bench.stream()
    assert bench.check() == (True, "")
    asked = bench.client.calls["inspect_container"]
    for _ in range(10):
        assert bench.check() == (True, "")
    assert bench.client.calls["inspect_container"] == asked
    before = len(changes)
    bench.client.set(NAME, Status="exited", ExitCode=3)
    stream.put({"Action": "die", "Actor": {"Attributes": {"name": "somebody-else"}}})
    stream.put({"Action": "die", "Actor": {"Attributes": {"name": NAME}}})
    bench.wait_for(lambda _: len(changes) > before)
    good, message = bench.check()
    assert not good
    assert message == f"container {NAME} exited with code 3; its last lines:\nlast words"
    bench.down()
    stream.close()


def test_daemon_goes_and_comes(bench: Bench) -> None:
    """A daemon that is away for a moment makes no container ill; one that stays away does; back again it is asked at once."""
    changes: list[None] = []
    bench.worker.when_instance_changed = lambda: changes.append(None)
    bench.up()
    stream = bench.stream()
    assert bench.check() == (True, "")
    bench.client.faults = dict.fromkeys(("inspect_container", "events", "ping"), REFUSED)
    stream.close()
    bench.wait_for(lambda daemon: not daemon.listening)
    good, message = bench.check()
    assert good
    assert "no Docker daemon answers" in message
    bench.reactor.advance(SILENCE + 1)
    good, message = bench.check()
    assert not good
    assert "no Docker daemon answers" in message
    bench.client.faults = {}
    before = len(changes)
    again = bench.stream()
    assert len(changes) > before
    assert bench.check() == (True, "")
    bench.down()
    again.close()


def test_events_that_fell_silent(bench: Bench) -> None:
    """A connection that died without a word is found by asking for a sign of life, and made anew."""
    bench.up()
    bench.stream()
    bench.client.faults["ping"] = requests.exceptions.ReadTimeout("timed out")
    bench.reactor.advance(PING)
    bench.wait_for(lambda daemon: not daemon.listening)
    bench.client.faults = {}
    again = bench.stream()
    bench.down()
    again.close()


def test_late_container(bench: Bench) -> None:
    """A container that comes after its start was cancelled is removed."""
    going: Deferred[None] = Deferred()
    bench.client.faults["create_container"] = lambda: bench.reactor.callFromThread(going.callback, None)
    start = hooks.call(bench.worker.start_instance, None)
    start.addErrback(lambda _: None)
    bench.reactor.answer(going)
    start.cancel()
    bench.wait_for(lambda daemon: daemon._threads.running == 0 and bench.client.calls["remove_container"])
    assert bench.client.there == {}
    bench.down()


def test_memory_and_health(bench: Bench) -> None:
    """A process killed for memory is told while the container runs; a failed HEALTHCHECK makes it ill."""
    bench.up()
    bench.client.set(NAME, OOMKilled=True)
    bench.worker._changed = True
    assert bench.check() == (True, f"container {NAME} runs, but a process in it was killed for want of memory")
    log = [{"ExitCode": 1, "Output": "no pulse\n"}]
    bench.client.set(NAME, Health={"Status": "unhealthy", "FailingStreak": 3, "Log": log})
    bench.worker._changed = True
    good, message = bench.check()
    assert not good
    assert "failed 3 times, the last with code 1: no pulse" in message
    bench.down()


def test_client_errors_are_apierrors() -> None:
    """What the fake raises is what docker-py raises."""
    assert isinstance(api_error(404, "x", NotFound), APIError)
    assert api_error(409, "x").is_client_error()
