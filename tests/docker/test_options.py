"""The declaration of a Docker worker: what is checked when it is written down."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from latent.errors import ConfigError, LatentWorkerConfigurationError
from latent.worker import Enrolment, Interpolate, Property
from latent_docker import DockerLatentWorker
from latent_docker.environment import warnings
from latent_docker.identity import Handle
from latent_docker.recipe import Recipe, recipe
from tests.docker.kit import enrolment_of

HOST = "unix:///var/run/docker.sock"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "neither image nor dockerfile is given"),
        ({"image": "a b"}, "image is 'a b'; write 'NAME:TAG'"),
        ({"image": ""}, "image is ''"),
        ({"image": "i", "docker_host": "/var/run/docker.sock"}, "docker_host is '/var/run/docker.sock'; write"),
        ({"image": "i", "docker_host": []}, "docker_host is"),
        ({"image": "i", "dockerfile": ""}, "dockerfile is ''"),
        ({"image": "i", "volumes": "/a:/b"}, "volumes is '/a:/b'; write a list"),
        ({"image": "i", "volumes": ["/a:b"]}, "'/a:b' in volumes can't be understood"),
        ({"image": "i", "volumes": ["/a:/b:ro:x"]}, "can't be understood"),
        ({"image": "i", "volumes": [3]}, "3 in volumes is no string"),
        ({"image": "i", "hostconfig": {"mem_limt": "2g"}}, "hostconfig has 'mem_limt', which docker-py does not know"),
        ({"image": "i", "hostconfig": {"mem_limit": "lots"}}, "hostconfig is wrong"),
        ({"image": "i", "hostconfig": {"binds": []}}, "hostconfig has 'binds'; write them as volumes"),
        ({"image": "i", "hostconfig": "x"}, "hostconfig is 'x'"),
        ({"image": "i", "encoding": "zip"}, "encoding is 'zip'; write one of 'gzip'"),
        ({"image": "i", "target": 3}, "target is 3"),
        ({"image": "i", "buildargs": ["A=1"]}, "buildargs is"),
        ({"image": "i", "hostname": "a_b"}, "hostname is 'a_b'"),
        ({"image": "i", "command": []}, "command is"),
        ({"image": "i", "version": 1.41}, "version is 1.41; write the API's version as a string"),
        ({"image": "i", "tls": "yes"}, "tls is 'yes'; write docker.tls.TLSConfig"),
        ({"image": "i", "masterFQDN": ""}, "masterFQDN is ''"),
        ({"image": "i", "master_protocol": "null"}, "master_protocol is 'null'; write one of 'pb'"),
        ({"image": "i", "alwaysPull": True}, "alwaysPull does nothing by itself; set autopull=True"),
        ({"image": "i", "max_containers": 0}, "max_containers is 0; write 1 or more"),
        ({"image": "i", "max_containers": True}, "max_containers is True"),
        ({"image": "i", "stop_grace": -1}, "stop_grace is -1"),
        ({"image": "i", "private_network": True, "hostconfig": {"network_mode": "host"}}, "exclude each other"),
        ({"image": "i", "imgae": "x"}, "did you mean 'image'"),
        ({"image": "i", "locks": []}, "locks is not supported; give builds labels"),
        ({"image": "i", "keepalive_interval": 10}, "keepalive_interval is not supported"),
    ],
)
def test_mistakes(keywords: dict[str, Any], message: str) -> None:
    """Each mistake is told with its remedy before anything is started."""
    with pytest.raises(ConfigError) as raised:
        DockerLatentWorker("w", None, **{"docker_host": HOST, **keywords})
    assert any(message in error for error in raised.value.errors), raised.value.errors


def test_all_at_once() -> None:
    """One mistake does not hide the next."""
    with pytest.raises(ConfigError) as raised:
        DockerLatentWorker("w", None, "nowhere", volumes=[1, 2], encoding="zip", max_containers=0)
    assert len(raised.value.errors) == 6


def test_renderables_are_left_alone() -> None:
    """What a build decides is checked when it is rendered."""
    DockerLatentWorker(
        "w",
        None,
        Property("host"),
        image=Interpolate("%(prop:image)s"),
        volumes=[Interpolate("%(prop:cache)s:/cache")],
        hostconfig={"mem_limit": Property("memory")},
        hostname=Property("name"),
        target=Property("target"),
        buildargs={"A": Property("a")},
    )


def test_defaults() -> None:
    """An idle container is not kept unless that is asked for, as in Buildbot."""
    worker = DockerLatentWorker("w", None, HOST, "image")
    assert worker.build_wait_timeout == 0
    assert DockerLatentWorker("w", None, HOST, "image", build_wait_timeout=60).build_wait_timeout == 60


VALUES: dict[str, Any] = {
    **dict.fromkeys(("docker_host", "dockerfile", "volumes", "hostconfig", "buildargs", "hostname", "command")),
    "image": "i:1",
    "custom_context": False,
    "encoding": "gzip",
    "target": "",
}


def test_recipes() -> None:
    """Two recipes are equal iff a container of one will do for the other, also after one was persisted."""
    one = recipe({**VALUES, "hostconfig": {"mem_limit": "1g", "dns": ("10.0.0.1", "10.0.0.2")}})
    assert Recipe.from_json(one.to_json()) == one
    assert recipe({**VALUES, "hostconfig": {"dns": ["10.0.0.1", "10.0.0.2"], "mem_limit": "1g"}}) == one
    assert recipe({**VALUES, "image": "i:2"}) != recipe(VALUES)
    assert Recipe.from_json({"image": "of another version"}) is None
    unnamed = recipe({**VALUES, "image": None, "dockerfile": "FROM x"})
    other = recipe({**VALUES, "image": None, "dockerfile": "FROM x", "buildargs": {"A": "1"}})
    assert unnamed.reference.startswith("latent-image:")
    assert unnamed.reference != other.reference


def worker_with(servers: Mapping[str, str], **keywords: Any) -> DockerLatentWorker:
    worker = DockerLatentWorker("w", None, HOST, "image", **keywords)
    args, kwargs = worker.arguments
    worker.reconfigService(*args, **kwargs)
    given = enrolment_of("w", 3)
    worker.enrolment = Enrolment(given.attempt, given.controller_id, given.idempotency_token, given.agent_token, servers)
    return worker


def test_variables() -> None:
    """A container has what latent-agent, a Woodpecker agent and Buildbot's worker image read, with the attempt's own password."""
    servers = {"peer": "ci.example:9990", "pb": "ci.example:9989"}
    assert worker_with(servers, max_builds=2).createEnvironment() == {
        "LATENT_SERVER": "ci.example:9990",
        "LATENT_TOKEN": "secret-w-3",
        "LATENT_WORKER": "w",
        "LATENT_ATTEMPT": "3",
        "LATENT_CAPACITY": "2",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "WOODPECKER_SERVER": "ci.example:9990",
        "WOODPECKER_AGENT_SECRET": "secret-w-3",
        "WOODPECKER_HOSTNAME": "w",
        "WOODPECKER_MAX_WORKFLOWS": "2",
        "WOODPECKER_BACKEND": "local",
        "BUILDMASTER": "ci.example",
        "BUILDMASTER_PORT": "9989",
        "BUILDMASTER_PROTOCOL": "pb",
        "WORKERNAME": "w",
        "WORKERPASS": "secret-w-3",
    }


def test_master_protocol() -> None:
    """master_protocol chooses whose port a worker is told."""
    servers = {"peer": "h:1", "pb": "h:2", "msgpack_experimental_v7": "h:3"}
    variables = worker_with(servers, master_protocol="msgpack_experimental_v7").createEnvironment()
    assert (variables["BUILDMASTER_PORT"], variables["BUILDMASTER_PROTOCOL"]) == ("3", "msgpack_experimental_v7")


def test_master_name() -> None:
    """masterFQDN is where containers find the controller; with a port, that is the port of Buildbot's protocol."""
    servers = {"peer": "127.0.0.1:1", "pb": "127.0.0.1:2"}
    variables = worker_with(servers, masterFQDN="outside").createEnvironment()
    assert (variables["LATENT_SERVER"], variables["BUILDMASTER"], variables["BUILDMASTER_PORT"]) == ("outside:1", "outside", "2")
    variables = worker_with(servers, masterFQDN="outside:77").createEnvironment()
    assert (variables["LATENT_SERVER"], variables["BUILDMASTER"], variables["BUILDMASTER_PORT"]) == ("outside:1", "outside", "77")
    variables = worker_with({"peer": "[::1]:1"}, masterFQDN="fd00::5").createEnvironment()
    assert variables["LATENT_SERVER"] == variables["WOODPECKER_SERVER"] == "[fd00::5]:1"


