"""Write the policy and the table of `docs/ec2-iam.md` from `latent_ec2.permissions`.

    python scripts/generate_ec2_policy.py            writes them
    python scripts/generate_ec2_policy.py --check    writes nothing; exit code 1 when the page no longer says what the code needs

In the page, everything between `<!-- drawn: NAME -->` and `<!-- end -->` is written by this script; the words around are not.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from latent_ec2.permissions import TABLE, policy  # noqa: E402  (the repository is not installed where this runs)

PAGE = ROOT / "docs" / "ec2-iam.md"
BLOCK = re.compile(r"(<!-- drawn: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def draw() -> dict[str, str]:
    """The text of each block, by its name."""
    return {"policy": f"```json\n{json.dumps(policy(), indent=2)}\n```\n", "table": _table()}


def _table() -> str:
    rows = ["| action | on | provided that | to | needed with |", "|---|---|---|---|---|"]
    for one in TABLE:
        on = ", ".join(one.on) or "(AWS does not tell apart)"
        only = "" if one.only is None else one.only.value
        rows.append(f"| `{one.action}` | {on} | {only} | {one.why} | {one.needs or 'always'} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the policy of docs/ec2-iam.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when the page is not up to date")
    check = parser.parse_args().check
    blocks = draw()
    text = PAGE.read_text()
    drawn = BLOCK.sub(lambda match: match[1] + blocks[match[2]] + match[3], text)
    if drawn == text:
        return 0
    if check:
        sys.stderr.writelines(difflib.unified_diff(text.splitlines(True), drawn.splitlines(True), "docs/ec2-iam.md", "generated"))
        return 1
    PAGE.write_text(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
