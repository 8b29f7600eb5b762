"""Count the Python files of a package, and their lines: `count.py OUT PACKAGE`."""

import sys
from pathlib import Path

from sources import keep, python_files

out, package = Path(sys.argv[1]), sys.argv[2]
texts = [text for _, text in python_files(out, package)]
keep(out, "count", package, {"files": len(texts), "lines": sum(text.count("\n") for text in texts)})
