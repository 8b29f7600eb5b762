"""How what we make at a daemon is named and labelled, so that it is found again and nothing else is taken for ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from latent.errors import PluginError
from latent.model import JSON, Attempt
from latent.worker import Enrolment

CONTROLLER = "latent.controller"
WORKER = "latent.worker"
ATTEMPT = "latent.attempt"
PROTECT = "latent.protect"
PROTECTED_NAME = "latent-protect"
"""A label, which a container has for good, and the beginning of a name, which it can be given at any time with `docker rename`:
one that has either is left alone by the reaper."""

IMAGES = "latent-image"
"""The repository of images that are built from a Dockerfile to which no name was given."""

TOKEN_LENGTH = 16
"""Hexadecimal digits of the idempotency token in a name: the token is a hash of controller, worker and attempt."""

MOST_NAMES = 5
"""How many names are tried when somebody else's container has the first."""


@frozen
class Identity:
    """Whose a container or network is, in the daemon's own terms."""

    controller_id: str
    attempt: Attempt
    token: str

    @classmethod
    def of(cls, enrolment: Enrolment) -> Identity:
        return cls(enrolment.controller_id, enrolment.attempt, enrolment.idempotency_token)

    @property
    def key(self) -> str:
        return f"{self.controller_id}/{self.attempt}"

    @property
    def labels(self) -> dict[str, str]:
        return {CONTROLLER: self.controller_id, WORKER: self.attempt.worker, ATTEMPT: str(self.attempt.number)}

    @property
    def names(self) -> list[str]:
        """The container's name, then those for the case that it is taken. The same attempt has the same names always."""
        name = f"latent-{self.attempt.worker}-{self.attempt.number}-{self.token[:TOKEN_LENGTH]}"
        return [name, *(f"{name}-{n}" for n in range(2, MOST_NAMES + 1))]

    def owns(self, labels: Mapping[str, str] | None) -> bool:
        """Whether something with these labels was made for this attempt."""
        given = labels or {}
        return all(given.get(label) == value for label, value in self.labels.items())


def filters(labels: Mapping[str, str]) -> dict[str, Any]:
    """For the daemon's lists: everything that has all of these labels, with exactly these values."""
    return {"label": [f"{label}={value}" for label, value in labels.items()]}


def whose(labels: Mapping[str, str] | None) -> tuple[str, Attempt] | None:
    """(controller id, attempt) of something's labels; None if it is not ours."""
    given = labels or {}
    controller_id, worker, number = given.get(CONTROLLER), given.get(WORKER), given.get(ATTEMPT, "")
    if not controller_id or not worker or not (number.isascii() and number.isdigit()):
        return None
    return controller_id, Attempt(worker, int(number))


@frozen
class Handle:
    """What is persisted to find an instance again.

    ``host``: the daemon's URL. ``container``: its id, empty if nobody knows it. ``volumes``: the names of its anonymous volumes.
    ``made_from``: what of the declaration and the build it was made from (`latent_docker.recipe.Recipe.to_json`).
    """

    host: str
    controller_id: str
    attempt: Attempt
    container: str = ""
    volumes: tuple[str, ...] = ()
    made_from: JSON = None

    @property
    def labels(self) -> dict[str, str]:
        return Identity(self.controller_id, self.attempt, "").labels

    def to_json(self) -> JSON:
        return {
            "host": self.host,
            "controller": self.controller_id,
            "worker": self.attempt.worker,
            "attempt": self.attempt.number,
            "container": self.container,
            "volumes": list(self.volumes),
            "made_from": self.made_from,
        }

    @classmethod
    def from_json(cls, doc: JSON) -> Handle:
        """PluginError for what is no handle of a Docker worker."""
        try:
            return cls(
                host=str(doc["host"]),
                controller_id=str(doc["controller"]),
                attempt=Attempt(str(doc["worker"]), int(doc["attempt"])),
                container=str(doc.get("container", "")),
                volumes=tuple(str(name) for name in doc.get("volumes", ())),
                made_from=doc.get("made_from"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PluginError(
                f"{doc!r} is no handle of a DockerLatentWorker ({error!r}); look for its container with docker ps -a"
            ) from error
