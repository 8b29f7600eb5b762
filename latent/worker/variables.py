"""The variables by which an instance's agent finds its controller, for plugins whose instances are machines of their own."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from latent.errors import LatentWorkerConfigurationError
from latent.worker.base import AbstractLatentWorker


def agent_variables(worker: AbstractLatentWorker, master: str | None, protocol: str) -> dict[str, str]:
    """Those of `latent-agent`, of a Woodpecker agent, of a bot if it has one, and those that Buildbot's own worker image reads.

    ``master``: the controller's name as instances reach it, and a port for Buildbot's protocol if it has one. Raises
    LatentWorkerConfigurationError when the controller speaks neither protocol.
    """
    servers = worker.enrolment.servers if worker.enrolment is not None else {}
    host, port = split_address(master) if master else ("", "")
    variables: dict[str, str] = {}
    if "peer" in servers:
        variables = {**worker.agent_environment(), **worker.woodpecker_environment()}
        if host:
            peer = f"{_bracketed(host)}:{split_address(servers['peer'])[1]}"
            variables |= {"LATENT_SERVER": peer, "WOODPECKER_SERVER": peer}
        variables["LATENT_CAPACITY"] = str(worker.max_builds)
        # gRPC's handlers around fork() kill children of programs that also start processes.
        variables["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    if worker.agent_is_bot:
        variables |= worker.bot_environment()
        if host:
            variables["LATENT_BOTS_SERVER"] = f"{_bracketed(host)}:{split_address(servers['bots'])[1]}"
    if protocol in servers:
        variables |= worker.buildbot_environment(protocol)
    elif not variables:
        raise LatentWorkerConfigurationError(
            f"no gateway listens for agents that speak {protocol}, nor for latent-agent; set c['protocols']"
        )
    elif master:
        # Another master, perhaps, that the image's agent is to go to: what was declared is told.
        variables |= {"BUILDMASTER_PROTOCOL": protocol, "WORKERNAME": worker.name, "WORKERPASS": worker.getRandomPass()}
    if master:
        variables["BUILDMASTER"] = host
    if port:
        variables["BUILDMASTER_PORT"] = port
    return variables


def loopback_addresses(variables: Mapping[str, str]) -> list[str]:
    """Where agents are told to attach to, if all of that is the machine that they are on themselves."""
    addresses = {split_address(variables[name])[0] for name in ("LATENT_SERVER", "LATENT_BOTS_SERVER") if name in variables}
    addresses |= {variables["BUILDMASTER"]} if "BUILDMASTER" in variables else set()
    return sorted(addresses) if all(_is_loopback(address) for address in addresses) else []


def split_address(address: str) -> tuple[str, str]:
    """(host, port) of "host", "host:port", "[::1]:port" or "::1"."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        return host.strip("[]"), port
    return address.strip("[]"), ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
