"""Whether workers and machines fit together: ``machine_name`` against ``c["machines"]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from latent.worker.base import AbstractLatentWorker, AbstractWorker
from latent.worker.machine import AbstractLatentMachine, Machine
from latent.worker.words import did_you_mean


def misplaced(workers: Mapping[str, AbstractWorker], machines: Mapping[str, Machine]) -> Iterator[tuple[str, str]]:
    """(worker, "what; remedy") for each worker on a machine that is not declared, or not for it."""
    for name, worker in workers.items():
        if worker.machine_name is None:
            continue
        machine = machines.get(worker.machine_name)
        if machine is None:
            what = f"worker {name!r}: machine_name is {worker.machine_name!r}, which is no machine of c['machines']"
            if machines:
                yield name, f"{what}; {did_you_mean(worker.machine_name, machines, 'the machines')}"
            else:
                yield name, f"{what}; write c['machines'] = [machine.GenericLatentMachine({worker.machine_name!r}, ...)]"
        elif isinstance(machine, AbstractLatentMachine) and not isinstance(worker, AbstractLatentWorker):
            what = f"worker {name!r} is a plain worker, and {machine.name!r} is started for latent workers only"
            yield name, f"{what}; declare it as a latent worker, or the machine as one that is always up: machine.Machine(...)"


def unused(workers: Mapping[str, AbstractWorker], machines: Mapping[str, Machine]) -> Iterator[tuple[str, str]]:
    """(machine, "what; remedy") for each machine that no worker is on."""
    used = {worker.machine_name for worker in workers.values()}
    for name in machines:
        if name not in used:
            yield name, f"machine {name!r} is used by no worker; give one machine_name={name!r}, or take the machine out"
