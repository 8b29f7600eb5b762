"""Which build would get the instance that is there already."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from latent.errors import PluginError
from latent.worker import CompatibleLatentWorkerMixin, Properties, Property, WorkerBuild, hooks
from tests.worker.kit import Idle, result_of


class Picky(CompatibleLatentWorkerMixin, Idle):
    async def renderWorkerProps(self, build: Any) -> Any:
        return await build.render(Property("image", default="base"))


def test_compatible_mixin() -> None:
    """An instance will do for the builds that would get the same one; while there is none, for all."""
    made = Picky("w1")

    def fits(image: str) -> bool:
        return bool(result_of(hooks.call(made.isCompatibleWithBuild, Properties({"image": image}))))

    assert made.builds_may_be_incompatible
    assert fits("a")
    assert result_of(hooks.call(made.renderWorkerPropsOnStart, WorkerBuild(1, "b", Properties({"image": "a"})))) == "a"
    assert (fits("a"), fits("b")) == (True, False)
    made.resetWorkerPropsOnStop()
    assert fits("b")


def test_while_it_is_rendered_it_fits_nobody() -> None:
    """What the instance is made from is not known yet, and nothing of the one before it counts."""
    made = Picky("w1")
    made.rememberWorkerProps("a")
    answer: Deferred[str] = Deferred()
    made.renderWorkerProps = lambda build: answer if isinstance(build, WorkerBuild) else "a"  # type: ignore[assignment]
    rendering = Deferred.fromCoroutine(made.renderWorkerPropsOnStart(WorkerBuild(1, "b", Properties({}))))
    assert not result_of(hooks.call(made.isCompatibleWithBuild, Properties({"image": "a"})))
    answer.callback("a")
    assert result_of(rendering) == "a"
    assert result_of(hooks.call(made.isCompatibleWithBuild, Properties({"image": "a"})))


def test_compatible_mixin_without_its_method() -> None:
    """A plugin that forgot renderWorkerProps is told so."""

    class Forgot(CompatibleLatentWorkerMixin, Idle):
        pass

    with pytest.raises(PluginError, match="has no renderWorkerProps"):
        result_of(hooks.call(Forgot("w1").renderWorkerPropsOnStart, None))