def test_one_gateway_is_enough() -> None:
    """Without the peer gateway a container has Buildbot's variables alone, and the other way round; with none it says so."""
    assert "LATENT_SERVER" not in worker_with({"pb": "h:2"}).createEnvironment()
    assert "WORKERNAME" not in worker_with({"peer": "h:1"}).createEnvironment()
    with pytest.raises(LatentWorkerConfigurationError, match="no gateway listens for agents that speak pb"):
        worker_with({}).createEnvironment()


def test_loopback_is_told() -> None:
    """An address that means the container itself is worth a word."""
    (line,) = warnings({"LATENT_SERVER": "127.0.0.1:1", "BUILDMASTER": "localhost"})
    assert "set masterFQDN" in line
    assert warnings({"LATENT_SERVER": "10.0.0.1:1", "BUILDMASTER": "localhost"}) == []
    assert warnings({}) == []


def test_handles() -> None:
    """A handle comes back from JSON as it was, and holds no secret."""
    given = enrolment_of("w", 3)
    handle = Handle("unix:///x", given.controller_id, given.attempt, "abc", ("v",), {"image": "i"})
    assert Handle.from_json(handle.to_json()) == handle
    assert given.agent_token not in repr(handle.to_json())


def test_scope() -> None:
    """Workers with the same daemons share one listing."""
    assert worker_with({"peer": "h:1"}).list_scope() == f"Docker {HOST}"


def test_packages_are_all_named() -> None:
    """setup.cfg, which maps plugins/ in, names every package that there is."""
    root = Path(__file__).resolve().parents[2]
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg")
    named = set(parser["options"]["packages"].split())
    ours = {".".join(path.parent.relative_to(root).parts) for path in root.glob("latent/**/__init__.py")}
    theirs = {".".join(path.parent.relative_to(root / "plugins").parts) for path in root.glob("plugins/**/__init__.py")}
    assert named == ours | theirs
