"""A published detector and a published classifier on photographs with none to fifty objects (90 MB are fetched).

The commands of docs/pipelines.md are run as they stand there. Then every box of every photograph is cut out by hand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.service.home import Home
from support.by_hand import ByHand, turned
from support.stack import shoal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = ROOT / "docs" / "pipelines.md"
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
LOOKED_AT = frozenset((*ANIMALS, "car", "bus", "train", "truck", "boat"))
CLOSER = ByHand(
    "closer", "coco", 0.25, 50, "efficientnet-lite0", 3, LOOKED_AT, padding=0.1, square=True, tolerance=0.005
)
ALL = ByHand("all", "coco", 0.1, 50, "efficientnet-lite0", 2, tolerance=0.005)
MORE = """\
  all:
    detect: {model: coco, score_threshold: 0.1, max_boxes: 50}
    then: [{model: efficientnet-lite0, top_k: 2}]
"""
COUNTS = {
    "meidumPyramid": (0, 0),
    "panda": (1, 1),
    "cow": (3, 4),
    "horse": (3, 5),
    "palaisdesPapes": (12, 20),
    "bison": (16, 26),
    "berlinCathedral": (14, 24),
}
"""How many boxes the pipeline of the chapter finds, from and to: engines round differently."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the repository's files in which the chapter's commands were run, in a fresh home."""
    root = tmp_path_factory.mktemp("reader")
    for name in ("examples", "samples"):
        (root / name).symlink_to(ROOT / name)
    (root / "pipelines.yaml").write_text((ROOT / "examples/pipelines/shoal.yaml").read_text() + MORE)
    section = CHAPTER.read_text().split("\n## A real one\n")[1].split("\n## ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=250)
    # One service for both tests: the chapter's, and a pipeline that keeps what is hardly seen.
    run(root, commands.replace("examples/pipelines/shoal.yaml", "pipelines.yaml"))
    yield root
    shoal(root / "home", "down")


def run(root: Path, commands: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SHOAL_HOME": str(root / "home"), "SHOAL_PORT": "0"}
    command = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
async def client(reader: Path) -> AsyncIterator[AsyncClient]:
    told = json.loads(Home(reader / "home").client.read_text())
    async with AsyncClient(told["target"], api_key=told["api_key"], timeout_seconds=60) as opened:
        yield opened


def photograph(reader: Path, name: str) -> bytes:
    return (reader / "photographs" / f"{name}.webp").read_bytes()


def test_the_chapters_commands_draw_every_photograph(reader: Path) -> None:
    for file in (reader / "photographs").iterdir():
        with Image.open(reader / "drawn" / f"{file.stem}.boxes.jpg") as drawn, Image.open(file) as picture:
            assert drawn.size == picture.size


@pytest.mark.parametrize("name", COUNTS)
async def test_each_box_is_told_as_if_it_had_been_cut_out_by_hand(client: AsyncClient, reader: Path, name: str) -> None:
    found = await CLOSER.holds(client, photograph(reader, name))
    least, most = COUNTS[name]
    assert least <= len(found.findings) <= most


async def test_fifty(client: AsyncClient, reader: Path) -> None:
    found = await ALL.holds(client, photograph(reader, "berlinCathedral"))
    assert len(found.findings) == 50


@pytest.mark.parametrize("name", ["horse", "berlinCathedral"])
async def test_a_picture_that_exif_turns(client: AsyncClient, reader: Path, name: str) -> None:
    content = turned(photograph(reader, name))
    found = await CLOSER.holds(client, content)
    assert found.findings


async def test_the_classifier_sees_closer_than_the_detector(client: AsyncClient, reader: Path) -> None:
    (panda,) = (await client.analyze(photograph(reader, "panda"), "closer")).findings
    assert panda.box.label == "bear"
    assert panda.of("efficientnet-lite0").classes[0].label == "giant panda"
    assert panda.of("efficientnet-lite0").classes[0].probability > 0.9
