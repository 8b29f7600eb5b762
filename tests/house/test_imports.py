"""The arrows between the rooms run one way (see `arrows.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.arrows import MAY_IMPORT, wrong_arrows

ROOT = Path(__file__).resolve().parents[2]


def test_no_arrow_runs_the_wrong_way() -> None:
    """No room imports one that is above or beside it, core is pure, and only cli knows the global reactor."""
    assert [str(wrong) for wrong in wrong_arrows(ROOT)] == []


def test_every_room_is_known() -> None:
    """A new room has to say what it may import."""
    rooms = {path.stem for path in (ROOT / "latent").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert rooms - {"__init__", "__pycache__"} <= set(MAY_IMPORT)


def test_there_is_no_circle() -> None:
    """What the rules allow is itself an order: no room may import one that may import it."""
    left = {room: set(allowed) for room, allowed in MAY_IMPORT.items()}
    while lowest := {room for room, allowed in left.items() if not allowed & set(left)}:
        left = {room: allowed for room, allowed in left.items() if room not in lowest}
    assert left == {}


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("latent/store/a.py", "from latent.controller.service import Controller", "store imports controller"),
        ("latent/store/a.py", "from latent import controller", "store imports controller"),
        ("latent/store/a.py", "import latent.controller.service", "store imports controller"),
        ("latent/store/a.py", "def f():\n    from latent.web import app", "store imports web"),
        ("latent/store/a.py", "if TYPE_CHECKING:\n    from latent.cli.main import main", "store imports cli"),
        ("latent/store/a.py", "import importlib\nimportlib.import_module('latent.web')", "store imports web"),
        ("latent/store/a.py", "from ..web import app", "store imports web"),
        ("latent/store/deep/a.py", "from ...web.app import app", "store imports web"),
        ("latent/model.py", "from latent.errors import LatentError", "model imports errors"),
        ("latent/errors.py", "from latent.core import states", "errors imports core"),
        ("latent/core/a.py", "from latent.worker.base import Worker", "core imports worker"),
        ("latent/worker/a.py", "from latent.plugins import worker", "worker imports plugins"),
        ("latent/plugins.py", "from latent.store.database import Store", "plugins imports store"),
        ("latent/config/a.py", "from latent.controller import roster", "config imports controller"),
        ("latent/controller/a.py", "from latent.swarm import state", "controller imports swarm"),
        ("latent/controller/a.py", "from latent.gateways.peer import gateway", "controller imports gateways"),
        ("latent/gateways/peer/a.py", "from latent.web import app", "gateways imports web"),
        ("latent/gateways/peer/a.py", "from latent.gateways.bots import server", "gateways/peer imports gateways/bots"),
        ("latent/web/a.py", "from latent.gateways.peer import gateway", "web imports gateways"),
        ("latent/web/a.py", "from latent.wire import peer_pb2", "web imports wire"),
        ("latent/testing/a.py", "from latent.cli import main", "testing imports cli"),
        ("latent/cli/a.py", "from latent.testing import agent", "cli imports testing"),
        ("latent/agent/a.py", "from latent.worker.hooks import call", "agent imports worker"),
        ("latent/agent/a.py", "from twisted.internet import defer", "agent/ imports twisted"),
        ("latent/wire/a.py", "from latent.model import Run", "wire imports model"),
        ("latent/__init__.py", "from latent.model import Run", "imports latent.model"),
        ("latent/attic/a.py", "from latent.model import Run", "attic is a room that"),
        ("latent/web/a.py", "from twisted.internet import reactor", "web imports the global reactor"),
        ("latent/web/a.py", "def f():\n    import twisted.internet.reactor as r", "web imports the global reactor"),
        ("latent/testing/a.py", "from twisted.internet import reactor", "testing imports the global reactor"),
        ("latent/core/a.py", "from twisted.internet.defer import Deferred", "core/ imports twisted"),
        ("latent/core/a.py", "import time", "core/ imports time"),
        ("latent/core/a.py", "from random import random", "core/ imports random"),
        ("latent/core/a.py", "import asyncio.subprocess", "core/ imports asyncio"),
        ("latent/core/a.py", "import os, socket", "core/ imports socket"),
        ("latent/core/a.py", "import datetime\ndatetime.datetime.now()", "core/ calls now()"),
        ("latent/core/a.py", "open('x')", "core/ calls open()"),
        ("plugins/latent_cloud/a.py", "from latent.controller.lifecycle import Lifecycle", "a plugin imports latent.controller"),
        ("plugins/latent_cloud/a.py", "from latent import store", "a plugin imports latent.store"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, text: str, expected: str) -> None:
    """Whatever form an import has, the wrong one is told with its file and line."""
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text + "\n")
    found = [str(wrong) for wrong in wrong_arrows(tmp_path)]
    last = len(text.splitlines())
    assert any(one.startswith(f"{path}:{last}: ") and expected in one for one in found), found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("latent/store/a.py", "from latent import __version__\nfrom latent.store.schema import runs\nimport time"),
        (
            "latent/cli/a.py",
            "from twisted.internet import reactor\nfrom latent.web import app\nfrom latent.gateways.peer import gateway",
        ),
        (
            "latent/controller/a.py",
            "from latent.config.loader import Config\nfrom twisted.internet.interfaces import IReactorTime",
        ),
        ("latent/gateways/peer/a.py", "from latent.gateways.peer.tokens import Tokens\nfrom latent.wire import peer_pb2"),
        ("latent/core/a.py", "from datetime import timedelta\nfrom latent.model import Run\nfrom latent.core import states"),
        ("latent/worker/a.py", "from latent.core.states import Policy"),
        ("latent/agent/a.py", "import asyncio, os\nfrom latent.wire import peer_pb2\nfrom latent.errors import LatentError"),
        ("plugins/latent_cloud/a.py", "from latent.worker.base import AbstractLatentWorker\nfrom latent import testing"),
    ],
)
def test_the_right_way_is_free(tmp_path: Path, path: str, text: str) -> None:
    """Nothing is said of an import that runs the right way."""
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text + "\n")
    assert wrong_arrows(tmp_path) == []
