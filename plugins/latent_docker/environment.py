"""What is to be said of the variables that a container is started with."""

from __future__ import annotations

from collections.abc import Mapping

from latent.worker.variables import agent_variables, loopback_addresses

__all__ = ["agent_variables", "warnings"]


def warnings(variables: Mapping[str, str]) -> list[str]:
    """What is worth saying of a container that has a network of its own and is given these variables."""
    if addresses := loopback_addresses(variables):
        return [
            f"its agent is told to attach to {' and '.join(addresses)}, which in a container is the container itself: "
            "set masterFQDN, or 'advertise' in c['protocols'], or hostconfig={'network_mode': 'host'}"
        ]
    return []
