"""What is wrong with latent machines, in words for an operator."""

from __future__ import annotations

from collections.abc import Iterator

from latent.controller.health import HealthItem
from latent.controller.machine import MachineShell
from latent.controller.machines import Machines
from latent.core.machines import Starting, Stopped, Stopping


def machine_items(machines: Machines, now: float) -> list[HealthItem]:
    """One item for each machine at least; its subject is "machine NAME"."""
    return [item for shell in machines for item in _items(shell, now)]


def _items(shell: MachineShell, now: float) -> Iterator[HealthItem]:
    subject, state = f"machine {shell.name}", shell.state
    well = True
    if shell.unusable:
        well = False
        yield HealthItem(
            subject=subject,
            ok=False,
            message=f"it can't be started or stopped: {shell.unusable}",
            remedy="mend the cause, then run latent reconfig: it is set up again",
        )
    match state:
        case Stopped(error=error) if error and not shell.unusable:
            well = False
            when = "" if state.retry_deadline is None else f", again in {max(0.0, state.retry_deadline - now):.0f} s"
            yield HealthItem(
                subject=subject,
                ok=False,
                message=f"it may still be up: stop_machine failed {state.tries} times{when}: {error}",
                remedy="mend the cause, or stop it by hand; its stop is tried until it succeeds or the machine is wanted again",
            )
        case Starting(call=call) | Stopping(call=call) if call is not None and call.cancelled:
            well = False
            yield HealthItem(
                subject=subject,
                ok=False,
                message=f"its {call.hook.value}_machine took too long and was cancelled, but has not ended",
                remedy=f"it is given up in {max(0.0, call.deadline - now):.0f} s; look what the machine's plugin waits for",
            )
        case _:
            pass
    if well:
        yield HealthItem(subject=subject, ok=True, message=shell.state_name)
