"""Merge what was found to one page: `merge.py OUT`."""

import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
rows = []
for path in sorted((out / "count").glob("*.json")):
    counted, linted = json.loads(path.read_text()), json.loads((out / "lint" / path.name).read_text())
    rows.append((path.stem, counted["files"], counted["lines"], linted["long lines"], linted["bare excepts"], linted["not read"]))
total = ("all", *(sum(row[column] for row in rows) for column in range(1, 6)))
heading = ("package", "files", "lines", "long lines", "bare excepts", "not read")
lines = ["| " + " | ".join(map(str, row)) + " |" for row in (heading, ["---"] * 6, *rows, total)]
(out / "report.md").write_text("\n".join(lines) + "\n")
print(*lines, sep="\n")
