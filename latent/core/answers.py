"""What the substantiation machine says again and again: whose fault a failure is, what builds without an instance are told."""

from __future__ import annotations

from latent.core.events import Action, BackOff, Condemn, Failure, Fault, Unready

SHUTTING_DOWN = "the controller is shutting down"
BUSY = "its instance is busy"
OUTDATED = "its declaration changed"


def infrastructure(message: str) -> Failure:
    return Failure(Fault.INFRASTRUCTURE, message, "LatentWorkerFailedToSubstantiate")


def nobody(message: str) -> Failure:
    return Failure(Fault.NOBODY, message, "LatentWorkerSubstantiationCancelled")


def blame(failure: Failure) -> tuple[Action, ...]:
    """The worker backs off if the failure is the infrastructure's."""
    return (BackOff(failure),) if failure.fault is Fault.INFRASTRUCTURE else ()


def unready(builds: tuple[str, ...], failure: Failure) -> tuple[Action, ...]:
    return (Unready(builds, failure),) if builds else ()


def failed(waiters: tuple[str, ...], build: str | None, failure: Failure) -> tuple[Action, ...]:
    """All that waited are told. Only ``build``, which the instance was made for, can be at fault itself."""
    if failure.fault is not Fault.BUILD:
        return unready(waiters, failure)
    mine = tuple(b for b in waiters if b == build)
    return (*unready(mine, failure), *unready(tuple(b for b in waiters if b != build), nobody(failure.message)))


def too_late(build: str) -> Action:
    return Unready((build,), nobody("its instance is no longer there"))


def late(attempt: int) -> Action:
    return Condemn(attempt, "start_instance answered after it had been given up")
