"""Whether any declared worker can ever serve a builder. One that none can would queue its builds for ever."""

from __future__ import annotations

from collections.abc import Mapping

from latent.config.builder import Builder
from latent.core.matching import why_not
from latent.model import Offer, Requirements
from latent.worker.base import AbstractLatentWorker, AbstractWorker
from latent.worker.words import did_you_mean


def cannot_serve(builder: Builder, workers: Mapping[str, AbstractWorker]) -> list[str]:
    """Why not, each message "what; remedy"; empty if some worker can."""
    subject = f"builder {builder.name!r}"
    strangers = [
        f"{subject}: workernames has {name!r}, which is no declared worker; {_near(name, workers)}"
        for name in sorted(builder.workernames or ())
        if name not in workers
    ]
    if strangers:
        return strangers
    requirements = Requirements(labels=builder.labels, workers=builder.workernames)
    reasons: dict[str, str] = {}
    for name in builder.workernames or workers:
        reason = why_not(requirements, name, _may_offer(workers[name], requirements))
        if not reason:
            return []
        reasons.setdefault(reason, name)
    told = ", ".join(f"{name}: {reason}" for reason, name in list(reasons.items())[:3])
    return [f"{subject}: no declared worker can serve it ({told}); correct its labels, or declare a worker that has them"]


def _may_offer(worker: AbstractWorker, requirements: Requirements) -> Offer:
    """What the worker offers. The agent of a plain worker may bring labels that its declaration does not have."""
    offer = worker.offer()
    if isinstance(worker, AbstractLatentWorker):
        return offer
    brought = {name: frozenset({value}) for name, value in requirements.labels.items() if name not in offer}
    return {**brought, **offer}


def _near(name: str, workers: Mapping[str, AbstractWorker]) -> str:
    said = did_you_mean(name, workers, "the workers")
    return said if len(said) <= 300 else said[:300] + "..."
