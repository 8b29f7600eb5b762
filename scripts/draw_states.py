"""Draw the diagram and the tables of `docs/states.md` from `latent.core.substantiation.step`.

    python scripts/draw_states.py            writes them
    python scripts/draw_states.py --check    writes nothing; exit code 1 when the page no longer says what the code does

What is drawn is what the exhaustive search of `tests/core/search.py` sees one worker do, so no arrow is there that can't happen.
In the page, everything between `<!-- drawn: NAME -->` and `<!-- end -->` is written by this script; the words around are not.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from latent.core import events as ev  # noqa: E402  (the repository is not installed where this runs)
from latent.core.states import NAMES, Timer  # noqa: E402
from tests.core.search import Search  # noqa: E402

PAGE = ROOT / "docs" / "states.md"
BLOCK = re.compile(r"(<!-- drawn: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Cells = dict[tuple[str, str], dict[str, set[str]]]
"""By state and event: the states that follow, each with the actions that may be asked for on the way."""

EVENTS = [kind.__name__ for kind in get_args(ev.Event) if kind is not ev.TimedOut]
ORDER = EVENTS + [f"{timer.value} deadline" for timer in Timer]
ACTIONS = [kind.__name__ for kind in get_args(ev.Action)]


def explore() -> Cells:
    """What `step` does in every state that the search reaches; events that change and ask for nothing are left out."""
    search = Search(olds=0)
    if broken := search.run():
        sys.exit(f"the machine breaks a promise; draw it when it is mended\n{broken}")
    cells: Cells = defaultdict(lambda: defaultdict(set))
    for (number, event), reaction in search.reactions.items():
        if reaction.state == number and not reaction.actions:
            continue
        before, after = NAMES[type(search.states[number])], NAMES[type(reaction.raw)]
        kind = f"{event.timer.value} deadline" if isinstance(event, ev.TimedOut) else type(event).__name__
        cells[before, kind][after] |= {type(action).__name__ for action in reaction.actions}
    return cells


def draw(cells: Cells) -> dict[str, str]:
    """The text of each block, by its name."""
    return {"diagram": _diagram(cells)} | {name: _table(cells, name) for name in NAMES.values()}


def _diagram(cells: Cells) -> str:
    labels: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in NAMES.values():
        for kind in ORDER:
            for after in cells.get((name, kind), {}):
                if after != name:
                    labels[name, after].append(kind)
    lines = ["```mermaid", "flowchart TB"]
    lines += [f"    {name}" for name in NAMES.values()]
    for (before, after), kinds in labels.items():
        lines.append(f'    {before} -- "{"<br/>".join(kinds)}" --> {after}')
    return "\n".join([*lines, "```"])


def _table(cells: Cells, name: str) -> str:
    lines = ["| event | leads to | and asks for (as the case may be) |", "|---|---|---|"]
    for kind in ORDER:
        for after in NAMES.values():
            if after in (found := cells.get((name, kind), {})):
                actions = [f"`{action}`" for action in ACTIONS if action in found[after]]
                lines.append(f"| {kind} | {'stays' if after == name else after} | {', '.join(actions)} |")
    return "\n".join(lines)


def fill(page: str, blocks: dict[str, str]) -> str:
    """The page with its blocks drawn anew. Exits when a block has no place in it, or a place no block."""
    places = [match[2] for match in BLOCK.finditer(page)]
    if sorted(places) != sorted(blocks):
        sys.exit(f"{PAGE.name} has places for {sorted(places)}, but there are {sorted(blocks)} to draw")
    return BLOCK.sub(lambda match: f"{match[1]}{blocks[match[2]]}\n{match[3]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the states of one worker into docs/states.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page differs from the code")
    options = parser.parse_args()
    page = PAGE.read_text()
    drawn = fill(page, draw(explore()))
    if options.check:
        sys.stdout.writelines(difflib.unified_diff(page.splitlines(True), drawn.splitlines(True), "docs/states.md", "the code"))
        return 1 if drawn != page else 0
    PAGE.write_text(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
