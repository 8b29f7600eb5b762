"""What the cloud has, and what each of its instances was at any time: for callers to whom an old truth is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from attrs import define, evolve, field

from latent.testing.cloud.values import ATTEMPT, GONE, PENDING, WORKER, CloudError, Instance


@define
class Account:
    """All times are POSIX seconds. ``seed``: instances of other seeds have other ids.

    ``ignores_tokens``: whether each create makes an instance, also one that is repeated.
    """

    seed: int
    ignores_tokens: bool = False
    _told: dict[str, list[tuple[float, Instance]]] = field(factory=dict)
    _made: dict[str, list[str]] = field(factory=dict)

    def __iter__(self) -> Iterator[Instance]:
        return iter([story[-1][1] for story in self._told.values()])

    def made(self, token: str) -> Instance | None:
        """What an earlier create with the token made."""
        if self.ignores_tokens or not self._made.get(token):
            return None
        return self.get(self._made[token][0])

    def create(
        self, now: float, token: str, tags: Mapping[str, str], image: str, environment: Mapping[str, str], foreign: bool = False
    ) -> Instance:
        instance = Instance(
            id=self._id(token, tags),
            state=PENDING,
            tags=dict(tags),
            image=image,
            created_at=now,
            environment=dict(environment),
            foreign=foreign,
        )
        self._made.setdefault(token, []).append(instance.id)
        self._told[instance.id] = [(now, instance)]
        return instance

    def _id(self, token: str, tags: Mapping[str, str]) -> str:
        """The same when a test is run again: by the attempt, as tokens and controllers have other names each time."""
        whose = f"{tags[WORKER]}#{tags.get(ATTEMPT)}" if WORKER in tags else token
        for number in count(1):
            digest = hashlib.sha256(f"{self.seed}/{whose}/{number}".encode()).hexdigest()
            if (instance_id := f"i-{digest[:12]}") not in self._told:
                break
        return instance_id

    def get(self, instance_id: str) -> Instance:
        """As it is now. CloudError (unknown) if there never was one."""
        story = self._told.get(instance_id)
        if story is None:
            raise CloudError("unknown", f"there is no instance {instance_id}")
        return story[-1][1]

    def as_of(self, instance_id: str, at: float) -> Instance:
        """As it was at a time; the same error for one that was not there yet."""
        for since, instance in reversed(self._told.get(instance_id, [])):
            if since <= at:
                return instance
        raise CloudError("unknown", f"there is no instance {instance_id}")

    def existing(self, at: float) -> list[Instance]:
        """All that were there at a time, oldest first."""
        found = []
        for story in self._told.values():
            states = [instance for since, instance in story if since <= at]
            if states and states[-1].exists:
                found.append(states[-1])
        return found

    def change(self, now: float, instance_id: str, **changes: Any) -> Instance:
        """What is gone does not change any more."""
        instance = self.get(instance_id)
        if instance.state == GONE:
            return instance
        instance = evolve(instance, **changes)
        self._told[instance_id].append((now, instance))
        return instance
