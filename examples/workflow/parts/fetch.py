"""Fetch the newest source distribution of a package with pip: `fetch.py OUT PACKAGE`."""

import subprocess
import sys
from pathlib import Path

out, package = Path(sys.argv[1]), sys.argv[2]
where = out / "sdists" / package
where.mkdir(parents=True, exist_ok=True)
pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
subprocess.run([*pip, "--no-binary", package, "--dest", where, package], check=True)
print(*(path.name for path in where.iterdir()))
