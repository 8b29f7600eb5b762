"""A worker and a cloud that are apart: what is said over TCP, and what is not left of it. Both in the test's process here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from latent.controller.clock import WallClock
from latent.errors import ConfigError, LatentError, LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate, PluginError
from latent.model import Attempt
from latent.testing.cloud import Cloud, CloudError, CloudLatentWorker
from latent.testing.cloud.server import listen
from latent.worker import Enrolment

reactor: Any = the_reactor


@asynccontextmanager
async def served() -> AsyncIterator[Cloud]:
    cloud = Cloud(WallClock(reactor))
    listening = await listen(reactor, cloud)
    try:
        yield cloud
    finally:
        await cloud.close()
        await listening.stopListening()


async def worker(cloud: Cloud | str, attempt: int = 1, **keywords: Any) -> CloudLatentWorker:
    made = CloudLatentWorker("w", cloud=cloud if isinstance(cloud, str) else cloud.name, poll=0.01, **keywords)
    made.reactor = reactor
    args, declared = made.arguments
    await made.reconfigService(*args, **declared)
    made.enrolment = Enrolment(Attempt("w", attempt), "c" * 32, f"token {attempt}", "secret", {"peer": "127.0.0.1:1"})
    return made


async def until(ready: Any) -> None:
    while not ready():
        await deferLater(reactor, 0.005)


@ensureDeferred
async def test_life() -> None:
    """Every hook does over TCP what it does in memory."""
    async with served() as cloud:
        one = await worker(cloud)
        instance_id, image = await one.start_instance(None)
        assert image == "agent"
        await until(lambda: cloud.instances("running"))
        assert await one.check_instance() == (True, "")
        handle = one.instance_handle()
        again = await worker(cloud)
        assert await again.resume_instance(handle)
        (listed,) = await again.list_instances()
        assert (listed.attempt, listed.handle, listed.controller_id) == (Attempt("w", 1), {"id": instance_id}, "c" * 32)
        assert await one.check_live() == []
        assert one.provider_status().ok
        await again.stop_instance()
        assert cloud.instances() == []
        assert await one.check_instance() == (False, f"{instance_id} is gone")
        await one.destroy_instance(handle)
        assert not await (await worker(cloud)).resume_instance(handle)


@ensureDeferred
async def test_start_is_idempotent() -> None:
    """The same attempt started twice has one instance; one whose instance has gone does not get another."""
    async with served() as cloud:
        one = await worker(cloud)
        first, second = await one.start_instance(None), await (await worker(cloud)).start_instance(None)
        assert first == second
        assert len(cloud.instances()) == 1
        await one.stop_instance()
        with pytest.raises(LatentWorkerFailedToSubstantiate, match=f"instance {first[0]} failed to start: it is gone"):
            await one.start_instance(None)


@ensureDeferred
async def test_answered_twice() -> None:
    """The second answer to a call is nobody's business."""
    async with served() as cloud:
        cloud.twice("*", times=None)
        one = await worker(cloud)
        await one.start_instance(None)
        assert len(cloud.instances()) == 1
        await one.stop_instance()
        assert cloud.instances() == []


@ensureDeferred
async def test_late_answer_is_destroyed() -> None:
    """A start that was cancelled: what the cloud makes of it later is destroyed, though the stop had seen nothing."""
    async with served() as cloud:
        cloud.hang("create")
        one = await worker(cloud)
        starting = Deferred.fromCoroutine(one.start_instance(None))
        await until(lambda: cloud.calls()["create"])
        starting.cancel()
        with pytest.raises(CancelledError):
            await starting
        await one.stop_instance()
        assert cloud.account.made("token 1") is None
        cloud.heal()
        await until(lambda: (cloud.log()[-1].what, cloud.log()[-1].text[-4:]) == ("destroy", "gone"))
        assert cloud.instances() == []


@ensureDeferred
async def test_cancelled_before_it_was_said() -> None:
    """A start that is cancelled while the connection is made asks for nothing."""
    async with served() as cloud:
        one = await worker(cloud)
        starting = Deferred.fromCoroutine(one.start_instance(None))
        starting.cancel()
        with pytest.raises(CancelledError):
            await starting
        await one.stop_instance()
        assert cloud.calls()["create"] == 0


@ensureDeferred
async def test_no_cloud() -> None:
    """Without a cloud at the address a start fails, and says how to get one; health is not known, which is no illness."""
    async with served() as cloud:
        address = cloud.name
    one = await worker(address)
    with pytest.raises(LatentWorkerFailedToSubstantiate, match="; start it: python -m latent"):
        await one.start_instance(None)
    with pytest.raises(LatentError, match="its instances can't be listed: no cloud answers"):
        await one.stop_instance()
    one._id = "i-1"
    good, message = await one.check_instance()
    assert good
    assert "does not tell how i-1 is" in message
    assert not one.provider_status().ok
    assert "no cloud answers" in (await one.check_live())[0]


@ensureDeferred
async def test_cloud_ends_during_a_call() -> None:
    """A cloud that goes away while it is asked is one that does not answer."""
    async with served() as cloud:
        cloud.hang("list")
        one = await worker(cloud)
        listing = Deferred.fromCoroutine(one.list_instances())
        await until(lambda: cloud.calls()["list"])
        connection = next(c for c in reactor.getReaders() if getattr(getattr(c, "protocol", None), "_cloud", None) is cloud)
        connection.loseConnection()
        with pytest.raises(LatentError, match="the cloud broke the connection off"):
            await listing


@ensureDeferred
async def test_wrong_image() -> None:
    """An image that the cloud does not have is a mistake of the declaration; checkconfig --live finds it before."""
    async with served() as cloud:
        one = await worker(cloud, image="windows")
        assert await one.check_live() == [f"{cloud.name} has no image 'windows'; take one of agent, empty"]
        with pytest.raises(LatentWorkerConfigurationError, match="there is no image 'windows'; the cloud has agent, empty"):
            await one.start_instance(None)
        await one.stop_instance()


@ensureDeferred
async def test_nonsense() -> None:
    """Calls and arguments that there are not are refused in words."""
    async with served() as cloud:
        one = await worker(cloud)
        for call, arguments, words in (
            ("explode", {}, "there is no call 'explode'; the cloud has create"),
            ("create", {"colour": "red"}, "create: .*unexpected keyword argument 'colour'"),
            ("destroy", {"id": "i-0"}, "there is no instance i-0"),
        ):
            with pytest.raises(CloudError, match=words):
                await one._call(call, **arguments)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({}, r"cloud is None; give it a latent.testing.cloud.Cloud, or 'HOST:PORT' of one"),
        ({"cloud": "somewhere"}, "cloud is 'somewhere'; write 'HOST:PORT'"),
        ({"cloud": "a:1", "image": 7}, "image is 7"),
        ({"cloud": "a:1", "settle": -1}, "settle is -1"),
        ({"cloud": "a:1", "pol": 1}, "has no keyword 'pol'; did you mean .*poll"),
    ],
)
def test_declaration(declared: dict[str, Any], words: str) -> None:
    """A declaration that is wrong says where and what to write."""
    with pytest.raises(ConfigError, match=words) as caught:
        CloudLatentWorker("w", **declared)
    assert "worker 'w'" in str(caught.value)


@ensureDeferred
async def test_wrong_handle() -> None:
    """A handle of another plugin is refused, not taken for an instance."""
    async with served() as cloud:
        one = await worker(cloud)
        with pytest.raises(PluginError, match="is no handle of a CloudLatentWorker"):
            await one.destroy_instance({"pid": 7})
