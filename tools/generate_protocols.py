"""Generates the modules of proto/ and of the examples' protocols, or with --check says whether they are current."""

from __future__ import annotations

import filecmp
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import grpc_tools
from generated import ROOT, checking, tell_stale
from grpc_tools import protoc


@dataclass(frozen=True)
class Protocols:
    """A folder of protocols and where their modules go."""

    source: Path
    output: Path
    stubs: bool
    """Whether callers use grpcio's own stubs."""


ALL = (
    Protocols(ROOT / "proto", ROOT / "src", stubs=False),
    *(
        Protocols(folder, folder, stubs=True)
        for folder in sorted((ROOT / "examples").iterdir())
        if any(folder.glob("*.proto"))
    ),
)


def generate(protocols: Protocols, output: Path) -> list[Path]:
    """Writes the modules below ``output`` and returns their paths, relative to it."""
    sources = sorted(protocols.source.rglob("*.proto"))
    include = Path(grpc_tools.__file__).parent / "_proto"
    stubs = (f"--grpc_python_out={output}",) if protocols.stubs else ()
    status = protoc.main([
        "protoc", f"-I{protocols.source}", f"-I{include}", f"--python_out={output}", f"--pyi_out={output}", *stubs,
        *(str(source) for source in sources),
    ])  # fmt: skip
    if status != 0:
        sys.exit(status)
    return [path.relative_to(output) for path in sorted(output.rglob("*_pb2*.py*")) if path.suffix != ".pyc"]


def stale(protocols: Protocols) -> list[Path]:
    """The modules that differ from what the protocols give now."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        names = generate(protocols, fresh)
        _, differing, missing = filecmp.cmpfiles(fresh, protocols.output, names, shallow=False)
        return [protocols.output / name for name in (*differing, *missing)]


def main() -> None:
    """The command line."""
    if checking(__doc__):
        tell_stale((path for protocols in ALL for path in stale(protocols)), "proto")
        return
    for protocols in ALL:
        generate(protocols, protocols.output)


if __name__ == "__main__":
    main()
