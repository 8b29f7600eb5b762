"""Images against a real daemon: looked for, built, and pulled from a registry on loopback."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from latent.errors import LatentWorkerCannotSubstantiate, LatentWorkerConfigurationError
from latent.worker import Interpolate, Property, hooks
from tests.docker.engine import BASE, Engine, rootfs
from tests.docker.kit import build
from tests.docker.registry import Registry, serving

Make = Callable[..., Any]


@pytest.fixture
def clean(engine: Engine) -> Iterator[Engine]:
    """An engine from which the images of the test go with it."""
    yield engine
    client = engine.client()
    for image in client.images():
        if BASE not in (image["RepoTags"] or ()):
            client.remove_image(image["Id"], force=True)


@pytest.fixture
def registry() -> Iterator[Registry]:
    # What can't be compressed takes long enough that others ask for the image meanwhile.
    data = io.BytesIO(rootfs())
    with tarfile.open(fileobj=data, mode="a") as archive:
        noise = tarfile.TarInfo("noise")
        noise.size = 20_000_000
        archive.addfile(noise, io.BytesIO(os.urandom(noise.size)))
    with serving(data.getvalue()) as registry:
        yield registry


@ensureDeferred
async def test_one_build_for_all(clean: Engine, made: Make) -> None:
    """Workers that want the same Dockerfile share one build; each build's log has its progress from the beginning."""
    dockerfile = f"FROM {BASE}\nRUN sleep 1; echo built > /stamp\nCMD sh -c 'cat /stamp; sleep 1000'"
    workers = [made(f"w{n}", image=None, dockerfile=dockerfile, command=None) for n in range(5)]
    told: list[list[str]] = [[] for _ in workers]
    await gatherResults([hooks.call(w.start_instance, build(lines)) for w, lines in zip(workers, told, strict=True)])
    images = {clean.container_of(worker.name)["Image"] for worker in workers}
    assert len(images) == 1
    for lines in told:
        assert lines[0].startswith("building image latent-image:")
        assert any("RUN sleep 1" in line for line in lines)
    await gatherResults([hooks.call(worker.stop_instance, True) for worker in workers])
    # The image is there now, and is not built again.
    again: list[str] = []
    await workers[0].up(build(again))
    assert not any("building" in line for line in again)
    await workers[0].down()


@pytest.mark.parametrize("rendered", [False, True])
@ensureDeferred
async def test_does_not_build(clean: Engine, made: Make, rendered: bool) -> None:
    """A Dockerfile that does not build is the declaration's fault, or the build's that decides it; its last lines are told."""
    text = f"FROM {BASE}\nRUN echo almost; false"
    worker = made(image="mine:1", dockerfile=Interpolate("%(kw:t)s", t=text) if rendered else text)
    expected = LatentWorkerCannotSubstantiate if rendered else LatentWorkerConfigurationError
    with pytest.raises(expected, match=r"(?s)building mine:1: .*returned a non-zero code: 1.*almost"):
        await worker.up(build())
    await worker.down()
    assert clean.client().images("mine") == []


@pytest.mark.parametrize("text", ["FORM base:1", "FROM nowhere:1", f"FROM {BASE}\nCOPY nothing /"])
@ensureDeferred
async def test_bad_dockerfiles(clean: Engine, made: Make, text: str) -> None:
    """Whatever is wrong with a Dockerfile is a mistake in the declaration."""
    worker = made(image="mine:1", dockerfile=text)
    with pytest.raises(LatentWorkerConfigurationError):
        await worker.up(build())
    await worker.down()


@ensureDeferred
async def test_arguments_and_target(clean: Engine, made: Make) -> None:
    """buildargs and target count also without custom_context, may be renderables, and tell images apart."""
    dockerfile = f"FROM {BASE} AS one\nARG WHO\nENV WHO=$WHO\nFROM one AS two\nENV STAGE=two"
    worker = made(image=None, dockerfile=dockerfile, buildargs={"WHO": Property("who")}, target=Property("stage", default="two"))
    environments = []
    for properties in ({"who": "me"}, {"who": "you", "stage": "one"}):
        await worker.up(build(**properties))
        environments.append(set(clean.container_of("w1")["Config"]["Env"]))
        await worker.down()
    assert {"WHO=me", "STAGE=two"} <= environments[0]
    assert "WHO=you" in environments[1]
    assert "STAGE=two" not in environments[1]


