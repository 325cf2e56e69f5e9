"""The commands of README and docs do what they say: each block marked with ``<!-- run -->`` is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.ports import free_port
from support.stack import shoal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]
_MARKED = re.compile(r"^<!-- run -->\n+```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")

BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(_MARKED.findall(page.read_text()), 1)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that the blocks share, as a reader's commands do; nothing runs in it afterwards."""
    root = tmp_path_factory.mktemp("reader") / "home"
    yield root
    shoal(root, "down")


_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")


def with_free_ports(block: str) -> str:
    """The block with a free port for each one that it names."""
    ports = {port: str(free_port()) for port in _PORT.findall(block)}
    return _PORT.sub(lambda found: ports[found[0]], block)


@pytest.mark.parametrize("block", BLOCKS)
def test_commands_work_as_written(block: str, home: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", with_free_ports(block)],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "SHOAL_HOME": str(home), "SHOAL_PORT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    if "coffee.jpg" in block:
        assert "espresso" in done.stdout


def test_the_readme_is_among_them() -> None:
    assert any("README" in str(block.id) for block in BLOCKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert not [link for link in _LINK.findall(text) if not (page.parent / link).exists()]
