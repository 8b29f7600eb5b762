"""What is persisted to find an attempt's instance again, or to repeat the launch that it was to come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from latent.errors import PluginError
from latent.model import JSON, Attempt
from latent_ec2.choices import Choice
from latent_ec2.instances import attempt_of


@frozen(kw_only=True)
class Handle:
    """``document``: the launch's (`latent_ec2.launches`), None for what was only found by its tags or had been stopped.

    ``complete``: whether its start has done all that there is to do. ``woken``: it was a stopped instance, now started again.
    ``address``: whether it has an address of its own. ``volumes``, ``addresses``: the ids of what was left by its instance.
    """

    region: str | None
    instance: str | None = None
    controller: str = ""
    attempt: str = ""
    document: JSON = None
    made_from: str = ""
    choice: Choice | None = None
    complete: bool = False
    woken: bool = False
    address: bool = False
    volumes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    endpoint: str | None = None

    def to_json(self) -> JSON:
        doc: dict[str, Any] = {"region": self.region, "instance": self.instance}
        choice = self.choice
        more = {
            "endpoint": self.endpoint,
            "controller": self.controller,
            "attempt": self.attempt,
            "document": self.document,
            "made_from": self.made_from,
            "choice": None if choice is None else [choice.type, choice.subnet, choice.zone, choice.market],
            "complete": self.complete,
            "woken": self.woken,
            "address": self.address,
            "volumes": list(self.volumes),
            "addresses": list(self.addresses),
        }
        return {**doc, **{key: value for key, value in more.items() if value}}

    @classmethod
    def from_json(cls, doc: JSON) -> Handle:
        """PluginError for what is no handle of an EC2 worker."""
        if not isinstance(doc, Mapping) or not {"region", "instance"} <= set(doc):
            raise PluginError(f"{doc!r} is no handle of an EC2LatentWorker; look for latent's tags in the EC2 console")
        try:
            choice = doc.get("choice")
            return cls(
                region=doc["region"],
                instance=doc["instance"],
                controller=str(doc.get("controller", "")),
                attempt=str(doc.get("attempt", "")),
                document=doc.get("document"),
                made_from=str(doc.get("made_from", "")),
                choice=None if choice is None else Choice(*choice),
                complete=bool(doc.get("complete")),
                woken=bool(doc.get("woken")),
                address=bool(doc.get("address")),
                volumes=tuple(doc.get("volumes", ())),
                addresses=tuple(doc.get("addresses", ())),
                endpoint=doc.get("endpoint"),
            )
        except (TypeError, ValueError) as error:
            raise PluginError(f"{doc!r} is no handle of an EC2LatentWorker ({error}); look for latent's tags") from error

    @property
    def owner(self) -> tuple[str, Attempt] | None:
        """(controller id, attempt); None where the handle does not say."""
        attempt = attempt_of(self.attempt)
        return None if attempt is None or not self.controller else (self.controller, attempt)
