"""Which account and region, where its API is, and who asks."""

from __future__ import annotations

from typing import Any

import boto3
from attrs import field, frozen
from botocore.config import Config

THREADS = 8
"""API calls at once in one account and region."""

CONNECT_TIMEOUT = 10.0
"""Seconds that a connection may take."""


@frozen(kw_only=True)
class Account:
    """Equal, and so shared, when everything is. Without keys, boto3 looks for them: environment, files, instance profile.

    ``endpoint_url``: a private or test endpoint. ``session``: a boto3 Session that the user made, asked instead of all the rest.
    ``timeout``: seconds that one call may take before it counts as hung.
    """

    region: str | None = None
    endpoint_url: str | None = None
    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    session: Any = field(default=None, repr=False, eq=id)
    timeout: float = 60.0

    @property
    def who(self) -> str:
        """Whose credentials, in words that tell no secret; the same after a restart."""
        if self.session is not None:
            return "session"
        if self.key_id:
            return f"{self.key_id[:4]}…{self.key_id[-2:]}"
        return self.profile or "default"

    @property
    def label(self) -> str:
        """For messages: "ec2 eu-west-1 (AKIA…XY)"."""
        return f"ec2 {self.region_name or 'no region'} ({self.who})"

    @property
    def region_name(self) -> str | None:
        named = self.region or getattr(self.session, "region_name", None)
        return None if named is None else str(named)

    def make_client(self, service: str = "ec2") -> Any:
        """A boto3 client. Blocks: boto3 reads files, and asks for credentials. What it raises is botocore's.

        It retries nothing by itself: each call has to pass the region's budget.
        """
        session: Any = self.session or boto3.Session(
            aws_access_key_id=self.key_id,
            aws_secret_access_key=self.secret,
            aws_session_token=self.session_token,
            region_name=self.region,
            profile_name=self.profile,
        )
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=min(CONNECT_TIMEOUT, self.timeout),
            read_timeout=self.timeout,
            max_pool_connections=THREADS,
            user_agent_extra="latent",
        )
        return session.client(service, region_name=self.region, endpoint_url=self.endpoint_url, config=config)

    def known_regions(self, service: str = "ec2") -> list[str]:
        """Every region that boto3 has heard of. Blocks."""
        session: Any = self.session or boto3.Session(region_name=self.region)
        return sorted({name for partition in session.get_available_partitions()
                       for name in session.get_available_regions(service, partition)})  # fmt: skip
