"""Containers, and the networks and volumes that go with them. Everything here blocks; see `latent_docker.daemon`.

Note [One attempt, one container]. A start that is repeated after a crash must not make a second container. The name is made from
the attempt alone and a daemon gives a name once: whoever comes second gets a conflict, looks at the labels, and adopts what is
there, or leaves a stranger's alone and takes the next name.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from attrs import frozen
from docker import APIClient
from docker.errors import APIError, NotFound

from latent.errors import LatentError, LatentWorkerConfigurationError
from latent.worker import ListedInstance
from latent_docker.identity import PROTECT, PROTECTED_NAME, Handle, Identity, filters, whose
from latent_docker.recipe import Recipe

LOG_LINES = 100
LOG_BYTES = 16_384
"""How much of a container's log goes into a message."""

REMOVAL = 60
"""Seconds that a container whose removal is under way has to be gone."""

ENDED_EXPIRY = 7200.0
"""Seconds after its end from which a container that nobody has removed may be removed by another controller."""

SETTLING = 100
PAUSE = 0.05
"""How often, and after how many seconds each time, a name is tried again whose container can't be seen yet or any more."""

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


class InstanceRemains(LatentError):
    """Something of an instance could not be removed; the message says what."""


@frozen
class Made:
    """A container that was made or adopted. ``found``: how it is; ``adopted``: it was there before this call."""

    id: str
    name: str
    volumes: tuple[str, ...]
    found: Found
    adopted: bool = False
    strangers: tuple[str, ...] = ()


@frozen
class Found:
    """How a container is. ``good``: it runs, and is not unhealthy. ``finished``: it has ended, and stays so."""

    good: bool
    message: str
    finished: bool = False


# --- making --------------------------------------------------------------------------------------------------------------------


def start(
    client: APIClient,
    identity: Identity,
    recipe: Recipe,
    image: str,
    environment: Mapping[str, str],
    init: bool,
    private_network: bool,
    begun: threading.Event,
) -> Made:
    """Make the container of an attempt and start it, or adopt the one that is there. One that can't be started is removed.

    ``begun`` is set once there is anything of it: what fails from then on may leave that behind.
    """
    strangers: list[str] = []
    create = partial(_create, client, identity, begun, recipe=recipe, image=image, environment=environment, init=init)
    for name in identity.names:
        for _ in range(SETTLING):
            there = inspect(client, name)
            if there is not None:
                begun.set()
                break
            try:
                made = create(name=name, private_network=private_network)
            except APIError as error:
                if error.status_code != 409 or "already in use" not in str(error.explanation):
                    _remove_networks(client, identity.labels)
                    raise
                # Whoever has the name is only just being made, or removed: neither can be looked at.
                threading.Event().wait(PAUSE)
            else:
                return _start(client, identity, made, adopted=False, strangers=tuple(strangers))
        if there is not None and identity.owns(there["Config"]["Labels"]):
            return _start(client, identity, there, adopted=True, strangers=tuple(strangers))
        strangers.append(name)
    taken = ", ".join(strangers)
    raise LatentWorkerConfigurationError(f"containers that are not ours have the names {taken}; rename them: docker rename")


def _create(
    client: APIClient,
    identity: Identity,
    begun: threading.Event,
    name: str,
    recipe: Recipe,
    image: str,
    environment: Mapping[str, str],
    init: bool,
    private_network: bool,
) -> dict[str, Any]:
    hostconfig = dict(recipe.hostconfig)
    if init and hostconfig.get("init") is None:
        hostconfig["init"] = True
    if private_network:
        hostconfig["network_mode"] = _network(client, identity, name)
        begun.set()
    binds = [volume for volume in recipe.volumes if ":" in volume]
    mounts = [
        {"Type": "volume", "Target": volume, "VolumeOptions": {"Labels": identity.labels}}
        for volume in recipe.volumes
        if ":" not in volume
    ]
    if mounts:
        hostconfig["mounts"] = [*(hostconfig.get("mounts") or ()), *mounts]
    created = client.create_container(
        image,
        recipe.command,
        name=name,
        hostname=recipe.hostname,
        environment=dict(environment),
        labels=identity.labels,
        host_config=client.create_host_config(**hostconfig, binds=binds or None),
    )
    begun.set()
    return {"Id": created["Id"], "Name": name, "State": {"Status": "created"}}


