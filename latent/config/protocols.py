"""``c["protocols"]``: where agents attach, an address for each protocol. Keys and values are Buildbot's where it has them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import Any

from latent.config import values
from latent.config.lines import Path
from latent.config.settings import Bots, Buildbot, Peer, Tls, Www
from latent.errors import ConfigError
from latent.worker.base import AbstractWorker
from latent.worker.words import did_you_mean, kind, shown

Check = Callable[[str, Any], Any]

PB = "pb"
MSGPACK = "msgpack_experimental_v7"
BUILDBOT = (PB, MSGPACK)

EXTRA = "pip install 'latent[buildbot]'"

NEEDED = {PB: (), MSGPACK: ("autobahn", "msgpack")}
"""The modules that a protocol needs beside latent's own; with TLS it needs OpenSSL too."""

PEER_VERSIONS = range(12, 17)
"""What Woodpecker's agents speak, from 3.0 to 3.17; the later ones only added fields."""

LEAST_KEEP_ALIVE = 5.0

LEAST_TOKEN = 16
"""Characters: who has the token has every plain worker's builds."""

BOTS = "bots"

TLS_KEYS = ("certificate", "key", "chain")


def port(subject: str, value: Any) -> int | Mapping[str, Any]:
    """A port; or what Buildbot also takes, a string such as ``tcp:9989:interface=127.0.0.1``: then the settings that it says."""
    if not isinstance(value, str):
        return values.port(subject, value)
    remedy = "write a number, 9989 for example"
    fields = [re.sub(r"\\(.)", r"\1", found) for found in re.split(r"(?<!\\):", value)]
    scheme, *rest = fields if fields[0] in ("tcp", "tcp6", "ssl") else ("tcp", *fields)
    options = dict(field.partition("=")[::2] for field in rest[1:])
    known = {"interface"} | ({"privateKey", "certKey", "extraCertChain"} if scheme == "ssl" else set())
    if not rest or not (rest[0].isascii() and rest[0].isdigit()) or not set(options) <= known:
        raise ConfigError(f"{subject} is {shown(value)}; {remedy}, and put the rest into 'interface' and 'tls'")
    settings: dict[str, Any] = {"port": values.port(subject, int(rest[0]))}
    if "interface" in options:
        settings["interface"] = values.interface(subject, options["interface"])
    if scheme == "ssl":
        key = options.get("privateKey", "server.pem")
        settings["tls"] = {"key": key, "certificate": options.get("certKey", key)}
        if "extraCertChain" in options:
            settings["tls"]["chain"] = options["extraCertChain"]
    return settings


def tls(subject: str, value: Any, *, directory: FilePath) -> Tls:
    """A certificate and its key, which fit each other. Relative paths begin at ``directory``."""
    remedy = "write {'certificate': 'server.pem', 'key': 'server.key'}"
    given = values.mapping(subject, value, remedy=remedy)
    errors = [
        f"{subject}[{shown(key)}] is no setting; {did_you_mean(key, TLS_KEYS, f'the settings of {subject}')}"
        for key in given
        if key not in TLS_KEYS
    ]
    errors += [f"{subject} lacks {key!r}; {remedy}" for key in ("certificate", "key") if given.get(key) is None]
    paths: dict[str, FilePath] = {}
    for key in TLS_KEYS:
        if given.get(key) is not None:
            path = values.collect(errors, _readable, f"{subject}[{key!r}]", given[key], directory, default=None)
            if path is not None:
                paths[key] = path
    if errors:
        raise ConfigError(errors)
    files = Tls(certificate=paths["certificate"], key=paths["key"], chain=paths.get("chain"))
    try:
        # With a password asked for, OpenSSL would ask at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        problem = f"{subject}: the certificate and its key can't be used ({values.described(error)})"
        raise ConfigError(f"{problem}; give PEM files that belong together") from None
    return files


def _readable(subject: str, value: Any, directory: FilePath) -> FilePath:
    remedy = "write the path of a PEM file"
    if not isinstance(value, str | FilePath):
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}, not a path; {remedy}")
    path = directory / value
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{subject}: {path} can't be read ({error.strerror}); {remedy}") from None
    return path


