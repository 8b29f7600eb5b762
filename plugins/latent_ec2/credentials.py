"""Whose account it is: Buildbot's options for it, and boto3's own ways."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latent.errors import ConfigError
from latent.worker.words import shown
from latent_ec2 import options
from latent_ec2.account import Account

DEFAULT_FILE = Path("~/.ec2/aws_id")
"""Where Buildbot looks when it is told nothing."""

WHO = ("identifier", "secret_identifier", "aws_id_file_path", "session", "profile", "session_token")
OPTIONS = (*WHO, "region", "endpoint_url")


def account(
    identifier: Any = None,
    secret_identifier: Any = None,
    aws_id_file_path: Any = None,
    session: Any = None,
    profile: Any = None,
    session_token: Any = None,
    region: Any = None,
    endpoint_url: Any = None,
) -> Account:
    """ConfigError with what is wrong. No call is made; without any of these boto3 looks for credentials by itself."""
    where = options.region(region)
    if endpoint_url is not None and not (isinstance(endpoint_url, str) and re.match(r"https?://[^/]", endpoint_url)):
        raise ConfigError(f"endpoint_url is {shown(endpoint_url)}; write 'https://HOST', or take it out for AWS itself")
    ways = {
        "identifier": identifier is not None or secret_identifier is not None,
        "aws_id_file_path": aws_id_file_path is not None,
        "session": session is not None,
        "profile": profile is not None,
    }
    given = [way for way, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other; keep one of them")
    if session is not None and not callable(getattr(session, "client", None)):
        raise ConfigError(f"session is {shown(session)}; write boto3.Session(...)")
    if (identifier is None) != (secret_identifier is None):
        raise ConfigError("identifier and secret_identifier belong together; write both, or none")
    for name, value in (("identifier", identifier), ("secret_identifier", secret_identifier), ("session_token", session_token)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            told = f" is {shown(value)}" if name == "identifier" else ""
            raise ConfigError(f"{name}{told or ' is no string'}; write it as AWS gave it to you")
    if session_token is not None and identifier is None:
        raise ConfigError("session_token belongs to identifier and secret_identifier; write these, too")
    if identifier is None and session is None and profile is None:
        identifier, secret_identifier = _from_file(aws_id_file_path)
    return Account(
        region=where,
        endpoint_url=endpoint_url,
        key_id=identifier,
        secret=secret_identifier,
        session_token=session_token,
        profile=profile,
        session=session,
    )


def _from_file(given: Any) -> tuple[str | None, str | None]:
    """The file has the key's id on its first line, and the secret on its second."""
    try:
        path = (DEFAULT_FILE if given is None else Path(given)).expanduser()
        lines = path.read_text().split()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        if given is None:
            return None, None
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"aws_id_file_path: {given} can't be read ({why}); mend it, or take it out") from None
    if len(lines) < 2:
        if given is None:
            return None, None
        raise ConfigError(f"aws_id_file_path: {given} lacks a line; write the key's id on the first, the secret on the second")
    return lines[0], lines[1]
