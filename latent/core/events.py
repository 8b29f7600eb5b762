"""What can happen to a worker (events) and what is to be done about it (actions). All are plain values."""

from __future__ import annotations

import enum

from attrs import frozen

from latent.core.states import Policy, Timer


class Fault(enum.Enum):
    """Whose fault a failed substantiation is, and so what happens to the build that waited for it."""

    INFRASTRUCTURE = "infrastructure"
    """The build is retried and the worker backs off."""
    BUILD = "build"
    """The build ends as an exception; the worker is not blamed."""
    NOBODY = "nobody"
    """The build is retried at once; the worker is not blamed."""


@frozen
class Failure:
    """Why waiting builds did not get their instance. ``kind``: the error's class name, for those who count."""

    fault: Fault
    message: str
    kind: str = ""


# --- events -------------------------------------------------------------------------------------------------------------------


@frozen
class Substantiate:
    """An instance is wanted, for ``build`` or (None) to be warm. ``replace``: an idle instance that won't do goes first."""

    build: str | None = None
    replace: bool = False


@frozen
class GiveUp:
    """Nobody wants ``build`` to have an instance any more."""

    build: str


@frozen
class MachineStarted:
    attempt: int


@frozen
class MachineFailed:
    attempt: int
    failure: Failure


@frozen
class Started:
    """start_instance succeeded."""

    attempt: int


@frozen
class StartFailed:
    """start_instance failed; the cloud may have made the instance all the same."""

    attempt: int
    failure: Failure


@frozen
class Attached:
    """An agent with the identity of ``attempt`` asks to attach as ``session``."""

    attempt: int
    session: str


@frozen
class Detached:
    """The session is gone: closed, cut or silent for too long."""

    session: str


@frozen
class Checked:
    """check_instance answered, raised, or did not answer in time."""

    attempt: int
    good: bool
    message: str = ""


@frozen
class BuildStarted:
    """A warm instance is given ``build``."""

    build: str


@frozen
class BuildFinished:
    """``build`` is no longer on this instance, however it ended."""

    build: str


@frozen
class Insubstantiate:
    """The instance is to go now: an operator's wish."""

    reason: str
    fast: bool = False


@frozen
class Stopped:
    """stop_instance succeeded."""

    attempt: int


@frozen
class StopFailed:
    attempt: int
    message: str


@frozen
class TimedOut:
    """A deadline of the state has passed."""

    timer: Timer


@frozen
class Reconfigured:
    """The declaration changed. ``outdated``: an instance made from the old one must not outlive its builds."""

    policy: Policy
    outdated: bool = False


@frozen
class Shutdown:
    """The controller stops. ``fast`` reaches stop_instance."""

    fast: bool = False


@frozen
class Recovered:
    """The controller was restarted. ``found``: whether the instance is there; None if the plugin can't tell."""

    found: bool | None


Event = (
    Substantiate
    | GiveUp
    | MachineStarted
    | MachineFailed
    | Started
    | StartFailed
    | Attached
    | Detached
    | Checked
    | BuildStarted
    | BuildFinished
    | Insubstantiate
    | Stopped
    | StopFailed
    | TimedOut
    | Reconfigured
    | Shutdown
    | Recovered
)


# --- actions ------------------------------------------------------------------------------------------------------------------


@frozen
class StartMachine:
    attempt: int


@frozen
class StartInstance:
    """Call start_instance. ``again``: after a crash, with the idempotency token of the call that was cut short."""

    attempt: int
    build: str | None
    again: bool = False


@frozen
class StopInstance:
    attempt: int
    fast: bool


@frozen
class CancelCall:
    """Cancel the running start_instance or stop_instance."""

    attempt: int
    hook: Timer


@frozen
class CheckInstance:
    attempt: int


@frozen
class Accept:
    session: str


@frozen
class Refuse:
    session: str
    reason: str


@frozen
class DropSession:
    session: str
    reason: str


@frozen
class Ready:
    """The builds have their instance: they can be leased to its session."""

    builds: tuple[str, ...]


@frozen
class Unready:
    """The builds do not get this instance."""

    builds: tuple[str, ...]
    failure: Failure


@frozen
class Interrupt:
    """The builds ran on an instance that is going."""

    builds: tuple[str, ...]
    reason: str


@frozen
class BackOff:
    """The infrastructure failed: use other workers for a while."""

    failure: Failure


@frozen
class Condemn:
    """What the attempt made may still be there: the reaper destroys it until the provider confirms that it is gone."""

    attempt: int
    reason: str


@frozen
class NotifyMissing:
    attempt: int


Action = (
    StartMachine
    | StartInstance
    | StopInstance
    | CancelCall
    | CheckInstance
    | Accept
    | Refuse
    | DropSession
    | Ready
    | Unready
    | Interrupt
    | BackOff
    | Condemn
    | NotifyMissing
)
