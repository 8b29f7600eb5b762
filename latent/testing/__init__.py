"""For those who test plugins, and for our own tests: a controller that is taken step by step, and workers to drive it with."""

from latent.testing.agent import InProcessAgent, Work, succeed_at_once
from latent.testing.harness import ControllerHarness, SteppedAgent, answer
from latent.testing.machine import ControllableLatentMachine, MachineCall, MachineControls
from latent.testing.worker import (
    BareLatentWorker,
    ControllableLatentWorker,
    Controls,
    HookCall,
    InProcessLatentWorker,
)

__all__ = [
    "BareLatentWorker",
    "ControllableLatentMachine",
    "ControllableLatentWorker",
    "ControllerHarness",
    "Controls",
    "HookCall",
    "InProcessAgent",
    "InProcessLatentWorker",
    "MachineCall",
    "MachineControls",
    "SteppedAgent",
    "Work",
    "answer",
    "succeed_at_once",
]
