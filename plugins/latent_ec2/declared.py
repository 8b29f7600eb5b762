"""What an EC2 worker was declared as, and what it shares with others: all that its attempts and its live check need of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from latent.errors import LatentError, LatentWorkerCannotSubstantiate, LatentWorkerConfigurationError, PluginError
from latent.worker import AbstractLatentWorker
from latent.worker.properties import holds_renderable
from latent_ec2 import credentials, enrolment, parking
from latent_ec2 import options as checks
from latent_ec2.account import Account
from latent_ec2.blame import options_of
from latent_ec2.choices import Choice
from latent_ec2.handle import Handle
from latent_ec2.launches import EXPIRY
from latent_ec2.recipe import RENDERED, Recipe
from latent_ec2.region import Region
from latent_ec2.shelf import Shelf
from latent_ec2.userdata import UserData

KEEP_STOPPED = 86_400.0
SPOT_TIMEOUT = 300.0
"""Seconds: how long a stopped instance waits, and how long one of the spot market may take."""


class DeclaredWorker(AbstractLatentWorker):
    """Its hooks are `latent_ec2.worker.EC2LatentWorker`'s."""

    _garage: parking.Garage | None = None

    def declared(self, given: Mapping[str, Any]) -> None:
        """``given``: every option, by name, checked."""
        self.account: Account = credentials.account(**{option: given[option] for option in credentials.OPTIONS})
        self.options: dict[str, Any] = {option: given[option] for option in RENDERED}
        self.spot_fallback = bool(given["spot_fallback"])
        self.spot_timeout = SPOT_TIMEOUT if given["spot_timeout"] is None else float(given["spot_timeout"])
        self.stop_mode: checks.StopMode = given["stop_mode"]
        self.keep_stopped = KEEP_STOPPED if given["keep_stopped"] is None else float(given["keep_stopped"])
        self.expiry = EXPIRY if given["expiry"] is None else float(given["expiry"])
        self.metadata_options = checks.metadata_options(given["metadata_options"])
        self.enrolment_as = given["enrolment"]
        self.agent_command = enrolment.command_line(given["agent_command"])
        self.masterFQDN, self.master_protocol = given["masterFQDN"], given["master_protocol"]
        self._kept_region: Region | None = None

    @property
    def region(self) -> Region:
        """Kept by the worker: one that nobody keeps goes."""
        if self._kept_region is None:
            if self.reactor is None:
                raise PluginError(f"worker {self.name} has no reactor; whoever calls its hooks sets worker.reactor first")
            self._kept_region = Region.of(self.account, self.reactor)
            self._kept_shelf = Shelf.of(self._kept_region, self.reactor)
        return self._kept_region

    @property
    def shelf(self) -> Shelf:
        assert self.region is not None
        return self._kept_shelf

    def region_of(self, handle: Handle) -> Region:
        """Where the handle's instance is; the declaration may have moved on to another place since."""
        if (handle.region, handle.endpoint) == (self.account.region_name, self.account.endpoint_url):
            return self.region
        return Region.of(evolve(self.account, region=handle.region, endpoint_url=handle.endpoint), self.reactor)

    @property
    def garage(self) -> parking.Garage:
        if self._garage is None:
            self._garage = parking.Garage(self.name, self.reactor)
        return self._garage

    def user_data_of(self, recipe: Recipe, choice: Choice, variables: Mapping[str, str]) -> UserData:
        shared = variables if self.enrolment_as is None else {k: v for k, v in variables.items() if k not in enrolment.OWN}
        return UserData(
            text=recipe.user_data,
            how=self.enrolment_as,
            variables=shared,
            command=self.agent_command,
            spot=choice.market == "spot",
            stop_mode=self.stop_mode,
        )

    def whose_fault(self, error: LatentWorkerConfigurationError, *involved: str) -> LatentError:
        """The declaration's, unless it lets the build decide what is wrong. ``involved``: the options, if they are known."""
        names = involved or options_of(error)
        if any(holds_renderable(self.options[name]) for name in names):
            return LatentWorkerCannotSubstantiate(str(error))
        return error
