"""Whether a worker can serve a build: what the build requires against what the worker or its session offers.

The rules are those of `specs/peer.md`: every label of the build must match, exactly or by ``*`` on the worker's side; a label
that the worker offers as ``!name`` must be required by the build; labels with empty values are ignored. A build without
labels runs anywhere.
"""

from __future__ import annotations

from latent.model import Labels, Offer, Requirements

ANY = "*"


def matches(requirements: Requirements, worker: str, offer: Offer) -> bool:
    return not why_not(requirements, worker, offer)


def why_not(requirements: Requirements, worker: str, offer: Offer) -> str:
    """The first requirement that is not met, in words; empty if all are."""
    if requirements.workers is not None and worker not in requirements.workers:
        return f"only {_names(requirements.workers)} may run it"
    return label_mismatch(requirements.labels, offer)


def label_mismatch(labels: Labels, offer: Offer) -> str:
    for name, value in labels.items():
        if not value:
            continue
        offered = offer.get(name) or offer.get(f"!{name}") or frozenset()
        if value not in offered and ANY not in offered:
            return f"label {name}={value} is not offered" + (f" (offered: {_names(offered)})" if offered else "")
    for name, values in offer.items():
        if name.startswith("!") and not values & {labels.get(name[1:], ""), ANY}:
            return f"the worker only takes builds that require {name[1:]}={_names(values)}"
        if name.startswith("!") and not labels.get(name[1:]):
            return f"the worker only takes builds that require {name[1:]}"
    return ""


def _names(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
