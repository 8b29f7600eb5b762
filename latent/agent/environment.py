"""What a step finds in its environment: the agent's own, without its secrets; the controller's; the step's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from latent.agent.guard import MARK
from latent.agent.plan import PlannedStep
from latent.wire import FORK_SUPPORT_VARIABLE, INHERITED_FORK_SUPPORT

INHERITED = frozenset({"LATENT_INSTANCE"})
"""The variables of ours that steps get as the agent got them: by LATENT_INSTANCE an instance's processes are found and ended."""


SECRETS = frozenset({"WORKERPASS", "WOODPECKER_AGENT_SECRET"})
"""What an instance is told for agents of other kinds: the same token."""


def step_environment(environ: Mapping[str, str], planned: PlannedStep, folder: Path, mark: str) -> dict[str, str]:
    """``mark``: see `latent.agent.guard`. Nothing else whose name begins with LATENT_ is passed on: the token is among them."""
    env = {name: value for name, value in environ.items() if not name.startswith("LATENT_") and name not in SECRETS}
    if env.get(FORK_SUPPORT_VARIABLE) == "0" and INHERITED_FORK_SUPPORT is None:
        del env[FORK_SUPPORT_VARIABLE]
    env.update(planned.env)
    env.update(planned.step.env)
    env["CI_WORKSPACE"] = str(folder)
    env.update({name: environ[name] for name in INHERITED if name in environ})
    if mark:
        env[MARK] = mark
    return env
