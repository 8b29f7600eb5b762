"""The plugin's hooks against a real daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, gatherResults

from latent.errors import (
    LatentWorkerCannotSubstantiate,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    PluginError,
)
from latent.model import Attempt
from latent.worker import Property, hooks
from tests.docker.engine import BASE, Engine
from tests.docker.kit import CONTROLLER, OTHER, build, in_attempt, until

Make = Callable[..., Any]


@ensureDeferred
async def test_life(engine: Engine, made: Make) -> None:
    """Start, check, list, stop: the container has our labels and variables, and is gone with all that it had."""
    worker = made(volumes=["/cache"])
    detail = await worker.up()
    assert detail[0] == f"latent-w1-1-{worker.enrolment.idempotency_token[:16]}"
    assert await worker.check() == (True, "")
    document = engine.container_of("w1")
    assert document["Config"]["Labels"] == {
        "latent.controller": CONTROLLER,
        "latent.worker": "w1",
        "latent.attempt": "1",
    }
    environment = dict(variable.split("=", 1) for variable in document["Config"]["Env"])
    assert environment["LATENT_SERVER"] == "127.0.0.1:9989"
    assert environment["LATENT_TOKEN"] == "secret-w1-1"
    assert len(engine.volumes()) == 1
    (listed,) = await worker.all()
    assert (listed.attempt, listed.controller_id) == (Attempt("w1", 1), CONTROLLER)
    assert listed.created_at is not None
    await worker.down()
    assert (engine.names(), engine.volumes(), await worker.all()) == ([], [], ())
    await worker.down()


@ensureDeferred
async def test_repeated_start(engine: Engine, made: Make) -> None:
    """A start that is repeated after a crash adopts the container of the first."""
    first, again = made(), made()
    await first.up()
    detail = await again.up()
    assert "it was there already" in detail
    assert again.handle()["container"] == first.handle()["container"]
    assert len(engine.names()) == 1
    await again.down()
    await first.down()


@ensureDeferred
async def test_two_starts_at_once(engine: Engine, made: Make) -> None:
    """Even when both are under way at the same time there is one container."""
    workers = [made() for _ in range(4)]
    await gatherResults([hooks.call(worker.start_instance, None) for worker in workers])
    assert len({worker.handle()["container"] for worker in workers}) == 1
    for worker in workers:
        await worker.down()


@ensureDeferred
async def test_strangers_name(engine: Engine, made: Make) -> None:
    """A container of somebody else's that has our name is left alone, and the instance takes another name."""
    worker = made()
    name = worker.getContainerName()
    stranger = engine.client().create_container(BASE, ["sleep", "1"], name=name)["Id"]
    other = in_attempt("w1", 1, state_dir=Path(), controller=OTHER, docker_host=engine.url, image=BASE, command=["sleep", "9"])
    told: list[str] = []
    await worker.up(build(told))
    assert engine.names() == [name, f"{name}-2"]
    assert any(name in line and "not ours" in line for line in told)
    await other.down()
    assert await worker.check() == (True, "")
    await worker.down()
    assert engine.names() == [name]
    assert engine.client().inspect_container(stranger)["State"]["Status"] == "created"
    engine.client().remove_container(stranger)


@ensureDeferred
async def test_all_names_are_taken(engine: Engine, made: Make) -> None:
    """When strangers have all the names it says which, and touches none."""
    worker = made()
    name = worker.getContainerName()
    names = [name, *(f"{name}-{n}" for n in range(2, 6))]
    strangers = [engine.client().create_container(BASE, ["sleep", "1"], name=one)["Id"] for one in names]
    with pytest.raises(LatentWorkerConfigurationError, match=r"not ours have the names .*-5; rename"):
        await worker.up()
    await worker.down()
    assert engine.names() == sorted(names)
    for stranger in strangers:
        engine.client().remove_container(stranger)


@ensureDeferred
async def test_controllers_side_by_side(engine: Engine, made: Make) -> None:
    """Workers of the same name, of two controllers, or with names that begin alike, never get at each other's containers."""
    keywords = {"docker_host": engine.url, "image": BASE, "command": ["sleep", "1000"], "state_dir": Path()}
    workers = [made("w"), made("w", 11), made("w-1"), in_attempt("w", 1, controller=OTHER, **keywords)]
    for worker in workers:
        await worker.up()
    assert len(engine.names()) == 4
    await workers[0].down()
    assert len(engine.names()) == 3
    assert [await worker.check() for worker in workers[1:]] == [(True, "")] * 3
    assert len(await workers[0].all()) == 3
    for worker in workers[1:]:
        await worker.down()


