"""What the controller knows of the workers whose agents come here."""

from __future__ import annotations

from latent.controller.identity import Identity
from latent.controller.lifecycle import Lifecycle
from latent.controller.roster import Roster


class RosterWorkers:
    """`latent.gateways.buildbot.ports.Workers`. PB proves a password without telling it, so it has to be known here in full."""

    def __init__(self, roster: Roster, identity: Identity) -> None:
        self._roster = roster
        self._identity = identity

    def password(self, name: str) -> str | None:
        post = self._roster.get(name)
        if isinstance(post, Lifecycle):
            return self._identity.agent_token(post.attempt) if post.attempt.number else None
        return None if post is None else post.plugin.password

    def capacity(self, name: str) -> int:
        post = self._roster.get(name)
        return 1 if post is None else post.plugin.max_builds
