"""What the cloud is told, and what it tells. All times are POSIX seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

CONTROL = "/-/"
"""What the paths of orders begin with; EC2 itself has the root alone."""

PASSWORD = "X-Latent-Password"  # noqa: S105  the name of a header

When = Literal["before", "after"]
"""Whether a call goes wrong before it has had its effect or after it."""


class CloudError(Exception):
    """The cloud could not be started or reached, or was told what it does not understand."""


@frozen
class Hypervisor:
    """How instances run: their user data as processes of this machine.

    ``environment``: what their processes get besides PATH, HOME, LANG, USER, PYTHONPATH where the cloud has one, and
    AWS_EC2_METADATA_SERVICE_ENDPOINT.
    ``path``: directories that come first in PATH; those of the running Python's programs and of the system follow.
    ``at_once``: how many are booted in a second, so that 100 agents do not start in one instant; 0 for no limit.
    """

    environment: Mapping[str, str] = field(factory=dict)
    path: tuple[str, ...] = ()
    at_once: float = 0


@frozen
class Call:
    """One call, as the client sent it. Retries are calls of their own; what `Cloud.duplicate` adds is not.

    ``action``: ``RunInstances``; those of other services have theirs in front: ``sts.GetCallerIdentity``.
    ``parameters``: as on the wire, without Action and Version: ``{"InstanceId.1": "i-..."}``.
    ``status``, ``error``: how it was answered; 0 while it is not, or when the connection was cut. ``error`` is AWS's code.
    """

    number: int
    at: float
    action: str
    parameters: Mapping[str, str]
    region: str
    status: int = 0
    error: str = ""

    def values(self, name: str) -> list[str]:
        """A list among the parameters: ``call.values("InstanceId")``, in order."""
        found: list[str] = []
        while (value := self.parameters.get(f"{name}.{len(found) + 1}")) is not None:
            found.append(value)
        return found


@frozen
class SeenInstance:
    """An instance as it is, whatever the API is made to answer.

    ``booted``: how often its user data was started. ``running``: whether it has processes.
    ``token``, ``index``: the ClientToken of its launch and its AmiLaunchIndex in it.
    """

    id: str
    state: str
    token: str
    index: int
    type: str
    zone: str
    region: str
    market: str
    launched_at: float
    tags: Mapping[str, str]
    booted: int
    running: bool

    @property
    def is_up(self) -> bool:
        """Whether it costs money."""
        return self.state in ("pending", "running", "stopping", "shutting-down")


def instance_of(document: Mapping[str, Any]) -> SeenInstance:
    return SeenInstance(**document)


def call_of(document: Mapping[str, Any]) -> Call:
    return Call(**document)
