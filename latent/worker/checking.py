"""What can be said of a plugin's class before it is used."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

from latent.errors import PluginError

_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "start_instance": (("build",), {}),
    "stop_instance": ((True,), {}),
    "isCompatibleWithBuild": (("properties",), {}),
    "check_instance": ((), {}),
    "instance_handle": ((), {}),
    "resume_instance": (("handle",), {}),
    "list_instances": ((), {}),
    "destroy_instance": (("handle",), {}),
    "check_live": ((), {}),
    "provider_status": ((), {}),
}
"""How the controller calls each hook."""

_SHOULD_BE = {
    "start_instance": "start_instance(self, build)",
    "stop_instance": "stop_instance(self, fast=False)",
    "isCompatibleWithBuild": "isCompatibleWithBuild(self, build_props)",
    "resume_instance": "resume_instance(self, handle)",
    "destroy_instance": "destroy_instance(self, handle)",
}


def check_hooks(cls: type, base: type) -> None:
    """PluginError if a hook of ``cls`` is no function, can't take its arguments, or is missing: still the one of ``base``."""
    _check_hooks(cast(Any, cls), cast(Any, base))


@functools.cache
def _check_hooks(cls: Any, base: Any) -> None:
    name = f"{cls.__module__}.{cls.__qualname__}"
    for hook in ("start_instance", "stop_instance"):
        if getattr(cls, hook) is getattr(base, hook):
            raise PluginError(f"{name} has no {hook}; define {_SHOULD_BE[hook]}")
    for hook, (args, kwargs) in _CALLS.items():
        function = inspect.getattr_static(cls, hook)
        should = _SHOULD_BE.get(hook, f"{hook}(self)")
        if isinstance(function, property) or not callable(getattr(cls, hook)):
            raise PluginError(f"{name}.{hook} is not a method; define {should}")
        bound = not isinstance(function, staticmethod | classmethod)
        try:
            inspect.signature(getattr(cls, hook)).bind(*([None] if bound else []), *args, **kwargs)
        except TypeError as error:
            raise PluginError(f"{name}.{hook} can't be called as the controller does ({error}); define {should}") from None
        except ValueError:  # no signature to read: a builtin or a C function
            continue


def keywords_of(cls: type) -> frozenset[str]:
    """The keywords that a worker's class or its bases name."""
    return _keywords_of(cast(Any, cls))


@functools.cache
def _keywords_of(cls: Any) -> frozenset[str]:
    names: set[str] = set()
    for base in cls.__mro__[:-1]:
        names |= base.__dict__.get("keywords", frozenset())
        for method in ("checkConfig", "reconfigService"):
            function = base.__dict__.get(method)
            if not inspect.isfunction(function):
                continue
            for parameter in list(inspect.signature(function).parameters.values())[1:]:
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    names.add(parameter.name)
    return frozenset(names)


def raised_by(cls: type, hook: str, error: Exception) -> str:
    """What to say of an error that a plugin did not mean to raise."""
    where = f"{cls.__module__}.{cls.__qualname__}.{hook}"
    return f"{where} raised {type(error).__name__}: {error}; report it to whoever wrote the plugin"
