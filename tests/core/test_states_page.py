"""docs/states.md is drawn from the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "draw_states.py"


def test_the_page_says_what_the_code_does() -> None:
    """The check that CI runs passes; the difference is printed when it does not."""
    check = subprocess.run([sys.executable, str(SCRIPT), "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert check.returncode == 0, f"run python scripts/draw_states.py\n{check.stdout}{check.stderr}"
