"""Whether a worker can serve a build: what the build requires against what the worker or its session offers.

The rules are those of `specs/peer.md`: every label of the build must match, exactly or by ``*`` on the worker's side; a label
that the worker offers as ``!name`` must be required by the build; labels with empty values are ignored. A build without
labels runs anywhere.

Bots take payloads and nothing else, all other agents take steps. A worker whose agent is a bot offers ``agent=bot``.
"""

from __future__ import annotations

from latent.model import Labels, Offer, Requirements

ANY = "*"

AGENT, BOT = "agent", "bot"
"""The label by which a worker says that its agent is a bot."""

ONLY_BOTS, ONLY_PAYLOADS = "only bots take payloads", "bots take payloads only, no steps"
"""What is wrong with a worker whose agent is of the other kind."""

INSTANCE = "instance"
"""The label by which a bot's worker says which instance it is of: builds of another, or of none, don't go there."""


def matches(requirements: Requirements, worker: str, offer: Offer, *, payload: bool = False) -> bool:
    return not why_not(requirements, worker, offer, payload=payload)


def why_not(requirements: Requirements, worker: str, offer: Offer, *, payload: bool = False) -> str:
    """The first requirement that is not met, in words; empty if all are. ``payload``: the build is one, and has no steps."""
    if requirements.workers is not None and worker not in requirements.workers:
        return f"only {_names(requirements.workers)} may run it"
    return label_mismatch(requirements.labels, offer, payload=payload)


def is_bot(offer: Offer) -> bool:
    return BOT in offer.get(AGENT, ())


def with_agent(offer: Offer, *, bot: bool) -> Offer:
    """What a worker offers once it is known whether its agent is a bot, whatever it says of that itself."""
    others = {name: values for name, values in offer.items() if name != AGENT}
    if bot:
        own = others.pop(INSTANCE, None)
        return {**others, AGENT: frozenset({BOT}), **({f"!{INSTANCE}": own} if own else {})}
    rest = offer.get(AGENT, frozenset()) - {BOT}
    return {**others, AGENT: rest} if rest else others


def label_mismatch(labels: Labels, offer: Offer, *, payload: bool = False) -> str:
    if payload != is_bot(offer):
        return ONLY_BOTS if payload else ONLY_PAYLOADS
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


def score(labels: Labels, offer: Offer) -> int:
    """How well an offer that does not mismatch fits: an exact match of a label counts ten times as much as a ``*``."""
    fit = 0
    for name, value in labels.items():
        if value:
            fit += 10 if value in (offer.get(name) or offer.get(f"!{name}") or ()) else 1
    return fit


def _names(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
