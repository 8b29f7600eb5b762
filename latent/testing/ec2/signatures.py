"""Who may call: keys, and signatures of version 4 made with them.

An endpoint that starts processes for who asks must not do so for everybody on the machine: so signatures are checked as AWS does.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from urllib.parse import parse_qsl, quote

from attrs import frozen

from latent.testing.ec2.answers import Refused, Request

_SIGNED = re.compile(r"SignedHeaders=([^,\s]+)")
_SIGNATURE = re.compile(r"Signature=([0-9a-f]+)")
_LETTERS = string.ascii_uppercase + "234567"


@frozen
class Credentials:
    """``token``: "" for those that last. ``expired``: AWS's code once they are, "" until then."""

    key_id: str
    secret: str
    token: str = ""
    expired: str = ""

    @classmethod
    def made_up(cls, *, temporary: bool = False) -> Credentials:
        """``temporary``: with a session token."""
        letters = "".join(secrets.choice(_LETTERS) for _ in range(16))
        token = secrets.token_urlsafe(48) if temporary else ""
        return cls(("ASIA" if temporary else "AKIA") + letters, secrets.token_urlsafe(30), token)


def check(request: Request, keys: dict[str, Credentials]) -> None:
    """`Refused` as EC2 does it: it does not say what is wrong with credentials."""
    credentials = keys.get(request.key_id)
    if credentials is None or not _signed_with(credentials, request):
        raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    if credentials.expired:
        raise Refused(credentials.expired, "Request has expired.", 400)


def _signed_with(credentials: Credentials, request: Request) -> bool:
    authorization = request.headers.get("authorization", "")
    signed, signature = _SIGNED.search(authorization), _SIGNATURE.search(authorization)
    if signed is None or signature is None:
        return False
    if credentials.token and request.headers.get("x-amz-security-token") != credentials.token:
        return False
    names = signed[1].split(";")
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(parse_qsl(request.query, keep_blank_values=True))
    )
    canonical = "\n".join(
        [
            request.method,
            quote(request.path or "/", safe="/-_.~"),
            query,
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
            "",
            signed[1],
            request.headers.get("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest(),
        ]
    )
    moment = request.headers.get("x-amz-date", "")
    scope = f"{moment[:8]}/{request.region}/{request.service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret}".encode()
    for part in (moment[:8], request.region, request.service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex(), signature[1])