def _start(client: APIClient, identity: Identity, there: dict[str, Any], *, adopted: bool, strangers: tuple[str, ...]) -> Made:
    container = there["Id"]
    try:
        if there["State"]["Status"] == "created":
            client.start(container)
        document = client.inspect_container(container)
    except BaseException:
        # Whatever went wrong: nobody will hear of this container again.
        with contextlib.suppress(Exception):
            remove(client, identity.labels, container, (), grace=0)
        raise
    return Made(
        id=container,
        name=document["Name"].lstrip("/"),
        volumes=_anonymous(document),
        found=_judge(client, document),
        adopted=adopted,
        strangers=strangers,
    )


def _network(client: APIClient, identity: Identity, name: str) -> str:
    """The attempt's own network; a name may be given to networks twice, so it is looked for first."""
    for network in client.networks(filters=filters(identity.labels)):
        return str(network["Id"])
    return str(client.create_network(name, driver="bridge", labels=identity.labels)["Id"])


# --- looking -------------------------------------------------------------------------------------------------------------------


def inspect(client: APIClient, container: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = client.inspect_container(container)
    except NotFound:
        return None
    return document


def look(client: APIClient, container: str) -> Found:
    document = inspect(client, container)
    if document is None:
        return Found(False, f"container {container[:12]} is gone: it was removed, and not by the controller", finished=True)
    return _judge(client, document)


def resume(client: APIClient, handle: Handle) -> Found | None:
    """How the container of a handle is; None if it is gone, or is not the one that the handle means."""
    document = inspect(client, handle.container) if handle.container else None
    if document is None or not Identity(handle.controller_id, handle.attempt, "").owns(document["Config"]["Labels"]):
        return None
    return _judge(client, document)


def _judge(client: APIClient, document: Mapping[str, Any]) -> Found:
    state = document["State"]
    container = document["Id"]
    what = f"container {document['Name'].lstrip('/')}"
    if state["Status"] in ("exited", "dead", "removing"):
        return Found(False, f"{what} {_ending(state)}; {_log(client, container)}", finished=True)
    if state["Status"] == "paused":
        return Found(False, f"{what} is paused; docker unpause {container[:12]} lets it go on")
    if (state.get("Health") or {}).get("Status") == "unhealthy":
        return Found(False, f"{what} is unhealthy: {_last_check(state['Health'])}; {_log(client, container)}")
    if state.get("OOMKilled"):
        return Found(True, f"{what} runs, but a process in it was killed for want of memory")
    return Found(True, "")


def _ending(state: Mapping[str, Any]) -> str:
    if state.get("OOMKilled"):
        return f"was killed for want of memory (exit code {state.get('ExitCode')})"
    error = f": {state['Error']}" if state.get("Error") else ""
    return f"exited with code {state.get('ExitCode')}{error}"


def _last_check(health: Mapping[str, Any]) -> str:
    checks = health.get("Log") or []
    if not checks:
        return "its HEALTHCHECK failed"
    last = checks[-1]
    said = " | ".join(line.strip() for line in last.get("Output", "").splitlines() if line.strip())
    return f"its HEALTHCHECK failed {health.get('FailingStreak', 1)} times, the last with code {last.get('ExitCode')}: {said}"


def _log(client: APIClient, container: str) -> str:
    """The last lines that it wrote, for a message."""
    try:
        data: bytes = client.logs(container, tail=LOG_LINES)
    except (APIError, OSError) as error:
        return f"its log can't be read ({error})"
    text = data[-LOG_BYTES:].decode(errors="replace").rstrip("\n")
    return f"its last lines:\n{text}" if text.strip() else "it wrote nothing"


def log_since(client: APIClient, container: str, since: float) -> list[tuple[str, str]]:
    """(time, line) of what it wrote from then on; nothing once it is gone."""
    try:
        data: bytes = client.logs(container, timestamps=True, since=since or None)
    except NotFound:
        return []
    lines = data.decode(errors="replace").splitlines()
    return [(time, text) for time, _, text in (line.partition(" ") for line in lines)]


def _anonymous(document: Mapping[str, Any]) -> tuple[str, ...]:
    mounts = document.get("Mounts") or ()
    return tuple(m["Name"] for m in mounts if m.get("Type") == "volume" and _ANONYMOUS.fullmatch(m.get("Name", "")))


def find(client: APIClient, labels: Mapping[str, str]) -> list[str]:
    """The ids of all containers that have exactly these labels."""
    return [str(found["Id"]) for found in client.containers(all=True, filters=filters(labels))]


def listed(client: APIClient, host: str) -> list[ListedInstance]:
    """Everything that has our labels: a container, or what one left behind."""
    ours = {"label": "latent.controller"}
    things: dict[tuple[str, Any], ListedInstance] = {}

    def add(labels: Mapping[str, str] | None, title: str, created: float | None = None, container: str = "", **more: Any) -> None:
        key = whose(labels)
        if key is None:
            return
        known = things.get(key)
        if known is None or (container and not known.handle["container"]):
            handle = Handle(host, *key, container=container)
            things[key] = ListedInstance(key[1], handle.to_json(), key[0], created, title=f"{title} at {host}", **more)

    for found in client.containers(all=True, filters=ours):
        names = [str(name).removeprefix("/") for name in found.get("Names") or ()]
        protected = any(name.startswith(PROTECTED_NAME) for name in names) or PROTECT in (found.get("Labels") or {})
        expires = _expires(client, found)
        container, title = str(found["Id"]), f"container {' '.join(names) or found['Id'][:12]}"
        add(found.get("Labels"), title, float(found["Created"]), container, protected=protected, expires_at=expires)
    for network in client.networks(filters=ours):
        add(network.get("Labels"), f"network {network.get('Name', '')}")
    for volume in client.volumes(filters=ours).get("Volumes") or ():
        add(volume.get("Labels"), f"volume {volume.get('Name', '')}")
    return list(things.values())


def _expires(client: APIClient, found: Mapping[str, Any]) -> float | None:
    """When a container that has ended is anybody's to remove: its controller, if there is one, does that within seconds.

    Nothing at a container can be pushed forward while it runs; its agent ends by itself when no controller answers.
    """
    if found.get("State") not in ("exited", "dead"):
        return None
    seen = inspect(client, str(found["Id"]))
    try:
        ended = datetime.fromisoformat(str(seen["State"]["FinishedAt"])).timestamp() if seen else 0.0
    except (KeyError, ValueError):
        return None
    return ended + ENDED_EXPIRY if ended > 0 else None


# --- removing ------------------------------------------------------------------------------------------------------------------


def remove(client: APIClient, labels: Mapping[str, str], container: str, volumes: tuple[str, ...], grace: float) -> None:
    """Remove everything of an attempt; when this returns it is gone. What is gone already is no error.

    ``container``: the one that is known, if any. ``grace``: seconds from SIGTERM to SIGKILL; 0: SIGKILL at once.
    """
    known = inspect(client, container) if container else None
    ours = {container} if known is not None and _matches(known["Config"]["Labels"], labels) else set()
    for one in ours | set(find(client, labels)):
        document = known if known is not None and one == known["Id"] else inspect(client, one)
        if document is not None:
            volumes = (*volumes, *_anonymous(document))
            _remove_container(client, document, grace)
    for volume in client.volumes(filters=filters(labels)).get("Volumes") or ():
        volumes = (*volumes, volume["Name"])
    for name in dict.fromkeys(volumes):
        _remove_volume(client, name)
    _remove_networks(client, labels)


def _matches(given: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    return all((given or {}).get(name) == value for name, value in labels.items())


def _remove_container(client: APIClient, document: Mapping[str, Any], grace: float) -> None:
    container = document["Id"]
    with contextlib.suppress(NotFound):
        if grace and document["State"]["Status"] == "running":
            client.stop(container, timeout=max(1, round(grace)))
        try:
            client.remove_container(container, v=True, force=True)
        except APIError as error:
            if error.status_code != 409 or "in progress" not in str(error.explanation):
                raise
            client.wait(container, timeout=REMOVAL, condition="removed")
    if inspect(client, container) is not None:
        raise InstanceRemains(f"container {container[:12]} is still there after its removal; see docker inspect {container[:12]}")


def _remove_volume(client: APIClient, name: str) -> None:
    try:
        client.remove_volume(name)
    except NotFound:
        return
    except APIError as error:
        if error.status_code != 409:  # in use: another container has taken it over, and is not ours to touch
            raise


def _remove_networks(client: APIClient, labels: Mapping[str, str]) -> None:
    for network in client.networks(filters=filters(labels)):
        with contextlib.suppress(NotFound):
            client.remove_network(network["Id"])
