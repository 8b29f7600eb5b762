"""What is checked of a declaration when it is written down: options by themselves, and those that need or exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from latent.errors import ConfigError
from latent.worker import AbstractLatentWorker, values
from latent.worker.properties import holds_renderable
from latent.worker.words import shown
from latent_ec2 import credentials, enrolment, options
from latent_ec2.recipe import RENDERED, check, conflicts
from latent_ec2.userdata import UserData

PROTOCOLS = ("pb", "msgpack_experimental_v7")

LEAST_EXPIRY = 600.0
"""Seconds: it is pushed forward when half of it is over, which may take some tries."""

STAND_IN = {"LATENT_SERVER": "controller.example.org:9989", "BUILDMASTER": "controller.example.org", "BUILDMASTER_PORT": "9989"}
TOKEN = "t" * 43
"""In place of what is not known yet, when the size of user data is checked."""


def check_all(worker: AbstractLatentWorker, given: Mapping[str, Any]) -> None:
    """Report everything that is wrong with the options, by name."""
    note = partial(_noted, worker)
    note(lambda: credentials.account(**{option: given[option] for option in credentials.OPTIONS}))
    _rendered(worker, given)
    _markets_and_modes(worker, given)
    _plain(worker, given)
    _user_data(worker, given)


def _noted(worker: AbstractLatentWorker, check: Callable[[], Any]) -> Any:
    """What the check answers; None after it was reported what is wrong."""
    try:
        return check()
    except ConfigError as error:
        for message in error.errors:
            worker.config_error(message)
        return None


def _rendered(worker: AbstractLatentWorker, given: Mapping[str, Any]) -> None:
    region = given["region"] or getattr(given["session"], "region_name", None)
    region = region if isinstance(region, str) else None
    seen = dict(given)
    for option in RENDERED:
        if not holds_renderable(given[option]):
            seen[option] = _noted(worker, partial(check, option, given[option], region)) or given[option]
    for message in conflicts(seen):
        worker.config_error(message)


def _markets_and_modes(worker: AbstractLatentWorker, given: Mapping[str, Any]) -> None:
    spot, fallback, mode = given["spot_instance"], given["spot_fallback"], given["stop_mode"]
    if mode not in options.STOP_MODES:
        worker.config_error(f"stop_mode is {shown(mode)}; write one of {', '.join(map(repr, options.STOP_MODES))}")
    elif mode != "terminate" and spot is not False:
        worker.config_error(f"stop_mode={mode!r} excludes spot_instance, as spot instances can't be kept; take one of them out")
    elif mode != "terminate" and given["enrolment"] == "script":
        worker.config_error(
            f"stop_mode={mode!r} needs enrolment='cloud-init': by itself a script is run at an instance's first boot only"
        )
    if fallback is not True and fallback is not False:
        worker.config_error(f"spot_fallback is {shown(fallback)}; write True or False")
    elif fallback and spot is False:
        worker.config_error("spot_fallback does nothing without spot_instance=True; write that, too")


def _plain(worker: AbstractLatentWorker, given: Mapping[str, Any]) -> None:
    if given["enrolment"] not in options.ENROLMENTS:
        worker.config_error(f"enrolment is {shown(given['enrolment'])}; write 'cloud-init', 'script' or None")
    if given["master_protocol"] not in PROTOCOLS:
        told = ", ".join(map(repr, PROTOCOLS))
        worker.config_error(f"master_protocol is {shown(given['master_protocol'])}; write one of {told}")
    if given["masterFQDN"] is not None:
        _noted(worker, partial(values.text, "masterFQDN", given["masterFQDN"]))
    for option in ("spot_timeout", "keep_stopped", "expiry"):
        if given[option] is not None:
            least = LEAST_EXPIRY if option == "expiry" else None
            _noted(worker, partial(values.seconds, option, given[option], least=least))
    _noted(worker, partial(options.metadata_options, given["metadata_options"]))
    _noted(worker, partial(enrolment.command_line, given["agent_command"]))


def _user_data(worker: AbstractLatentWorker, given: Mapping[str, Any]) -> None:
    """How large they are, where no build decides it: a mistake that would else be found at the first start."""
    if given["enrolment"] not in options.ENROLMENTS:
        return
    text = given["user_data"]
    try:
        composed = UserData(
            text=None if holds_renderable(text) else options.user_data(text),
            how=given["enrolment"],
            variables=STAND_IN,
            command=enrolment.command_line(given["agent_command"]),
            spot=given["spot_instance"] is not False,
            stop_mode=given["stop_mode"],
        )
    except ConfigError:
        return  # that has been told
    if problem := _noted(worker, partial(composed.problem, [(str(given["name"]), 1, TOKEN)])):
        worker.config_error(problem)
