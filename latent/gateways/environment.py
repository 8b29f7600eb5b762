"""What every step finds in its environment, whatever agent runs it."""

from __future__ import annotations

from latent.model import Lease


def environment_of(lease: Lease, attempt: int | None) -> dict[str, str]:
    """A stock Woodpecker agent stops with an error when CI_REPO and CI_PIPELINE_NUMBER have no place to be."""
    return {
        "CI": "latent",
        "CI_REPO": lease.builder,
        "CI_PIPELINE_NUMBER": str(lease.build_id),
        "CI_WORKFLOW_NAME": lease.builder,
        "CI_WORKFLOW_NUMBER": str(lease.run_id),
        "CI_SYSTEM_NAME": "latent",
        "LATENT_BUILD_ID": str(lease.build_id),
        "LATENT_RUN_ID": str(lease.run_id),
        "LATENT_WORKER": lease.worker,
        "LATENT_ATTEMPT": "" if attempt is None else str(attempt),
    }
