"""What the tests of machines share: a machine as the controller has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from latent.plugins import machine as machines
from latent.worker import hooks
from latent.worker.machine import AbstractLatentMachine

MAC = "00:1b:21:3c:9d:0e"


def generic(tmp_path: Path, start: Any, stop: Any = None, **kwargs: Any) -> AbstractLatentMachine:
    """A machine as the controller has it. ``stop``: None: as the start."""
    made: AbstractLatentMachine = machines.GenericLatentMachine("m1", start, stop or start, **kwargs)
    made.reactor, made.state_dir = reactor, tmp_path / "state"
    return made


def start(machine: AbstractLatentMachine) -> Deferred[Any]:
    return hooks.call(machine.start_machine)


def stop(machine: AbstractLatentMachine) -> Deferred[Any]:
    return hooks.call(machine.stop_machine)
