"""A daemon that is reached over TCP and TLS, and that lets in only whom it knows."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import docker.tls
import pytest
from pytest_twisted import ensureDeferred

from latent.errors import LatentWorkerConfigurationError
from tests.certificates import certificate
from tests.docker.engine import BASE, require_engine, running
from tests.docker.kit import Driven, in_attempt


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(tcp://HOST:PORT, where the certificates are): server.pem and client.pem, which trust each other, and stranger.pem."""
    require_engine()
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client", "stranger"):
        certificate(folder, name)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    options = (
        "--tlsverify",
        f"--tlscacert={folder}/client.pem",
        f"--tlscert={folder}/server.pem",
        f"--tlskey={folder}/server.key",
    )
    with running("--host", host, *options) as engine:
        engine.load_base()
        yield host, folder


def worker(tmp_path: Path, host: str, tls: docker.tls.TLSConfig | None) -> Driven:
    return in_attempt("w1", 1, state_dir=tmp_path, docker_host=host, tls=tls, image=BASE, command=["sleep", "1000"], stop_grace=0)


def config(folder: Path, client: str, server: str) -> docker.tls.TLSConfig:
    pair = (str(folder / f"{client}.pem"), str(folder / f"{client}.key"))
    return docker.tls.TLSConfig(client_cert=pair, ca_cert=str(folder / f"{server}.pem"), verify=True)


@ensureDeferred
async def test_both_know_each_other(guarded: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's whole life over TLS, its events included, whatever the machine's own authorities are."""
    host, folder = guarded
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "stranger.pem"))
    one = worker(tmp_path, host, config(folder, "client", "server"))
    await one.up()
    assert await one.check() == (True, "")
    change = one.change()
    again = worker(tmp_path, host, config(folder, "client", "server"))
    await again.destroy_instance(one.handle())
    await change
    assert (await one.check())[0] is False
    await one.down()


@pytest.mark.parametrize(("client", "server"), [("client", "stranger"), ("stranger", "server")])
@ensureDeferred
async def test_one_does_not_know_the_other(guarded: tuple[str, Path], tmp_path: Path, client: str, server: str) -> None:
    """Whether we do not trust the daemon or the daemon does not trust us: the error says that it is the certificates."""
    host, folder = guarded
    one = worker(tmp_path, host, config(folder, client, server))
    with pytest.raises(LatentWorkerConfigurationError, match=r"certificates that fit"):
        await one.up()
    await one.down()


@ensureDeferred
async def test_without_tls(guarded: tuple[str, Path], tmp_path: Path) -> None:
    """A declaration without tls is told that the daemon wants it."""
    host, _ = guarded
    one = worker(tmp_path, host, None)
    with pytest.raises(LatentWorkerConfigurationError, match=r"TLSConfig"):
        await one.up()
    await one.down()
