"""Make the protobuf code of `latent/wire` from its .proto files.

    python scripts/generate_wire.py            writes it
    python scripts/generate_wire.py --check    writes nothing; exit code 1 when what is committed differs

Needs grpcio-tools 1.71, whose code runs with every later grpcio and with protobuf 5.29 and later.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = "latent/wire/peer.proto"
BOTS = tuple(f"latent/wire/{name}.proto" for name in ("bots", "execution", "semver", "status"))
"""Messages that other packages may have under the same names: their descriptors go into `latent.wire.pool`."""

DEFAULT_POOL = "_descriptor_pool.Default()"
IMPORT_POOL = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
TOOLS = "1.71."
STUB_HEADER = '# mypy: disable-error-code="type-arg"\n'
"""protoc's stubs write a bare Mapping, which mypy --strict takes amiss."""


def generate(target: Path) -> dict[str, str]:
    """What protoc makes of the .proto files in the folder ``target``: path relative to the repository -> text."""
    from grpc_tools import protoc

    well_known = Path(protoc.__file__).parent / "_proto"
    # With the repository as the only search path, the imports in the generated code are absolute (latent.wire.peer_pb2).
    common = ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={target}", f"--pyi_out={target}"]
    for arguments in ([*common, f"--grpc_python_out={target}", PEER], [*common, *BOTS]):
        if protoc.main(arguments) != 0:
            sys.exit("protoc refused a .proto file; its message is above")
    made = {path.relative_to(target).as_posix(): path.read_text() for path in sorted(target.rglob("*_pb2*.py*"))}
    return {name: _adapted(name, text) for name, text in made.items()}


def _adapted(name: str, text: str) -> str:
    if name.endswith(".pyi"):
        return STUB_HEADER + text
    if name.replace("_pb2.py", ".proto") not in BOTS:
        return text
    if text.count(DEFAULT_POOL) != 1 or text.count(IMPORT_POOL) != 1:
        sys.exit(f"{name} is not generated as it was: see how it gets its pool")
    return text.replace(IMPORT_POOL, "from latent.wire.pool import POOL\n").replace(DEFAULT_POOL, "POOL")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the protobuf code of latent/wire.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the committed code differs")
    options = parser.parse_args()
    try:
        version = importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        sys.exit("grpcio-tools is not installed; pip install 'latent[dev]'")
    if not version.startswith(TOOLS):
        sys.exit(f"grpcio-tools {version} is installed, {TOOLS}x is needed; pip install 'grpcio-tools=={TOOLS}*'")
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder))
    drift = 0
    for name, text in made.items():
        path = ROOT / name
        old = path.read_text() if path.exists() else ""
        if old == text:
            continue
        drift = 1
        if options.check:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), text.splitlines(True), name, f"{name} (generated)"))
        else:
            path.write_text(text)
            print(f"wrote {name}")
    return drift if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