@ensureDeferred
async def test_resume(engine: Engine, made: Make) -> None:
    """After a restart the handle finds the container, as this attempt's and no other's; what it was made from is known."""
    first = made(image=Property("image"))
    await first.up(build(image=BASE))
    handle = first.handle()
    later = made(image=Property("image"))
    assert await later.resume(handle) is True
    assert await later.check() == (True, "")
    assert await hooks.call(later.isCompatibleWithBuild, build(image=BASE).properties) is True
    assert await hooks.call(later.isCompatibleWithBuild, build(image="other:1").properties) is False
    assert await made("w1", 2).resume(handle) is False
    assert await made("w2").resume(handle) is False
    engine.client().kill(handle["container"])
    assert "exited with code 137" in await later.ill()
    assert await made().resume(handle) is False
    await later.down()
    assert await made().resume(handle) is False
    await first.down()
    with pytest.raises(PluginError, match="no handle of a DockerLatentWorker"):
        await later.resume({"pid": 1})


@ensureDeferred
async def test_destroy(engine: Engine, made: Make) -> None:
    """Whatever is left of an attempt is found and destroyed, by a handle or without one, and again without harm."""
    worker, reaper = made(volumes=["/cache"], private_network=True), made("other")
    await worker.up()
    handle = worker.handle()
    assert len(handle["volumes"]) == 1
    (listed,) = await reaper.all()
    assert listed.handle["container"] == handle["container"]
    await reaper.destroy_instance(listed.handle)
    await reaper.destroy_instance(handle)
    assert (engine.names(), engine.volumes(), engine.networks()) == ([], [], [])
    good, message = await worker.check()
    if good:
        message = await worker.ill()
    assert "gone" in message
    await worker.down()


@ensureDeferred
async def test_remains_without_container(engine: Engine, made: Make) -> None:
    """Networks and anonymous volumes that a container left behind are listed and destroyed, too."""
    worker, reaper = made(volumes=["/cache"], private_network=True), made("other")
    await worker.up()
    engine.client().remove_container(worker.handle()["container"], force=True)
    assert len(engine.volumes()) == len(engine.networks()) == 1
    (listed,) = await reaper.all()
    assert listed.attempt == Attempt("w1", 1)
    await reaper.destroy_instance(listed.handle)
    assert (engine.volumes(), engine.networks()) == ([], [])
    await worker.down()


@ensureDeferred
async def test_named_volumes_stay(engine: Engine, made: Make, tmp_path: Path) -> None:
    """A volume that has a name is the user's, and so is a directory; both are there in the container."""
    (tmp_path / "in").write_text("from outside")
    command = ["sh", "-c", "cat /host/in; echo kept > /kept/file; sleep 1000"]
    worker = made(volumes=["kept:/kept", f"{tmp_path}:/host:ro"], command=command)
    await worker.up()
    document = engine.container_of("w1")
    assert {mount["Destination"] for mount in document["Mounts"]} == {"/kept", "/host"}
    await worker.down()
    assert engine.volumes() == ["kept"]
    engine.client().remove_volume("kept")


@ensureDeferred
async def test_exits_at_once(engine: Engine, made: Make) -> None:
    """A container that ends is told of by the daemon, not asked for; the message has its last 100 lines."""
    worker = made(command=["sh", "-c", "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo line $i; done; exit 3"])
    message = ""
    try:
        await worker.up()
        message = await worker.ill()
    except LatentWorkerFailedToSubstantiate as error:
        message = str(error)
    assert "exited with code 3" in message
    lines = [line for line in message.splitlines() if line.startswith("line ")]
    assert lines == [f"line {n}" for n in range(51, 151)]
    await worker.down()


@ensureDeferred
async def test_killed_for_memory(engine: Engine, made: Make) -> None:
    """A container that needs more memory than it has says so."""
    hog = ["sh", "-c", "echo growing; exec /bin/busybox tail /dev/zero"]
    worker = made(command=hog, hostconfig={"mem_limit": "16m", "memswap_limit": "16m"})
    try:
        await worker.up()
        message = await worker.ill()
    except LatentWorkerFailedToSubstantiate as error:
        message = str(error)
    assert "killed for want of memory" in message
    assert "growing" in message
    await worker.down()


@ensureDeferred
async def test_health_check(engine: Engine, made: Make) -> None:
    """What the image's HEALTHCHECK says counts, and what it printed is told."""
    dockerfile = f"FROM {BASE}\nHEALTHCHECK --interval=1s --retries=1 CMD sh -c 'echo no pulse; exit 1'"
    worker = made(image=None, dockerfile=dockerfile)
    await worker.up()
    message = await worker.ill()
    assert "unhealthy" in message
    assert "no pulse" in message
    await worker.down()


@ensureDeferred
async def test_removed_by_somebody(engine: Engine, made: Make) -> None:
    """A container that somebody removes counts as ill, not as healthy."""
    worker = made()
    await worker.up()
    engine.client().remove_container(worker.handle()["container"], force=True)
    assert "is gone" in await worker.ill()
    await worker.down()


