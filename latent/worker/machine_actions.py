"""How a `GenericLatentMachine` is started and stopped. Names and arguments are Buildbot's; further arguments are ours.

An action is any object with ``perform(machine)``, which may return a plain value or a Deferred, or be ``async def``: it raises,
or answers False, when it failed. One with ``mistakes(directory)`` too tells what is missing before anything is started.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from latent.errors import MachineError
from latent.worker import machine_values as values
from latent.worker import ssh
from latent.worker.commands import Place, checked, explained, run_command
from latent.worker.machine import Machine

HTTP_TIMEOUT = 60.0
"""Seconds that a server has to answer, unless the action says otherwise."""

SAID = 400
"""Bytes of what a server says that an error repeats."""

GIVEN = ("params", "data", "json", "headers", "cookies", "files", "auth")
"""The arguments of `HttpAction` that are handed to treq as they are."""


class Action:
    """The base of the actions here, so that whoever reads master.cfg knows them. They have no slots: by their attributes a reload
    tells whether one is another (`latent.worker.declaration`)."""

    def mistakes(self, directory: Path) -> Iterator[str]:
        """What of it is not there, each "what; remedy". Paths that are not absolute begin at ``directory``."""
        yield from ()

    def _place(self, machine: Machine) -> Place:
        return Place(machine.reactor, machine.name, machine.state_dir / "machines" / machine.name / "command")


# --- local commands -----------------------------------------------------------------------------------------------------------


@frozen(slots=False)
class LocalWakeAction(Action):
    """Runs ``command``, a list of arguments, on the controller's machine. It has failed unless its exit code is 0.

    The variable LATENT_MACHINE is the machine's name. What the command leaves running stays.
    """

    command: Sequence[str] = field(validator=values.command)

    async def perform(self, machine: Machine) -> None:
        await checked(self._place(machine), self.command)

    def mistakes(self, directory: Path) -> Iterator[str]:
        yield from values.no_program(f"{type(self).__name__}: command", self.command[0], directory)


LocalSuspendAction = LocalWakeAction
"""The same under the name that reads better where a machine is stopped."""


@frozen(slots=False)
class LocalWOLAction(Action):
    """Sends a Wake-on-LAN packet for the hardware address ``wakeMac``, as UDP to ``address`` (a broadcast address) and ``port``.

    ``wolBin``: a program that is called with the address, in place of sending it ourselves.
    """

    wakeMac: str = field(validator=values.mac)
    wolBin: str | None = field(default=None, validator=values.text_or_none)
    address: str = field(default="255.255.255.255", validator=values.address)
    port: int = field(default=9, validator=values.port)

    async def perform(self, machine: Machine) -> None:
        if self.wolBin is not None:
            await checked(self._place(machine), [self.wolBin, self.wakeMac])
            return
        await send_magic_packet(machine.reactor, self.wakeMac, self.address, self.port)

    def mistakes(self, directory: Path) -> Iterator[str]:
        if self.wolBin is not None:
            yield from values.no_program(f"{type(self).__name__}: wolBin", self.wolBin, directory)


def magic_packet(mac: str) -> bytes:
    """Six bytes of ones, and the address 16 times."""
    return b"\xff" * 6 + base64.b16decode(re.sub("[:-]", "", mac).upper()) * 16


async def send_magic_packet(reactor: Any, mac: str, address: str, port: int) -> None:
    """Send it three times, as nobody says whether it has arrived. Raises MachineError."""
    sender = DatagramProtocol()
    listening = reactor.listenUDP(0, sender)
    transport: Any = sender.transport
    try:
        transport.setBroadcastAllowed(True)
        for _ in range(3):
            transport.write(magic_packet(mac), (address, port))
    except OSError as error:
        raise MachineError(f"the Wake-on-LAN packet to {address} can't be sent: {error.strerror}") from error
    finally:
        await listening.stopListening()


# --- over SSH -----------------------------------------------------------------------------------------------------------------


@frozen(slots=False)
class _SshAction(Action):
    """``host``: as ``ssh`` takes it. ``sshKey``: the private key, its text or the path of its file (None: those of ``ssh``).

    ``sshHostKey``: the host's public key ("ssh-ed25519 AAAA..."), or the path of a known_hosts file.
    """

    host: str = field(validator=values.host)
    remoteCommand: Sequence[str] | str = field(validator=values.remote_command)
    sshBin: str = field(default="ssh", validator=values.text)
    sshKey: str | Path | None = field(default=None, validator=values.text_or_none, repr=False)
    sshHostKey: str | Path | None = field(default=None, validator=values.text_or_none)

    async def perform(self, machine: Machine) -> None:
        line = self.remoteCommand if isinstance(self.remoteCommand, str) else shlex.join(self.remoteCommand)
        with self._caller(machine).call(line) as argv:
            await checked(self._place(machine), argv)

    def mistakes(self, directory: Path) -> Iterator[str]:
        name = type(self).__name__
        yield from values.no_program(f"{name}: sshBin", self.sshBin, directory)
        yield from ssh.file_mistakes(name, self.sshKey, self.sshHostKey, directory)

    def _caller(self, machine: Machine) -> ssh.Caller:
        return ssh.Caller(self.sshBin, self.host, self.sshKey, self.sshHostKey, machine.state_dir / "machines" / machine.name)


@frozen(slots=False)
class RemoteSshWakeAction(_SshAction):
    """Runs ``remoteCommand`` on another host, over SSH: a list of arguments, or a line for the shell there."""


@frozen(init=False, slots=False)
class RemoteSshWOLAction(_SshAction):
    """Runs ``wolBin wakeMac`` on another host, one in the network of the machine that is to wake."""

    def __init__(
        self,
        host: str,
        wakeMac: str,
        wolBin: str = "wakeonlan",
        sshBin: str = "ssh",
        sshKey: str | Path | None = None,
        sshHostKey: str | Path | None = None,
    ) -> None:
        values.mac(self, None, wakeMac)
        self.__attrs_init__(host, [wolBin, wakeMac], sshBin, sshKey, sshHostKey)


SUSPEND = ("systemctl", "suspend")
BEGUN = "latent-has-begun"


@frozen(init=False, slots=False)
class RemoteSshSuspendAction(_SshAction):
    """Runs ``remoteCommand`` (``systemctl suspend``) on the machine itself, which may be gone before it can answer: a connection
    that is lost after the command has begun is a success."""

    def __init__(
        self,
        host: str,
        remoteCommand: Sequence[str] | str | None = None,
        sshBin: str = "ssh",
        sshKey: str | Path | None = None,
        sshHostKey: str | Path | None = None,
    ) -> None:
        command = SUSPEND if remoteCommand is None else remoteCommand
        self.__attrs_init__(host, command, sshBin, sshKey, sshHostKey)

    async def perform(self, machine: Machine) -> None:
        line = self.remoteCommand if isinstance(self.remoteCommand, str) else shlex.join(self.remoteCommand)
        # `&&` is understood by the shells of Windows, too.
        with self._caller(machine).call(f"echo {BEGUN} && {line}") as argv:
            ended = await run_command(self._place(machine), argv)
        begun = BEGUN in ended.output.split()
        if ended.code != 0 and not (begun and ended.code == ssh.CONNECTION_LOST):
            raise MachineError(explained([self.sshBin, self.host, line], ended).replace(f": {BEGUN}", ":"))


# --- over HTTP ----------------------------------------------------------------------------------------------------------------


@frozen(slots=False)
class HttpAction(Action):
    """Makes an HTTP request, with treq's arguments. It has failed unless the status is 200 to 299.

    ``timeout``: seconds, None: 60. ``auth``: (user, password). ``allow_redirects``: None: they are followed.
    """

    url: str = field(validator=values.url)
    method: str = field(validator=values.method)
    params: Any = None
    data: Any = field(default=None, repr=False)
    json: Any = field(default=None, repr=False, validator=values.json_or_data)
    headers: Mapping[str, Any] | None = field(default=None, repr=False)
    cookies: Mapping[str, str] | None = field(default=None, repr=False)
    files: Any = field(default=None, repr=False)
    auth: tuple[str, str] | None = field(default=None, repr=False)
    timeout: float | None = field(default=None, validator=values.seconds)
    allow_redirects: bool | None = None
    proxies: Any = field(default=None, validator=values.no_proxies)

    async def perform(self, machine: Machine) -> None:
        what = f"{self.method.upper()} {self.url}"

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(MachineError(f"{what}: no answer in {seconds:g} s"))

        asking = Deferred.fromCoroutine(self._ask(machine.reactor, what))
        code, said = await asking.addTimeout(self.timeout or HTTP_TIMEOUT, machine.reactor, too_late)
        if not 200 <= code < 300:
            raise MachineError(f"{what} was answered with {code}: {' '.join(said.split())}".rstrip(": "))

    async def _ask(self, reactor: Any, what: str) -> tuple[int, str]:
        # Imported here: no other room needs an HTTP client, and few configurations do.
        from treq.client import HTTPClient
        from twisted.internet.error import ConnectError, DNSLookupError
        from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed

        # No connection is kept: there is one request a day, or a week.
        agent: Any = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        client = HTTPClient(agent)
        given = {name: value for name in GIVEN if (value := getattr(self, name)) is not None}
        follow = True if self.allow_redirects is None else self.allow_redirects
        said = bytearray()
        try:
            answer = await client.request(self.method.upper(), self.url, allow_redirects=follow, **given)
            await answer.collect(lambda data: said.extend(data[: SAID - len(said)]))
        except (ConnectError, DNSLookupError, ResponseFailed) as error:
            reasons = getattr(error, "reasons", None)
            raise MachineError(f"{what}: {reasons[0].getErrorMessage() if reasons else error}") from error
        return answer.code, said.decode("utf-8", "replace")
