"""Write anew all that is generated from the code, or check that it is what the code would generate.

    python scripts/generated.py            writes
    python scripts/generated.py --check    writes nothing; exit code 1 when something differs

Each generator is a script of its own beside this one, called generate_*.py or draw_*.py, with the same option.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    drifted = []
    for script in sorted([*HERE.glob("generate_*.py"), *HERE.glob("draw_*.py")]):
        if subprocess.run([sys.executable, str(script), *arguments], check=False, cwd=HERE.parent).returncode != 0:
            drifted.append(script.name)
    if drifted:
        print(f"{', '.join(drifted)} failed; `make docs` writes anew what is generated, then commit it", file=sys.stderr)
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
