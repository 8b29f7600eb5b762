"""What the parts share: the Python files in a source distribution, and where their findings go."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def python_files(out: Path, package: str) -> Iterator[tuple[str, str]]:
    """Name and text of each."""
    (archive,) = (out / "sdists" / package).glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and member.name.endswith(".py") else None
            if content is not None:
                yield member.name, content.read().decode("utf-8", "replace")


def keep(out: Path, part: str, package: str, found: dict[str, Any]) -> None:
    """As a whole or not at all: a build may be killed, and done again."""
    path = out / part / f"{package}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(found))
    draft.replace(path)
    print(json.dumps(found))