@ensureDeferred
async def test_paused(engine: Engine, made: Make) -> None:
    """A paused container is no good until somebody lets it go on."""
    worker = made()
    await worker.up()
    container = worker.handle()["container"]
    engine.client().pause(container)
    assert "is paused" in await worker.ill()
    change = worker.change()
    engine.client().unpause(container)
    await change
    assert await worker.check() == (True, "")
    await worker.down()


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"image": "nowhere:1"}, LatentWorkerConfigurationError, "no image nowhere:1; build or pull"),
        ({"image": "base@sha256:" + "0" * 64}, LatentWorkerConfigurationError, "no image base@sha256"),
        ({"command": ["/no/such/program"]}, LatentWorkerConfigurationError, "correct command"),
        ({"hostconfig": {"network_mode": "nowhere"}}, LatentWorkerConfigurationError, "make the network"),
        ({"hostconfig": {"runtime": "nothing"}}, LatentWorkerConfigurationError, "correct the worker's hostconfig"),
        ({"image": Property("image", default="nowhere:1")}, LatentWorkerCannotSubstantiate, "no image nowhere:1"),
        ({"image": Property("image", default=7)}, LatentWorkerCannotSubstantiate, "as rendered: image is 7"),
        ({"image": Property("image")}, LatentWorkerCannotSubstantiate, "image"),
        ({"docker_host": "unix:///nowhere.sock"}, LatentWorkerFailedToSubstantiate, "no Docker daemon answers at unix:///now"),
        ({"docker_host": "tcp://127.0.0.1:1"}, LatentWorkerFailedToSubstantiate, "no Docker daemon answers at tcp://127"),
    ],
)
@ensureDeferred
async def test_cannot_start(engine: Engine, made: Make, keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    """What can't be started says why and what to do, with the type that decides what follows; nothing is left."""
    worker = made(private_network="hostconfig" not in keywords, **keywords)
    with pytest.raises(error, match=message):
        await worker.up(build())
    await worker.down()
    assert (engine.names(), engine.networks()) == ([], [])


@ensureDeferred
async def test_cancelled_start(engine: Engine, made: Make) -> None:
    """A container that comes after its start was cancelled is removed as soon as it is there."""
    from latent_docker import containers

    worker = made()
    starting = hooks.call(worker.start_instance, None)
    (daemon,) = worker._known_daemons()
    await until(lambda: worker._touched)
    starting.cancel()
    with pytest.raises(CancelledError):
        await starting
    await worker.down()
    await until(lambda: daemon._threads.running == 0)
    assert await daemon.run(containers.find, {"latent.worker": "w1"}, adopt=lambda _: None) == []


@ensureDeferred
async def test_daemons_as_a_pool(engine: Engine, made: Make) -> None:
    """A daemon that is dead is skipped and that is said; with max_containers reached everywhere there is no room."""
    hosts = ["unix:///nowhere.sock", engine.url]
    workers = [made(f"w{n}", docker_host=hosts, max_containers=2) for n in range(3)]
    told: list[str] = []
    detail = await workers[0].up(build(told))
    assert any("skipped: no Docker daemon answers at unix:///nowhere.sock" in line for line in detail)
    assert any("unix:///nowhere.sock" in line for line in told)
    await workers[1].up()
    status = workers[0].provider_status()
    assert status is not None
    assert not status.ok
    assert "no Docker daemon answers at unix:///nowhere.sock" in status.message
    assert f"{engine.url}: 2 containers of ours" in status.message
    with pytest.raises(LatentWorkerCapacityError, match="2 containers, as many as max_containers"):
        await workers[2].up()
    await workers[2].down()
    await workers[0].down()
    await workers[2].up()
    with pytest.raises(LatentWorkerFailedToSubstantiate, match=r"nowhere\.sock"):
        await workers[0].all()
    await workers[1].down()
    await workers[2].down()


@ensureDeferred
async def test_host_by_property(engine: Engine, made: Make) -> None:
    """Where a build chooses the daemon, one that was chosen once is looked at after a restart."""
    worker = made(docker_host=Property("host"))
    await worker.up(build(host=engine.url))
    later = made(docker_host=Property("host"))
    (listed,) = await later.all()
    assert listed.attempt == Attempt("w1", 1)
    await later.down()
    assert engine.names() == []
    await worker.down()


@ensureDeferred
async def test_startup_log(engine: Engine, made: Make) -> None:
    """followStartupLogs tells what the container writes, and does not hold up the start."""
    worker = made(command=["sh", "-c", "echo one; sleep 1; echo two; sleep 1000"], followStartupLogs=True)
    told: list[str] = []
    await worker.up(build(told))
    assert "two" not in told
    await until(lambda: "two" in told)
    assert told.count("one") == 1
    await worker.down()


@ensureDeferred
async def test_twenty_at_once(engine: Engine, made: Make) -> None:
    """Twenty containers are started at once and stopped at once."""
    workers = [made(f"w{n}") for n in range(20)]
    await gatherResults([hooks.call(worker.start_instance, None) for worker in workers])
    assert len(engine.names()) == 20
    assert [await worker.check() for worker in workers] == [(True, "")] * 20
    await gatherResults([hooks.call(worker.stop_instance, True) for worker in workers])
    assert engine.names() == []
