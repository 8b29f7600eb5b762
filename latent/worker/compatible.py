"""For plugins whose instances differ with the build: which build would get the instance that is already there?"""

from __future__ import annotations

from typing import Any

from latent.errors import PluginError
from latent.worker import hooks

_NOT_KNOWN = object()
"""What an instance is made from while that is being rendered."""


class CompatibleLatentWorkerMixin:
    """Remembers what the instance was made from and compares. Stands before the worker's class among the bases.

    The plugin defines `renderWorkerProps`, calls `renderWorkerPropsOnStart` in start_instance, before anything that it waits for,
    and `resetWorkerPropsOnStop` in stop_instance. One that resumes instances keeps the value in its handle and gives it to
    `rememberWorkerProps`.
    """

    builds_may_be_incompatible = True
    __made_from: Any = None
    __is_made = False

    def renderWorkerProps(self, build: Any) -> Any:
        """Everything that depends on the build, rendered, as one value that can be compared; a value, a Deferred or async."""
        raise PluginError(
            f"{type(self).__module__}.{type(self).__qualname__} has no renderWorkerProps; define renderWorkerProps(self, build)"
        )

    async def renderWorkerPropsOnStart(self, build: Any) -> Any:
        """`renderWorkerProps` for the build that the instance is made for, remembered until it stops."""
        self.rememberWorkerProps(_NOT_KNOWN)
        made_from = await hooks.call(self.renderWorkerProps, build)
        self.rememberWorkerProps(made_from)
        return made_from

    def rememberWorkerProps(self, made_from: Any) -> None:
        self.__made_from = made_from
        self.__is_made = True

    def resetWorkerPropsOnStop(self) -> None:
        self.__made_from = None
        self.__is_made = False

    async def isCompatibleWithBuild(self, build_props: Any) -> bool:
        """True while there is no instance: it will be made for the build. False while what it is made from is being rendered."""
        if not self.__is_made:
            return True
        return bool(await hooks.call(self.renderWorkerProps, build_props) == self.__made_from)
