"""Containers that nobody expects, on a real daemon: how they are seen, protected, expire, and end without a controller."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from latent_docker import containers
from tests.docker.engine import AGENT, Engine
from tests.docker.test_site import MakeSite, site
from tests.e2e.test_leaks import id_of, leaks

__all__ = ["site"]  # the fixture


@ensureDeferred
async def test_how_a_container_is_seen(engine: Engine, made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name; protected when it is renamed so; with a time to expire when it has ended, and none while it runs."""
    client = engine.client()
    worker = made(command=["sh", "-c", "trap 'exit 4' USR1; while :; do sleep 0.05; done"])
    await worker.start_instance(None)
    (name,) = engine.names()
    (seen,) = await worker.list_instances()
    assert (seen.protected, seen.expires_at, seen.title) == (False, None, f"container {name} at {engine.url}")
    assert abs(seen.created_at - time.time()) < 600
    client.rename(name, "latent-protect-me")
    (seen,) = await worker.list_instances()
    assert seen.protected
    assert "latent-protect-me" in seen.title
    client.kill("latent-protect-me", "USR1")
    client.wait("latent-protect-me")
    (seen,) = await worker.list_instances()
    ended = datetime.fromisoformat(client.inspect_container("latent-protect-me")["State"]["FinishedAt"])
    assert seen.expires_at == pytest.approx(ended.timestamp() + containers.ENDED_EXPIRY)
    await worker.stop_instance()
    assert engine.names() == []


@ensureDeferred
async def test_a_label_protects_for_good(engine: Engine, made: Callable[..., Any]) -> None:
    """It can be set when a container is made, and never changes."""
    worker = made(hostconfig={})
    await worker.start_instance(None)
    host = engine.client()
    labels = {**worker._identity().labels, "latent.attempt": "9", "latent.protect": ""}
    other = host.create_container(host.inspect_container(engine.names()[0])["Config"]["Image"], ["true"], labels=labels)
    seen = {one.attempt.number: one.protected for one in await worker.list_instances()}
    assert seen == {1: False, 9: True}
    host.remove_container(other["Id"])
    await worker.stop_instance()


def test_gone_for_good(engine: Engine, site: MakeSite, tmp_path: Path) -> None:
    """The controller is killed and never comes back: its containers end by themselves, and go when somebody says so."""
    more = "c['reaper'] = {'interval': None, 'min_age': 0.5}"
    one = site(engine, count=2, build_wait_timeout=600, command=[*AGENT, "--orphan-timeout", "2"], more=more)
    one.latent("start")
    for worker in ("docker-1", "docker-2"):
        one.submit("true", labels={"worker": worker})
    one.wait_for_all()
    ours = id_of(one)
    one.kill_controller()
    client = engine.client()
    one.wait("the end of both", lambda: not client.containers())
    assert len(engine.names()) == 2
    assert leaks(one, ours=ours) == {"docker-1#1": "expected", "docker-2#1": "expected"}
    shutil.rmtree(tmp_path / "state")
    assert leaks(one, ours=ours) == {"docker-1#1": "foreign", "docker-2#1": "foreign"}
    gone = leaks(one, "--reap", "--controller", ours[:12], ours=ours)
    assert gone == {"docker-1#1": "gone", "docker-2#1": "gone"}
    assert engine.names() == []
