"""What a plugin's hooks may answer. The controller sends every answer through here; a wrong one is a PluginError.

Each function takes the worker and what its hook answered. Its error names the class, the hook and the remedy.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from latent.errors import LatentWorkerFailedToSubstantiate, PluginError
from latent.model import JSON, Attempt
from latent.worker.base import ListedInstance, ProviderStatus
from latent.worker.words import kind, shown

MOST_STRINGS = 100
"""How many strings of a success message are kept: the hook may be a generator without an end."""


def start_result(worker: object, result: Any) -> tuple[str, ...]:
    """start_instance: None (or True), or an iterable of short strings; False means that it failed."""
    remedy = "return None, or a list of short strings such as ['i-0abc', 'm7.large']"
    match result:
        case None | True:
            return ()
        case False:
            raise LatentWorkerFailedToSubstantiate(
                f"{_hook(worker, 'start_instance')} answered False: the instance did not start"
            )
        case str() | bytes() | Mapping():
            _wrong(worker, "start_instance", result, remedy)
    if not isinstance(result, Iterable):
        _wrong(worker, "start_instance", result, remedy)
    if inspect.isgenerator(result):
        remedy = "it is a generator: decorate it with twisted's inlineCallbacks, or make it async def and use await"
    strings = _items(worker, "start_instance", result, remedy, most=MOST_STRINGS)
    for item in strings:
        if not isinstance(item, str):
            _wrong(worker, "start_instance", result, remedy, f" with {kind(item)}, {shown(item)}, in it")
    return strings


def check_result(worker: object, result: Any) -> tuple[bool, str]:
    """check_instance: (is_good, message)."""
    if not isinstance(result, tuple | list) or len(result) != 2:
        _wrong(worker, "check_instance", result, "return a pair (is_good, message) such as (True, '')")
    good, message = result
    if not isinstance(good, bool):
        _wrong(worker, "check_instance", result, "make is_good True or False")
    if not isinstance(message, str):
        _wrong(worker, "check_instance", result, "make the message a string ('' if there is nothing to say)")
    return good, message


def compatible_result(worker: object, result: Any) -> bool:
    """isCompatibleWithBuild: a bool."""
    return _bool(worker, "isCompatibleWithBuild", result, "return True if the instance will do for the build, else False")


def resume_result(worker: object, result: Any) -> bool:
    """resume_instance: a bool."""
    return _bool(worker, "resume_instance", result, "return True if the instance is there and yours, else False")


def handle(worker: object, result: Any, hook: str = "instance_handle") -> JSON:
    """instance_handle: a JSON value, returned as it will be read back after a restart (tuples have become lists)."""
    remedy = "return what json.dumps takes: strings, numbers, booleans, None, lists, and dicts whose keys are strings"
    _json_keys(worker, hook, result, result, remedy)
    try:
        return json.loads(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        _wrong(worker, hook, result, remedy, f" ({error})")


def listed(worker: object, result: Any) -> tuple[ListedInstance, ...]:
    """list_instances: an iterable of ListedInstance, whose handles are JSON values."""
    remedy = "return a list of latent.worker.ListedInstance, [] if there is nothing"
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        _wrong(worker, "list_instances", result, remedy)
    found = []
    for item in _items(worker, "list_instances", result, remedy):
        if not isinstance(item, ListedInstance):
            _wrong(worker, "list_instances", result, remedy, f" with {kind(item)}, {shown(item)}, in it")
        _listed_fields(worker, item)
        found.append(item)
    return tuple(found)


def live_result(worker: object, result: Any) -> tuple[str, ...]:
    """check_live: an iterable of strings; None is none."""
    remedy = "return a list of mistakes, each 'what; remedy', [] if there are none"
    if result is None:
        return ()
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        _wrong(worker, "check_live", result, remedy)
    mistakes = _items(worker, "check_live", result, remedy, most=MOST_STRINGS)
    for item in mistakes:
        if not isinstance(item, str):
            _wrong(worker, "check_live", result, remedy, f" with {kind(item)}, {shown(item)}, in it")
    return mistakes


def provider_status(worker: object, result: Any) -> ProviderStatus | None:
    """provider_status: a ProviderStatus, or None."""
    if result is not None and not isinstance(result, ProviderStatus):
        _wrong(worker, "provider_status", result, "make it a plain method that returns a latent.worker.ProviderStatus, or None")
    return result


def _listed_fields(worker: object, item: ListedInstance) -> None:
    """What is decided by must be what it is taken for: a time in another unit or as a string would be a wrong decision."""
    for field, wanted in (
        ("attempt", Attempt),
        ("controller_id", str),
        ("created_at", int | float | None),
        ("expires_at", int | float | None),
        ("protected", bool),
        ("title", str),
    ):
        value = getattr(item, field)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            detail = f" whose {field} is {kind(value)}, {shown(value)}"
            _wrong(worker, "list_instances", item, f"make its {field} what ListedInstance says", detail)


def _bool(worker: object, hook: str, result: Any, remedy: str) -> bool:
    if not isinstance(result, bool):
        _wrong(worker, hook, result, remedy)
    return result


def _items(worker: object, hook: str, result: Iterable[Any], remedy: str, most: int | None = None) -> tuple[Any, ...]:
    try:
        return tuple(itertools.islice(result, most))
    except Exception as error:  # the iterable is the plugin's own code
        raise PluginError(f"{_hook(worker, hook)}: its answer raised {type(error).__name__}: {error}; {remedy}") from error


def _json_keys(worker: object, hook: str, whole: Any, value: Any, remedy: str, depth: int = 0) -> None:
    """json.dumps quietly turns the keys 1 and True into strings: what came back would not be what was given."""
    if depth > 50:
        _wrong(worker, hook, whole, remedy, " that nests more than 50 deep")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                _wrong(worker, hook, whole, remedy, f" with the key {shown(key)}")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _json_keys(worker, hook, whole, item, remedy, depth + 1)


def _hook(worker: object, hook: str) -> str:
    cls = type(worker)
    return f"{cls.__module__}.{cls.__qualname__}.{hook}"


def _wrong(worker: object, hook: str, result: Any, remedy: str, detail: str = "") -> NoReturn:
    raise PluginError(f"{_hook(worker, hook)} answered {kind(result)}, {shown(result)}{detail}; {remedy}")
