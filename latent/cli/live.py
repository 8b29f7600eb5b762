"""``latent checkconfig --live``: whether the providers would do what the configuration wants."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, gatherResults

from latent.cli import words
from latent.config.settings import Config
from latent.controller.asking import ask
from latent.controller.failures import explained
from latent.errors import ConfigError
from latent.worker import results
from latent.worker.base import AbstractLatentWorker
from latent.worker.declaration import Declaration

PATIENCE = 120.0
"""Seconds that one plugin has to ask its provider."""


@define
class _Group:
    """Workers that are declared alike but for their names; ``worker`` is asked for all."""

    worker: AbstractLatentWorker
    declared: Declaration
    names: list[str]


def ask_providers(config: Config, reactor: Any) -> str:
    """Run the reactor until all plugins have answered; what to say of it. ConfigError with every mistake.

    The plugins' workers are not usable afterwards, and neither is the reactor.
    """
    latent = [worker for worker in config.workers.values() if isinstance(worker, AbstractLatentWorker)]
    able = [worker for worker in latent if worker.supports("check_live")]
    if not able:
        return "; no worker's plugin can ask its provider"
    outcome: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="latent-live-") as directory:

        def begin() -> None:
            asked = Deferred.fromCoroutine(_ask_all(_groups(able), reactor, Path(directory)))
            asked.addBoth(outcome.append).addBoth(lambda _: reactor.stop())

        reactor.callWhenRunning(begin)
        reactor.run()
    (mistakes,) = outcome or [["nobody waited for the providers' answers"]]
    if not isinstance(mistakes, list):
        mistakes.raiseException()
    if mistakes:
        raise ConfigError(mistakes)
    silent = len(latent) - len(able)
    return f"; {words.count(len(able), 'worker')} asked for at the provider" + (f", {silent} can't be" if silent else "")


def _groups(workers: Iterable[AbstractLatentWorker]) -> list[_Group]:
    found: list[_Group] = []
    for worker in workers:
        args, kwargs = worker.arguments
        declared = Declaration(type(worker), args[1:], {key: value for key, value in kwargs.items() if key != "name"})
        group = next((one for one in found if one.declared == declared), None)
        if group is None:
            found.append(_Group(worker, declared, [worker.name]))
        else:
            group.names.append(worker.name)
    return found


async def _ask_all(groups: list[_Group], reactor: Any, state_dir: Path) -> list[str]:
    asking = [Deferred.fromCoroutine(_ask(group, reactor, state_dir)) for group in groups]
    return [mistake for mistakes in await gatherResults(asking) for mistake in mistakes]


async def _ask(group: _Group, reactor: Any, state_dir: Path) -> list[str]:
    worker = group.worker
    worker.reactor, worker.state_dir = reactor, state_dir
    args, kwargs = worker.arguments
    try:
        await ask(reactor, PATIENCE, worker.reconfigService, *args, **kwargs)
        found = results.live_result(worker, await ask(reactor, PATIENCE, worker.check_live))
    except Exception as error:
        found = (explained(error),)
    more = len(group.names) - 1
    who = f"worker {worker.name}" + (f" and {words.count(more, 'other')} like it" if more else "")
    return [f"{who}: {mistake}" for mistake in found]
