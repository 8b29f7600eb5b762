"""What a session holds, for protocols whose agents report all their leases with each call."""

from __future__ import annotations

from latent.controller.dispatcher import Dispatcher
from latent.controller.live import LiveRun
from latent.controller.sessions import Session
from latent.model import Lease, LeaseState


def standing(dispatcher: Dispatcher, session: Session, run_id: int) -> LeaseState | None:
    """How the session's lease on a run stands. CANCELLED: it is to end. None: it has none, or has it no more."""
    run = dispatcher.get(run_id)
    if run is None or not _held(run, session):
        return None
    return LeaseState.CANCELLED if run.state.cancelled is not None else run.state.lease


def held(dispatcher: Dispatcher, session: Session) -> list[Lease]:
    """The leases that the session has been given and that are not over, oldest first."""
    runs = dispatcher.runs_of(session.worker)
    return [run.lease() for run in runs if _held(run, session) and run.taken]


def _held(run: LiveRun, session: Session) -> bool:
    return run.worker == session.worker and run.state.session == session.id