def buildbot(protocol: str, section: Mapping[str, Any], directory: FilePath) -> Buildbot:
    """What the checked keys of ``c["protocols"][protocol]`` come to. Raises ConfigError."""
    subject = f"c['protocols'][{protocol!r}]"
    settings = dict(section)
    stated = settings.get("port")
    if isinstance(stated, Mapping):
        settings = {**stated, **{key: value for key, value in settings.items() if key != "port"}}
    if settings.get("tls") is not None:
        settings["tls"] = tls(f"{subject}['tls']", settings["tls"], directory=directory)
    missing = [name for name in (*NEEDED[protocol], *(("OpenSSL",) if settings.get("tls") else ())) if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{subject} needs {', '.join(missing)}, which {_is(missing)} not installed; {EXTRA}")
    return Buildbot(**settings)


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def conflicts(endpoints: Mapping[str, Peer], www: Www | None) -> list[tuple[tuple[str, ...], str]]:
    """What is right by itself and wrong together: (path, message)."""
    found: list[tuple[tuple[str, ...], str]] = []
    taken: dict[int, str] = {}
    for name, endpoint in endpoints.items():
        subject = f"c['protocols'][{name!r}]"
        if endpoint.interface in ("0.0.0.0", "::") and endpoint.advertise is None:  # noqa: S104  it is compared, not bound
            remedy = "add 'advertise': 'HOST:PORT', the address that instances can reach"
            message = f"{subject} listens on all networks, and agents can't be told where to come; {remedy}"
            found.append((("protocols", name), message))
        if endpoint.advertise is not None and not endpoint.port:
            remedy = "add 'port', or take 'advertise' out"
            message = f"{subject} advertises {endpoint.advertise}, but listens on any free port; {remedy}"
            found.append((("protocols", name, "advertise"), message))
        if endpoint.port in taken:
            message = f"{taken[endpoint.port]} and {subject} both have port {endpoint.port}; give one of them another"
            found.append((("protocols", name, "port"), message))
        elif endpoint.port:
            taken[endpoint.port] = subject
    if www is not None and www.port in taken:
        message = f"c['www'] and {taken[www.port]} both have port {www.port}; give one of them another"
        found.append((("www", "port"), message))
    return found


def too_slow(protocol: str, settings: Buildbot, session_timeout: float, lease_seconds: float) -> str:
    """Why agents that are well would count as lost; "" if they would not."""
    least = min(session_timeout, lease_seconds)
    if settings.keepalive_interval * 2 <= least:
        return ""
    subject = f"c['protocols'][{protocol!r}]['keepalive_interval']"
    return (
        f"{subject} is {settings.keepalive_interval:g}, and an agent that is silent for {least:g} s is lost; "
        f"write at most {least / 2:g}, or raise 'session_timeout' and 'lease_seconds' of c['limits']"
    )


def sections() -> Mapping[Path, Mapping[str, Check]]:
    """The settings of each protocol, and how each is checked by itself."""
    either: dict[str, Check] = {
        "port": port,
        "interface": values.interface,
        "advertise": partial(_or_none, values.host_and_port),
        "tls": lambda subject, value: value,  # needs to know where the file is that it stands in
        "keepalive_interval": values.seconds,
    }
    peer: dict[str, Check] = {
        **{key: either[key] for key in ("interface", "advertise")},
        "port": values.port,
        "token": partial(_or_none, _token),
        "version": _version,
    }
    bots: dict[str, Check] = {
        **{key: either[key] for key in ("interface", "advertise")},
        "port": values.port,
        "tls": either["tls"],
        "instances": _instances,
        "keep_alive": _keep_alive,
    }
    return {("protocols", "peer"): peer, ("protocols", BOTS): bots, **{("protocols", protocol): either for protocol in BUILDBOT}}


def _token(subject: str, value: Any) -> str:
    remedy = f"write a string of at least {LEAST_TOKEN} characters that nobody guesses"
    given = values.text(subject, value, remedy=remedy)
    if len(given) < LEAST_TOKEN:
        raise ConfigError(f"{subject} has {len(given)} characters; {remedy}")
    return given


def _version(subject: str, value: Any) -> int:
    if type(value) is not int or value not in PEER_VERSIONS:
        raise ConfigError(f"{subject} is {shown(value)}; write a number from {PEER_VERSIONS[0]} to {PEER_VERSIONS[-1]}")
    return value


def _instances(subject: str, value: Any) -> tuple[str, ...]:
    remedy = "write a list of names; '' is that of bots that say none"
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{subject} is {shown(value)}; {remedy}")
    for name in value:
        if not isinstance(name, str) or name != name.strip("/") or not values.encodes(name):
            raise ConfigError(f"{subject} has {shown(name)}, which is no instance's name; {remedy}")
    return tuple(dict.fromkeys(value))


def _keep_alive(subject: str, value: Any) -> float:
    given = values.seconds(subject, value)
    if given < LEAST_KEEP_ALIVE:
        raise ConfigError(f"{subject} is {given:g}, too short for a bot to call in time; write {LEAST_KEEP_ALIVE:g} or more")
    return given


def strangers(workers: Mapping[str, AbstractWorker], bots: Bots | None) -> list[str]:
    """The workers whose bots have nowhere to come to."""
    found = []
    for name, worker in workers.items():
        if worker.labels.get("agent") != "bot":
            continue
        instance = worker.labels.get("instance", "")
        if bots is None:
            found.append(
                f"worker {name!r} has a bot, and nothing listens for bots; write c['protocols'] = {{'bots': {{'port': 0}}}}"
            )
        elif instance not in bots.instances:
            known = did_you_mean(instance, bots.instances, "c['protocols']['bots']['instances']")
            found.append(f"worker {name!r} is of instance {instance!r}, which is not served; {known}")
    return found


def _or_none(check: Any, subject: str, value: Any) -> Any:
    return None if value is None else check(subject, value)
