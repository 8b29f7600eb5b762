"""Look for what a linter would say of a package's Python files: `lint.py OUT PACKAGE`."""

import ast
import sys
import warnings
from collections import Counter
from pathlib import Path

from sources import keep, python_files

LONGEST = 120

out, package = Path(sys.argv[1]), sys.argv[2]
found: Counter[str] = Counter({"long lines": 0, "bare excepts": 0, "not read": 0})
warnings.simplefilter("ignore")
for name, text in python_files(out, package):
    found["long lines"] += sum(len(line) > LONGEST for line in text.splitlines())
    try:
        tree = ast.parse(text, name)
    except (SyntaxError, ValueError):  # test data, or Python 2
        found["not read"] += 1
        continue
    found["bare excepts"] += sum(isinstance(node, ast.ExceptHandler) and node.type is None for node in ast.walk(tree))
keep(out, "lint", package, dict(found))
