"""The user data of a launch: the user's own, and the enrolment of its members."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

from latent.errors import ConfigError
from latent_ec2 import enrolment
from latent_ec2.launches import MOST_USER_DATA

PLACE = "@LATENT_ENVIRONMENT@"
"""In a user's text that no enrolment is added to: where the agent's variables go, one NAME='value' a line."""

How = Literal["cloud-init", "script"] | None

_TYPES = (
    ("#!", "text/x-shellscript"),
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("#cloud-config", "text/cloud-config"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("#part-handler", "text/part-handler"),
    ("## template: jinja", "text/jinja2"),
)
"""How cloud-init tells what a text is, by its beginning."""

# By itself cloud-init runs scripts at an instance's first boot only; one that was stopped and is started again boots once more.
_EVERY_BOOT = """\
#cloud-config
cloud_final_modules:
- package-update-upgrade-install
- scripts-vendor
- scripts-per-once
- scripts-per-boot
- scripts-per-instance
- [scripts-user, always]
- final-message
"""


@frozen(kw_only=True)
class UserData:
    """How the user data of one shape of launches are put together; called with the members' (worker, attempt, token).

    ``text``: the user's own. ``variables``: the agent's, all of them with ``how`` None, else those that members share.
    """

    text: str | None
    how: How
    variables: Mapping[str, str]
    command: str
    spot: bool = False
    stop_mode: str = "terminate"

    def __call__(self, members: Sequence[tuple[str, int, str]]) -> str:
        """Raises ConfigError when it can't be put together; see `problem` for its size."""
        if self.how is None:
            return self._alone()
        as_script = self.how == "script"
        if as_script and self.text is not None and not self.text.startswith("#!"):
            raise ConfigError(
                "user_data is no script: its first line does not begin with #!; with enrolment='cloud-init' it can be anything"
            )
        script = enrolment.script(
            members,
            self.variables,
            self.command,
            spot=self.spot,
            hibernates=self.stop_mode == "hibernate",
            user_script=self.text if as_script else None,
        )
        if as_script:
            return script
        parts = [_part("text/cloud-config", _EVERY_BOOT)] if self.stop_mode != "terminate" else []
        if self.text is not None:
            parts.append(_user_part(self.text))
        return _multipart([*parts, _part("text/x-shellscript", script)])

    @property
    def shape(self) -> list[object]:
        """Equal for what makes the same of the same members."""
        return [self.text, self.how, dict(self.variables), self.command, self.spot, self.stop_mode]

    def problem(self, members: Sequence[tuple[str, int, str]]) -> str:
        """Why EC2 would not take it, with the sizes; empty if it would."""
        size = len(self(members).encode())
        if size <= MOST_USER_DATA:
            return ""
        users = len((self.text or "").encode())
        return (
            f"user_data makes {size:,} bytes (its own {users:,}, the enrolment's {size - users:,}), where EC2 takes "
            f"{MOST_USER_DATA:,}; have a small script fetch the rest, or build it into the image"
        )

    def _alone(self) -> str:
        lines = "\n".join(f"{name}={shlex.quote(value)}" for name, value in sorted(self.variables.items()))
        return f"{lines}\n" if self.text is None else self.text.replace(PLACE, lines)


def _is_mime(text: str) -> bool:
    beginning = text.lstrip().lower()
    return beginning.startswith(("mime-version:", "content-type: multipart"))


def _user_part(text: str) -> str:
    """Several parts stay together, as one of ours; what cloud-init knows nothing of is there for who reads it himself."""
    if _is_mime(text):
        return text.lstrip()
    return _part(next((kind for beginning, kind in _TYPES if text.startswith(beginning)), "text/plain"), text)


def _part(kind: str, text: str) -> str:
    encoding = "7bit" if text.isascii() else "base64"
    body = text if text.isascii() else base64.encodebytes(text.encode()).decode()
    head = f'MIME-Version: 1.0\nContent-Type: {kind}; charset="utf-8"\nContent-Transfer-Encoding: {encoding}\n'
    return f"{head}\n{body}"


def _multipart(parts: Sequence[str]) -> str:
    """The same text for the same parts: a launch that is asked for twice has to be the same."""
    boundary = f"latent-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}"
    body = "".join(f"--{boundary}\n{part.rstrip(chr(10))}\n" for part in parts)
    return f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{boundary}"\n\n{body}--{boundary}--\n'
