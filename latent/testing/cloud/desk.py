"""The orders of a test (`latent.testing.cloud.orders`), carried out: arguments and answers are what JSON can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from latent.testing.cloud.provider import Provider
from latent.testing.cloud.script import Doom, Fault
from latent.testing.cloud.values import ATTEMPT, CONTROLLER, EXITED, GONE, RUNNING, WORKER, CloudError, Instance


def carry_out(cloud: Provider, what: str, arguments: Mapping[str, Any]) -> Any:
    """CloudError (invalid) for an order that there is not, ValueError for arguments that can't be."""
    order = _ORDERS.get(what)
    if order is None:
        raise CloudError("invalid", f"there is no order {what!r}; the cloud takes {', '.join(sorted(_ORDERS))}")
    return order(cloud, **arguments)


def _fault(cloud: Provider, **fault: Any) -> None:
    cloud.script.add(Fault(**fault))


def _heal(cloud: Provider) -> None:
    cloud.script.heal()
    cloud.looks_back = (0.0, False, frozenset())
    cloud.rate = None
    cloud.most = dict.fromkeys(cloud.most)
    cloud.account.ignores_tokens = False
    cloud.bad_boots = (0, "")
    cloud.note("heal", "")
    cloud.release()


def _lag(cloud: Provider, seconds: float, ragged: bool, calls: list[str]) -> None:
    wrong = set(calls) - {"list", "describe"}
    if wrong or seconds < 0:
        raise ValueError(f"lag({seconds!r}, calls={calls!r}): only list and describe can lag, by 0 seconds or more")
    cloud.looks_back = (seconds, ragged, frozenset(calls))


def _throttle(cloud: Provider, calls: int | None, seconds: float) -> None:
    cloud.rate = None if calls is None else (calls, seconds)


def _capacity(cloud: Provider, most: int | None) -> None:
    cloud.most["capacity"] = most


def _quota(cloud: Provider, most: int | None) -> None:
    cloud.most["quota"] = most


def _ignore_tokens(cloud: Provider, ignores: bool) -> None:
    cloud.account.ignores_tokens = ignores


def _timing(cloud: Provider, latency: float | None, boot: float | None, ending: float | None) -> None:
    cloud.latency = cloud.latency if latency is None else latency
    cloud.boot = cloud.boot if boot is None else boot
    cloud.ending = cloud.ending if ending is None else ending


def _boot_fails(cloud: Provider, times: int | None, message: str) -> None:
    cloud.bad_boots = (times, message)


def _vanish(cloud: Provider, instance_id: str) -> None:
    instance = cloud.account.get(instance_id)
    cloud.note("vanish", str(instance.attempt or instance_id))
    cloud.gone(instance_id)


def _exit(cloud: Provider, instance_id: str, message: str) -> None:
    cloud.account.get(instance_id)
    cloud.exited(instance_id, message)


def _freeze(cloud: Provider, instance_id: str) -> None:
    cloud.freeze_instance(instance_id, True)


def _thaw(cloud: Provider, instance_id: str) -> None:
    cloud.freeze_instance(instance_id, False)


def _doom(cloud: Provider, **doom: Any) -> None:
    cloud.script.add_doom(Doom(**doom))


def _plant(
    cloud: Provider,
    tags: Mapping[str, str],
    foreign: bool,
    age: float,
    controller_id: str = "",
    worker: str = "",
    attempt: int = 0,
) -> Any:
    ours = {CONTROLLER: controller_id, WORKER: worker, ATTEMPT: str(attempt)} if controller_id else {}
    at = cloud.clock.seconds() - age
    instance = cloud.account.create(at, f"planted {len(cloud.entries)}", {**ours, **tags}, "empty", {}, foreign)
    cloud.account.change(at, instance.id, state=RUNNING)
    cloud.note("plant", str(instance.attempt or instance.id), instance.id)
    return cloud.account.get(instance.id).to_json()


def _instances(cloud: Provider, states: list[str]) -> Any:
    return [one.to_json() for one in cloud.account if (one.state in states if states else one.exists)]


def _instance(cloud: Provider, instance_id: str) -> Any:
    return cloud.account.get(instance_id).to_json()


def _log(cloud: Provider) -> Any:
    return cloud.entry_documents()


def _calls(cloud: Provider) -> Any:
    return dict(cloud.counted)


def _ledger(cloud: Provider) -> Any:
    made = [one for one in cloud.account if not one.foreign]
    vanished = sum(entry.what == "vanish" for entry in cloud.entries)
    return {
        "created": len(made),
        "destroyed": sum(one.state == GONE for one in made) - vanished,
        "vanished": vanished,
        "exited": sum(one.state == EXITED for one in made),
        "left": sum(one.exists for one in made),
        "foreign": sum(one.foreign for one in cloud.account),
    }


def _leaks(cloud: Provider) -> Any:
    left = [one for one in cloud.account if one.exists and not one.foreign and not one.protected]
    return [{"instance": one.to_json(), "history": _history(cloud, one)} for one in left]


def _history(cloud: Provider, instance: Instance) -> list[str]:
    subjects = {instance.id, str(instance.attempt)}
    return [str(entry) for entry in cloud.entries if entry.subject in subjects]


def _complaints(cloud: Provider) -> Any:
    return [*cloud.touched, *cloud.doubled]


_ORDERS: Mapping[str, Callable[..., Any]] = {
    "fault": _fault,
    "heal": _heal,
    "lag": _lag,
    "throttle": _throttle,
    "capacity": _capacity,
    "quota": _quota,
    "ignore_tokens": _ignore_tokens,
    "timing": _timing,
    "boot_fails": _boot_fails,
    "vanish": _vanish,
    "exit": _exit,
    "freeze": _freeze,
    "thaw": _thaw,
    "doom": _doom,
    "plant": _plant,
    "instances": _instances,
    "instance": _instance,
    "log": _log,
    "calls": _calls,
    "ledger": _ledger,
    "leaks": _leaks,
    "complaints": _complaints,
}