@pytest.mark.parametrize(("mode", "encoding"), [("w", "gzip"), ("w:gz", "gzip"), ("w:bz2", "bzip")])
@ensureDeferred
async def test_custom_context(clean: Engine, made: Make, tmp_path: Path, mode: Any, encoding: str) -> None:
    """With custom_context the Dockerfile comes in a tar file, with the files that it copies."""
    context = tmp_path / "context.tar"
    with tarfile.open(context, mode) as archive:
        for name, content in {"Dockerfile": f"FROM {BASE}\nCOPY greeting /greeting".encode(), "greeting": b"hello"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    worker = made(image="mine:2", dockerfile=str(context), custom_context=True, encoding=encoding, command=["cat", "/greeting"])
    try:
        await worker.up()
        message = await worker.ill()
    except Exception as error:
        message = str(error)
    assert message.endswith("\nhello")
    await worker.down()


@ensureDeferred
async def test_context_is_missing(clean: Engine, made: Make) -> None:
    """A context that is not there is named."""
    worker = made(image="mine:3", dockerfile="nowhere.tar", custom_context=True)
    with pytest.raises(LatentWorkerConfigurationError, match=r"the context nowhere\.tar can't be read"):
        await worker.up()
    await worker.down()


@ensureDeferred
async def test_one_pull_for_all(clean: Engine, made: Make, registry: Registry) -> None:
    """Workers that want the same image share one pull, whose progress each build's log has; by digest it is found again."""
    workers = [made(f"w{n}", image=registry.image, autopull=True) for n in range(5)]
    told: list[list[str]] = [[] for _ in workers]
    await gatherResults([hooks.call(w.start_instance, build(lines)) for w, lines in zip(workers, told, strict=True)])
    assert registry.pulls() == 1
    for lines in told:
        assert lines[0] == f"pulling image {registry.image}"
        assert any("Pull complete" in line for line in lines)
    await gatherResults([hooks.call(worker.stop_instance, True) for worker in workers])
    by_digest = made(image=f"{registry.image.rpartition(':')[0]}@{registry.digest}")
    await by_digest.up()
    await by_digest.down()


@ensureDeferred
async def test_always_pull(clean: Engine, made: Make, registry: Registry) -> None:
    """With alwaysPull the registry is asked also for an image that is there; without, it is not."""
    asked = []
    for always in (False, False, True):
        worker = made(image=registry.image, autopull=True, alwaysPull=always)
        await worker.up()
        await worker.down()
        asked.append(sum(count for path, count in registry.asked.items() if "/manifests/" in path))
    assert asked[0] == asked[1] < asked[2]
    assert registry.pulls() == 1


@ensureDeferred
async def test_registry_does_not_have_it(clean: Engine, made: Make, registry: Registry) -> None:
    """An image that the registry does not know is a mistake in the declaration."""
    worker = made(image=registry.image.replace("served:1", "served:9"), autopull=True)
    with pytest.raises(LatentWorkerConfigurationError, match="registry has no such image"):
        await worker.up()
    await worker.down()


@ensureDeferred
async def test_images_by_property(clean: Engine, made: Make) -> None:
    """Where a build chooses the image, the instance says for which builds it will do."""
    worker = made(image=Property("image"))
    one, other = build(image=BASE).properties, build(image="base").properties
    assert worker.builds_may_be_incompatible
    assert await hooks.call(worker.isCompatibleWithBuild, other) is True
    await worker.up(build(image=BASE))
    assert await hooks.call(worker.isCompatibleWithBuild, one) is True
    assert await hooks.call(worker.isCompatibleWithBuild, other) is False
    await worker.down()
    assert await hooks.call(worker.isCompatibleWithBuild, other) is True
    assert not made().builds_may_be_incompatible
