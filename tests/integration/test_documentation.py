"""The commands of README and docs do what they say: each block marked with ``<!-- run -->`` is run.

A page's blocks are run in order, as a reader runs them. What a Python block prints is the block below it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.chart import helm
from support.ports import free_port
from support.stack import shoal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]
_MARK = re.compile(r"^<!-- run -->$", re.MULTILINE)
_SHELL = re.compile(r"\n+```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"\n+```python\n(.*?)^```\n+```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")
RUN = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if _MARK.search(page.read_text())]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that the pages share, as a reader's commands do; nothing runs in it afterwards."""
    root = tmp_path_factory.mktemp("reader") / "home"
    yield root
    shoal(root, "down")


def blocks(page: Path) -> Iterator[tuple[str, str | None]]:
    """What is marked: commands, or Python and what it prints."""
    for after in _MARK.split(page.read_text())[1:]:
        if python := _PYTHON.match(after):
            yield python[1], python[2]
        else:
            found = _SHELL.match(after)
            assert found, f"{page}: no block to run: {after[:100]}"
            yield found[1], None


def with_free_ports(block: str) -> str:
    """The block with a free port for each one that it names."""
    ports = {port: str(free_port()) for port in _PORT.findall(block)}
    return _PORT.sub(lambda found: ports[found[0]], block)


def run(home: Path, *command: str) -> str:
    """What a command prints that a reader gives, whose home is elsewhere than in ``.shoal``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SHOAL_HOME": str(home), "SHOAL_PORT": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", RUN)
def test_a_page_works_as_written(page: Path, home: Path) -> None:
    for block, printed in blocks(page):
        if printed is not None:
            output = run(home, sys.executable, "-c", block.replace('".shoal/', f'"{home}/'))
            assert sorted(output.splitlines()) == sorted(printed.splitlines()), "in the order in which they finish"
            continue
        commands = with_free_ports(block).replace('".shoal/', f'"{home}/')
        output = run(home, "bash", "-euo", "pipefail", "-c", commands)
        if "coffee.jpg" in block:
            assert "espresso" in output


def test_the_readme_is_among_them() -> None:
    readme = list(blocks(README))
    assert [printed for _, printed in readme if printed]
    assert "shoal up" in readme[0][0]


def test_the_readmes_helm_line_is_a_release() -> None:
    (line,) = re.findall(r"^helm install (.+)$", README.read_text(), re.MULTILINE)
    done = helm("template", *(ROOT / word if "/" in word else word for word in shlex.split(line)))
    assert "kind: Deployment" in done.stdout, done.stderr
