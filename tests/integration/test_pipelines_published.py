"""Published models on photographs, from the package index (15 MB): lines of text, and which way up each is.

Lines are found by PP-OCRv4; a classifier of the same package says whether a line stands on its head.
Photographs with up to 50 objects: tests/system/test_pipeline_photographs.py.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.modelconfig.model import Resize, Task
from shoal.modelstore.making import ppocr
from shoal.modelstore.making.build import add_model
from shoal.modelstore.making.recipe import Recipe
from shoal.runtime.download import fetch, read_member
from support.by_hand import ByHand, turned
from support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from shoal.client import Analysis

ROOT = Path(__file__).resolve().parents[2]
PAGE, CAT, COFFEE = (ROOT / path for path in ("docs/images/page.jpg", "samples/chelsea.jpg", "samples/coffee.jpg"))
SERVICE = """\
pipelines:
  lines:
    detect: {model: pp-ocrv4-det, score_threshold: 0.75, max_boxes: 50}
    then: [{model: direction, top_k: 2}]
  squares:
    detect: {model: pp-ocrv4-det, score_threshold: 0.6, max_boxes: 5, padding: 0.25, square: true}
    then: [{model: direction, top_k: 1}]
"""
LINES = ByHand("lines", "pp-ocrv4-det", 0.75, 50, "direction", 2)
SQUARES = ByHand("squares", "pp-ocrv4-det", 0.6, 5, "direction", 1, padding=0.25, square=True)
_DIRECTION = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"


def add_direction(store: Path, cache: Path) -> None:
    """As RapidOCR feeds lines that are at least four times as wide as high; it pads shorter ones."""
    settings = Recipe(
        name="direction", task=Task.CLASSIFICATION, mean=(127.5,) * 3, std=(127.5,) * 3, channel_order="bgr",
        size=(48, 192), resize=Resize.STRETCH, head="probabilities", labels=("0", "180"),
    )  # fmt: skip
    graph = onnx.load_model_from_string(read_member(fetch(ppocr.WHEEL, cache), _DIRECTION))
    add_model(store, graph, settings)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root, cache = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("cache")

    def add_models(store: Path) -> None:
        add_model(store, *ppocr.prepare(cache))
        add_direction(store, cache)

    with running_stack(root, models=add_models, service=SERVICE) as stack:
        yield stack


@pytest.fixture
async def client(served: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.target, api_key=served.api_key, timeout_seconds=60) as opened:
        yield opened


def on_its_head(content: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).transpose(Image.Transpose.ROTATE_180).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def upright(found: Analysis) -> float:
    """The share of lines that stand on their feet."""
    return sum(finding.results[0].classes[0].label == "0" for finding in found.findings) / len(found.findings)


async def test_a_photograph_without_text_costs_the_detector_alone(client: AsyncClient) -> None:
    found = await LINES.holds(client, COFFEE.read_bytes())
    assert found.findings == ()
    assert [step.calls for step in found.steps] == [1, 0]


async def test_what_the_detector_takes_for_one_line(client: AsyncClient) -> None:
    found = await LINES.holds(client, CAT.read_bytes())
    assert len(found.findings) == 1, "a cat's whiskers"


@pytest.mark.parametrize("change", [bytes, turned], ids=["as it lies", "turned by EXIF"])
async def test_the_lines_of_a_page_stand_upright(client: AsyncClient, change: type[bytes]) -> None:
    found = await LINES.holds(client, change(PAGE.read_bytes()))
    assert len(found.findings) >= 8
    assert upright(found) >= 0.75


async def test_those_of_a_page_on_its_head_do_not(client: AsyncClient) -> None:
    found = await LINES.holds(client, on_its_head(PAGE.read_bytes()))
    assert len(found.findings) >= 3
    assert upright(found) <= 0.25


@pytest.mark.parametrize("change", [bytes, turned], ids=["as it lies", "turned by EXIF"])
async def test_padded_squares_are_cut_as_by_hand(client: AsyncClient, change: type[bytes]) -> None:
    found = await SQUARES.holds(client, change(PAGE.read_bytes()))
    assert len(found.findings) == SQUARES.max_boxes
