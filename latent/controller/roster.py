"""Every worker that is declared, latent or plain, by name."""

from __future__ import annotations

from collections.abc import Iterator

from latent.controller.identity import token_hash
from latent.controller.lifecycle import Lifecycle
from latent.controller.plain import PlainWorker

Post = Lifecycle | PlainWorker
"""A declared worker and what the controller keeps of it."""


class Roster:
    def __init__(self) -> None:
        self._posts: dict[str, Post] = {}
        self._passwords: dict[str, str] = {}
        self._hashes: dict[str, str] = {}

    def add(self, post: Post) -> None:
        """Take it in or, with another password, anew: the one that it had is worth nothing from now on."""
        self._forget_password(post.name)
        self._posts[post.name] = post
        if isinstance(post, PlainWorker) and post.plugin.password:
            hashed = token_hash(post.plugin.password)
            self._passwords[hashed] = post.name
            self._hashes[post.name] = hashed

    def remove(self, name: str) -> None:
        self._posts.pop(name, None)
        self._forget_password(name)

    def _forget_password(self, name: str) -> None:
        hashed = self._hashes.pop(name, None)
        if hashed is not None and self._passwords.get(hashed) == name:
            del self._passwords[hashed]

    def get(self, name: str) -> Post | None:
        return self._posts.get(name)

    def by_password(self, hashed: str) -> str | None:
        """The plain worker with this password, given by its `token_hash`."""
        return self._passwords.get(hashed)

    def latent(self) -> list[Lifecycle]:
        return [post for post in self._posts.values() if isinstance(post, Lifecycle)]

    def __iter__(self) -> Iterator[Post]:
        return iter(list(self._posts.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._posts

    def __len__(self) -> int:
        return len(self._posts)
