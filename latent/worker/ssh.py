"""How `ssh` is called by the actions of latent machines."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

CONNECTION_LOST = 255
"""The exit code of `ssh` when it could not connect, or was cut off."""

_OPTIONS = (
    # Nobody is there to be asked for a password.
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=30"),
    # A machine that is suspended does not close its connections.
    *("-o", "ServerAliveInterval=5"),
    *("-o", "ServerAliveCountMax=3"),
)


@frozen
class Caller:
    """``key``: text or path of a private key; ``host_key``: a public key, or the path of a known_hosts file. Texts are put into
    files in ``directory`` while they are needed."""

    program: str
    host: str
    key: str | Path | None
    host_key: str | Path | None
    directory: Path

    @contextmanager
    def call(self, line: str) -> Iterator[list[str]]:
        """The arguments that run a line of the shell there; they hold until the end of the ``with``."""
        with ExitStack() as stack:
            argv = [self.program, *_OPTIONS]
            if self.key is not None:
                key = stack.enter_context(self._file(str(self.key))) if is_key(self.key) else str(self.key)
                argv += ["-i", key, "-o", "IdentitiesOnly=yes"]
            if self.host_key is not None:
                known = str(self.host_key)
                if is_public_key(self.host_key):
                    known = stack.enter_context(self._file(_known_hosts(str(self.host_key))))
                argv += ["-o", f'UserKnownHostsFile="{known}"', "-o", "StrictHostKeyChecking=yes"]
            yield [*argv, "--", self.host, line]

    @contextmanager
    def _file(self, text: str) -> Iterator[str]:
        """A file with this text that nobody else can read. Named by its content: after a crash, one at most is left over."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / f"ssh-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text if text.endswith("\n") else text + "\n")
        try:
            yield str(path)
        finally:
            path.unlink(missing_ok=True)


def is_key(value: str | Path) -> bool:
    """Whether it is the text of a private key, not a path."""
    return isinstance(value, str) and "PRIVATE KEY-----" in value


def is_public_key(value: str | Path) -> bool:
    """Whether it is a host's key, with or without the host's name before it, not a path."""
    return isinstance(value, str) and len(value.split()) > 1 and any(_is_type(word) for word in value.split()[:2])


def file_mistakes(who: str, key: str | Path | None, host_key: str | Path | None, directory: Path) -> Iterator[str]:
    """What is wrong with the files that are named, each "what; remedy"."""
    if key is not None and not is_key(key):
        path = directory / key
        yield from _unreadable(f"{who}: sshKey", path, "make one with ssh-keygen, or correct the path")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield f"{who}: sshKey {str(path)!r} can be read by others, and ssh refuses such a key; chmod 600 it"
    if host_key is not None and not is_public_key(host_key):
        yield from _unreadable(f"{who}: sshHostKey", directory / host_key, "make one with ssh-keyscan, or correct the path")


def _unreadable(subject: str, path: Path, remedy: str) -> Iterator[str]:
    if not path.exists():
        yield f"{subject}: there is no file {str(path)!r}; {remedy}"
    elif not path.is_file() or not os.access(path, os.R_OK):
        yield f"{subject}: {str(path)!r} can't be read as a file; {remedy}"


def _is_type(word: str) -> bool:
    return word.startswith(("ssh-", "ecdsa-", "sk-"))


def _known_hosts(key: str) -> str:
    return f"* {key}" if _is_type(key.split()[0]) else key
