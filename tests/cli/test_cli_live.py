"""`latent checkconfig --live`: providers are asked, in a process of its own as that runs the reactor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
from latent.errors import LatentWorkerFailedToSubstantiate
from latent.plugins import worker
from latent.worker import AbstractLatentWorker

c = BuildmasterConfig = {}


class Cloud(AbstractLatentWorker):
    def checkConfig(self, name, password=None, image="good", **kwargs):
        super().checkConfig(name, password, **kwargs)

    async def reconfigService(self, name, password=None, image="good", **kwargs):
        self.image = image
        await super().reconfigService(name, password, **kwargs)

    def start_instance(self, build):
        pass

    def stop_instance(self, fast=False):
        pass

    async def check_live(self):
        assert self.reactor is not None and self.state_dir.is_dir() and self.enrolment is None
        print("asked")
        if self.image == "broken":
            raise LatentWorkerFailedToSubstantiate("AuthFailure: who are you; give other credentials")
        return [] if self.image == "good" else [f"there is no image {self.image}; make it", "and no key"]


c["workers"] = [
    Cloud("big-{n}", count=20, image=IMAGE),
    Cloud("other", image=IMAGE),
    Cloud("third", None, IMAGE),
    worker.ProcessLatentWorker("local"),
]
"""


def checked(tmp_path: Path, image: str, *words: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "master.cfg").write_text(CONFIG.replace("IMAGE", repr(image)))
    return subprocess.run(
        [sys.executable, "-m", "latent.cli", "-C", str(tmp_path), "checkconfig", *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_all_is_well(tmp_path: Path) -> None:
    """Workers that are declared alike are asked for once; those whose plugin can't ask are told."""
    done = checked(tmp_path, "good", "--live")
    assert (done.returncode, done.stderr) == (0, "")
    asked, told = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
    assert asked == ["asked"] * 2
    assert told.endswith(": 23 workers, 0 builders; 22 workers asked for at the provider, 1 can't be")


def test_mistakes_are_told(tmp_path: Path) -> None:
    """All of them, each with its workers; the exit code is that of a wrong configuration."""
    done = checked(tmp_path, "bad", "--live")
    assert done.returncode == 3
    assert "worker big-1 and 20 others like it: there is no image bad; make it" in done.stderr
    assert "worker third: and no key" in done.stderr


@pytest.mark.parametrize("live", [True, False])
def test_errors_are_mistakes(tmp_path: Path, live: bool) -> None:
    """A plugin that can't ask says why; without --live nobody is asked."""
    done = checked(tmp_path, "broken", "--json", *(["--live"] if live else []))
    doc = json.loads(done.stdout[done.stdout.index("{") :])
    assert done.returncode == (3 if live else 0)
    assert doc["ok"] is not live
    assert ("asked" in done.stdout) is live
    if live:
        assert "worker third: AuthFailure: who are you; give other credentials" in doc["errors"]
