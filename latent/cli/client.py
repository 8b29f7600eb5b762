"""The command line's side of the HTTP API. Every failure is a `CliError` with a remedy.

Commands import this when they call, and it imports no Twisted, gRPC or SQLAlchemy: a client command is quick to start.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from latent.cli.exits import CliError, ExitCode
from latent.cli.place import Place
from latent.web.address import read_address, read_token

# httpx imports a command line of its own, which takes longer than all the rest; it does without if that can't be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
import httpx  # noqa: E402

ANSWER = 30.0
"""Seconds that the controller has for an answer, beside those that it was asked to wait."""

Doc = dict[str, Any]


class NotRunning(CliError):
    """No controller answers, or the one that did is gone."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(ExitCode.NOT_RUNNING, message, remedy)


class Refused(CliError):
    """The controller answered with an error: the HTTP ``status`` and the ``doc`` that came with it."""

    def __init__(self, status: int, doc: Doc) -> None:
        super().__init__(_code(status), str(doc.get("error")), str(doc.get("remedy") or ""))
        self.status = status
        self.doc = doc


class Client:
    """Talks to the controller of a place, over its socket or the URL that was given. Finds it anew at every call."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Doc | None = None, wait: float = 0.0
    ) -> Doc:
        """One request; the document that is answered. ``wait``: seconds that the controller is asked to hold the answer."""
        with self._open(ANSWER + wait) as http:
            try:
                answer = http.request(method, "/api/v1" + path, params=params, json=body)
            except httpx.TransportError as error:
                raise self._lost(error) from None
            return self._document(answer)

    def lines(self, path: str, params: Mapping[str, Any]) -> Iterator[Doc]:
        """The documents of a stream, one a line, as they come."""
        with self._open(None) as http:
            try:
                with http.stream("GET", "/api/v1" + path, params=params) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        self._document(answer)
                    for line in answer.iter_lines():
                        yield json.loads(line)
            except httpx.TransportError as error:
                raise self._lost(error) from None

    def _open(self, timeout: float | None) -> httpx.Client:
        place = self._place
        transport: httpx.HTTPTransport
        if place.url is not None:
            base, token = place.url.rstrip("/"), place.token
            transport = httpx.HTTPTransport(verify=base.startswith("https:"))
            if not token:
                raise CliError(ExitCode.USAGE, "an API token is needed with --url", "set LATENT_API_TOKEN; it is in state/token")
        else:
            address, token = read_address(place.state / "api.json"), place.token or read_token(place.state / "token")
            if address is None or not os.path.exists(address.socket):
                raise self._silent()
            if token is None:
                raise CliError(
                    ExitCode.REFUSED,
                    f"the API token in {place.state / 'token'} can't be read",
                    "run this as the user who runs the controller",
                )
            base, transport = "http://latent", httpx.HTTPTransport(uds=address.socket, verify=False)
        try:
            return httpx.Client(
                base_url=base,
                transport=transport,
                headers={b"Authorization": b"Bearer " + token.encode()},
                timeout=httpx.Timeout(timeout, connect=10.0),
                trust_env=False,
            )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise CliError(ExitCode.USAGE, f"{base!r} is not a URL: {error}", "write it as http://host:port") from None

    def _absent(self) -> NotRunning:
        place = self._place
        if not place.config.exists():
            return NotRunning(
                f"no controller runs in {place.basedir}, and there is no master.cfg",
                "name its directory: latent -C DIRECTORY ..., or set LATENT_BASEDIR",
            )
        return NotRunning(f"no controller runs in {place.basedir}", f"start it: {place.command('start')}")

    def _silent(self) -> NotRunning:
        """What a socket that nobody listens on means: a controller that was killed, or one that is not up yet or any more."""
        holder = self._place.holder()
        if holder is None:
            return self._absent()
        return NotRunning(
            f"the controller (process {holder}) runs but does not answer: it is starting, stopping, or stuck",
            f"try again, or look at {self._place.log}",
        )

    def _lost(self, error: httpx.TransportError) -> CliError:
        """What a failure to talk means."""
        place = self._place
        if isinstance(error, httpx.UnsupportedProtocol):
            return CliError(ExitCode.USAGE, f"{place.url!r} is not a URL: {error}", "write it as http://host:port")
        if isinstance(error, httpx.LocalProtocolError):
            return CliError(ExitCode.USAGE, f"the request can't be sent: {error}", "look at the token and the arguments")
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError) and place.url is not None:
            return NotRunning(f"no controller answers at {place.url}: {error}", "check the URL, and that the controller runs")
        if isinstance(error, httpx.TimeoutException):
            return CliError(
                ExitCode.UNAVAILABLE,
                f"the controller did not answer within {ANSWER:g} s; it may still do what it was asked",
                f"look at {place.command('health')} and {place.log}",
            )
        if isinstance(error, httpx.ConnectError):
            return self._silent()
        return NotRunning("the controller closed the connection: it stopped or was killed", f"look at {place.log}")

    def _document(self, answer: httpx.Response) -> Doc:
        try:
            doc = answer.json()
        except ValueError:
            doc = None
        if not isinstance(doc, dict):
            where = self._place.url or self._place.state
            raise CliError(ExitCode.UNAVAILABLE, f"what answers at {where} is no controller", "check the URL")
        if answer.status_code < 400:
            return doc
        raise Refused(answer.status_code, doc)


def _code(status: int) -> ExitCode:
    if status == 404:
        return ExitCode.NOT_FOUND
    if status >= 500:
        return ExitCode.UNAVAILABLE
    return ExitCode.REFUSED
