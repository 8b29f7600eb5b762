"""What one container is made from: the options that a build may decide, rendered and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from latent.errors import ConfigError
from latent.model import JSON
from latent_docker.identity import IMAGES

DEFAULT_HOST = "unix:///var/run/docker.sock"

ENCODINGS = ("gzip", "bzip", "bzip2", "xz")

_HOST = re.compile(r"(unix|tcp|http|https|ssh|npipe)://\S+|[A-Za-z0-9.-]+:\d+")

RENDERED = (
    "docker_host",
    "image",
    "dockerfile",
    "volumes",
    "hostconfig",
    "custom_context",
    "encoding",
    "target",
    "buildargs",
    "hostname",
    "command",
)
"""The options that may be renderables, in the order of `Recipe`'s fields."""


def _canonical(value: Any) -> Any:
    """As it comes back from JSON, so that a recipe that was persisted equals one that is rendered anew."""
    return json.loads(json.dumps(value, sort_keys=True, default=repr))


@frozen
class Recipe:
    """Two are equal when a container of the one will do for the other."""

    hosts: tuple[str, ...] = field(eq=_canonical)
    image: str | None
    dockerfile: str | None
    volumes: tuple[str, ...] = field(eq=_canonical)
    hostconfig: Mapping[str, Any] = field(eq=_canonical)
    custom_context: bool
    encoding: str
    target: str
    buildargs: Mapping[str, str] = field(eq=_canonical)
    hostname: str | None
    command: Any = field(eq=_canonical)

    @property
    def reference(self) -> str:
        """The image to run; one that is built without having a name is named after what it is built from."""
        if self.image is not None:
            return self.image
        made_from = (self.dockerfile, self.custom_context, self.target, dict(self.buildargs))
        return f"{IMAGES}:{hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:24]}"

    def to_json(self) -> JSON:
        return _canonical({name: getattr(self, name) for name in ("hosts", *RENDERED[1:])})

    @classmethod
    def from_json(cls, doc: JSON) -> Recipe | None:
        """None for what another version wrote: no build is compatible with that."""
        try:
            return cls(**doc)
        except TypeError:
            return None


def recipe(values: Mapping[str, Any]) -> Recipe:
    """From the rendered options, by name. ConfigError with all that is wrong."""
    errors: list[str] = []

    def checked(check: Any, name: str) -> Any:
        try:
            return check(values[name])
        except ConfigError as error:
            errors.extend(error.errors)

    made = Recipe(
        hosts=checked(hosts, "docker_host"),
        image=checked(image, "image"),
        dockerfile=checked(dockerfile, "dockerfile"),
        volumes=checked(volumes, "volumes"),
        hostconfig=checked(hostconfig, "hostconfig"),
        custom_context=bool(values["custom_context"]),
        encoding=checked(encoding, "encoding"),
        target=checked(target, "target"),
        buildargs=checked(buildargs, "buildargs"),
        hostname=checked(hostname, "hostname"),
        command=checked(command, "command"),
    )
    if not errors and made.image is None and made.dockerfile is None:
        errors.append("neither image nor dockerfile is given; write image='NAME:TAG', or dockerfile='FROM ...'")
    if errors:
        raise ConfigError(errors)
    return made


# --- one check for each option; ConfigError("what; remedy") -------------------------------------------------------------------


def hosts(value: Any) -> tuple[str, ...]:
    if value is None:
        return (DEFAULT_HOST,)
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, Sequence) or not found or not all(isinstance(one, str) and _HOST.fullmatch(one) for one in found):
        raise ConfigError(f"docker_host is {value!r}; write {DEFAULT_HOST!r}, 'tcp://HOST:PORT', or a list of such")
    return tuple(dict.fromkeys(found))


def image(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and not re.search(r"\s", value)):
        return value
    raise ConfigError(f"image is {value!r}; write 'NAME:TAG' or 'NAME@sha256:DIGEST'")


def dockerfile(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise ConfigError(f"dockerfile is {value!r}; write what it contains (with custom_context: the path of a tar file)")


def volumes(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"volumes is {value!r}; write a list such as ['/srv/cache:/cache:ro']")
    errors = [error for one in value if (error := _wrong_volume(one))]
    if errors:
        raise ConfigError(errors)
    return tuple(value)


def _wrong_volume(value: Any) -> str:
    remedy = "write 'SOURCE:/TARGET', 'SOURCE:/TARGET:ro', or '/TARGET' for a volume that goes with the container"
    if not isinstance(value, str):
        return f"{value!r} in volumes is no string; {remedy}"
    parts = value.split(":")
    target = parts[0] if len(parts) == 1 else parts[1]
    if len(parts) > 3 or not all(parts) or not target.startswith("/"):
        return f"{value!r} in volumes can't be understood; {remedy}"
    return ""


def hostconfig(value: Any) -> Mapping[str, Any]:
    """Keys that docker-py does not know are reported by their names."""
    from docker.types import HostConfig

    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"hostconfig is {value!r}; write a dict such as {{'mem_limit': '2g'}}")
    if "binds" in value:
        raise ConfigError("hostconfig has 'binds'; write them as volumes")
    try:
        HostConfig(version="1.41", **value)
    except Exception as error:  # whatever docker-py says of a value
        unknown = re.search(r"unexpected keyword argument ('\w+')", str(error))
        told = f"has {unknown[1]}, which docker-py does not know" if unknown else f"is wrong: {error}"
        raise ConfigError(f"hostconfig {told}; see docker-py's create_host_config for what there is") from error
    return dict(value)


def encoding(value: Any) -> str:
    if value in ENCODINGS:
        return str(value)
    raise ConfigError(f"encoding is {value!r}; write one of {', '.join(map(repr, ENCODINGS))}")


def target(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise ConfigError(f"target is {value!r}; write the name of a stage of the Dockerfile")


def buildargs(value: Any) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"buildargs is {value!r}; write a dict such as {{'RELEASE': '12'}}")
    return {key: str(content) for key, content in value.items()}


def hostname(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", value)):
        return value
    raise ConfigError(f"hostname is {value!r}; write letters, digits, dots and dashes, at most 63")


def command(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if isinstance(value, Sequence) and value and all(isinstance(one, str) for one in value):
        return list(value)
    raise ConfigError(f"command is {value!r}; write a list of arguments, or one string")
