"""Generates the protocol modules from proto/, or with --check says whether they are current."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
OUTPUT = ROOT / "src"


def generate(output: Path) -> list[Path]:
    """Writes the modules below ``output`` and returns their paths, relative to it."""
    sources = sorted(PROTO.rglob("*.proto"))
    include = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main([
        "protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={output}", f"--pyi_out={output}",
        *(str(source) for source in sources),
    ])  # fmt: skip
    if status != 0:
        sys.exit(status)
    return [path.relative_to(output) for path in sorted(output.rglob("*_pb2.py*"))]


def stale() -> list[Path]:
    """The modules that differ from what proto/ gives now."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        return [
            path
            for path in generate(fresh)
            if not (OUTPUT / path).is_file() or not filecmp.cmp(fresh / path, OUTPUT / path, shallow=False)
        ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a module is stale")
    if not parser.parse_args().check:
        generate(OUTPUT)
        return
    if paths := stale():
        sys.exit(f"stale: {', '.join(map(str, paths))}; run 'make proto'")


if __name__ == "__main__":
    main()
