"""The example of docs/plugins.md works as it is printed."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from latent.errors import ConfigError, LatentWorkerCannotSubstantiate, LatentWorkerCapacityError
from latent.model import Attempt
from latent.worker import Properties, Property, WorkerBuild, hooks, results
from tests.worker.kit import enrolment

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


@define
class Machine:
    id: str
    tags: dict[str, str]
    created: float = 3.0


@pytest.fixture
def metal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The SDK of the example's provider."""
    sdk: Any = types.ModuleType("metal")
    sdk.rented = {}
    sdk.Error = type("Error", (Exception,), {})
    sdk.UnknownSize = type("UnknownSize", (sdk.Error,), {})
    sdk.SoldOut = type("SoldOut", (sdk.Error,), {})

    def rent(account: str, size: str, tags: dict[str, str], environment: dict[str, str], once: str) -> str:
        if size not in sdk.sizes():
            raise {"huge": sdk.SoldOut}.get(size, sdk.UnknownSize)(size)
        assert environment["LATENT_TOKEN"]
        sdk.rented.setdefault(once, Machine(f"m-{once}", tags))
        return f"m-{once}"

    def give_back(account: str, machine: str) -> None:
        sdk.rented = {once: one for once, one in sdk.rented.items() if one.id != machine}

    sdk.rent, sdk.give_back = rent, give_back
    sdk.sizes = lambda: ["small", "large"]
    sdk.wait_until_gone = lambda account, machine: None
    sdk.machines = lambda account: [*sdk.rented.values(), Machine("foreign", {})]
    sdk.state = lambda account, machine: "up" if any(one.id == machine for one in sdk.rented.values()) else "unknown"
    monkeypatch.setitem(sys.modules, "metal", sdk)
    return sdk


@pytest.fixture
def plugin(metal: Any) -> Any:
    code = re.search(r"```python\n(import metal\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    namespace: dict[str, Any] = {"__name__": "latent_metal"}
    exec(code[1], namespace)
    return namespace["MetalLatentWorker"]


def made(plugin: Any, number: int = 1) -> Any:
    worker = plugin("w1", account="ci", size=Property("size", default="small"))
    worker.reactor = reactor
    worker.enrolment = enrolment("w1", number)
    args, kwargs = worker.arguments
    worker.reconfigService(*args, **kwargs)
    return worker


def build(size: str) -> WorkerBuild:
    return WorkerBuild(1, "b", Properties({"size": size}))


@ensureDeferred
async def test_life(plugin: Any, metal: Any) -> None:
    """Its hooks keep their promises, one after the other."""
    worker = made(plugin)
    assert results.start_result(worker, await hooks.call(worker.start_instance, build("large"))) == ("m-w1-1", "large")
    assert results.check_result(worker, await hooks.call(worker.check_instance))[0]
    handle = results.handle(worker, await hooks.call(worker.instance_handle))
    (listed,) = results.listed(worker, await hooks.call(worker.list_instances))
    assert (listed.attempt, listed.handle) == (Attempt("w1", 1), handle)
    later = made(plugin)
    assert results.resume_result(later, await hooks.call(later.resume_instance, handle)) is True
    await hooks.call(later.stop_instance)
    assert metal.rented == {}
    await hooks.call(later.destroy_instance, handle)
    await hooks.call(later.stop_instance)


@ensureDeferred
async def test_errors(plugin: Any) -> None:
    """Its errors say whose fault it is."""
    with pytest.raises(LatentWorkerCannotSubstantiate, match="there is no size 'tiny'"):
        await hooks.call(made(plugin).start_instance, build("tiny"))
    with pytest.raises(LatentWorkerCapacityError):
        await hooks.call(made(plugin).start_instance, build("huge"))
    with pytest.raises(ConfigError, match="no account"):
        plugin("w1")
