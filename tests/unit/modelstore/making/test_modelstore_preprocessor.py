from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Resize
from shoal.modelstore.making import preprocessor

if TYPE_CHECKING:
    from pathlib import Path

VIT = {"do_resize": True, "size": {"height": 224, "width": 196}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
CLIP = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 200, "width": 220}}
CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875}


def found(tmp_path: Path, said: Any) -> preprocessor.Preprocessing:
    (tmp_path / preprocessor.FILE).write_text(json.dumps(said))
    read = preprocessor.find(tmp_path / "model.onnx")
    assert read is not None
    return read


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (VIT, {"size": (224, 196), "resize": Resize.STRETCH}),
        ({"size": 384}, {"size": (384, 384), "resize": Resize.STRETCH}),
        (CLIP, {"size": (200, 220), "resize": Resize.CROP, "resize_shorter_side": 224}),
        ({"size": 256, "do_center_crop": True, "crop_size": 224},
         {"size": (224, 224), "resize": Resize.CROP, "resize_shorter_side": 256}),
        (CONVNEXT, {"size": (224, 224), "resize": Resize.CROP, "resize_shorter_side": 256}),
        ({**CONVNEXT, "size": {"shortest_edge": 384}}, {"size": (384, 384), "resize": Resize.STRETCH}),
        ({"do_resize": False, "size": 5}, {}),
    ],
)  # fmt: skip
def test_sizes_are_read_as_image_processors_read_them(tmp_path: Path, said: Any, expected: dict[str, Any]) -> None:
    fields = found(tmp_path, said).fields
    assert {key: fields[key] for key in fields.keys() - {"mean", "std"}} == expected


@pytest.mark.parametrize(
    "said",
    [
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 127.5},
        {"image_mean": [100, 110, 120], "image_std": [2, 3, 4], "do_rescale": False},
        {"do_normalize": False, "image_mean": [9, 9, 9], "image_std": [9, 9, 9]},
    ],
)
def test_the_graph_gets_what_the_image_processor_would_give(tmp_path: Path, said: dict[str, Any]) -> None:
    fields = found(tmp_path, said).fields
    for pixel in (0, 17, 255):
        scaled = pixel * (said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1)
        means, stds = (said["image_mean"], said["image_std"]) if said.get("do_normalize", True) else ([0] * 3, [1] * 3)
        expected = [(scaled - mean) / std for mean, std in zip(means, stds, strict=True)]
        ours = [(pixel - mean) / std for mean, std in zip(fields["mean"], fields["std"], strict=True)]
        assert ours == pytest.approx(expected)


def test_what_cannot_be_done_the_same_is_named(tmp_path: Path) -> None:
    beit = found(tmp_path, {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224})
    assert (beit.fields["size"], "resize" in beit.fields, len(beit.left_out)) == ((224, 224), False, 1)
    detr = found(tmp_path, {"size": {"shortest_edge": 800, "longest_edge": 1333}})
    assert "size" not in detr.fields
    assert "--size" in detr.left_out[0]
    assert "mean" not in found(tmp_path, {"include_top": True, "image_mean": [0] * 3, "image_std": [1] * 3}).fields


def test_as_on_the_hub_it_lies_above_a_folder_named_onnx(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    assert preprocessor.find(tmp_path / "onnx" / "model.onnx") is None
    (tmp_path / preprocessor.FILE).write_text('{"size": 8}')
    read = preprocessor.find(tmp_path / "onnx" / "model.onnx")
    assert read is not None
    assert read.fields["size"] == (8, 8)
    (tmp_path / "other").mkdir()
    assert preprocessor.find(tmp_path / "other" / "model.onnx") is None


@pytest.mark.parametrize(
    "text", ["", "[]", '"x"', "{", '{"size": -1}', '{"size": {"height": 1e400, "width": 2}}', '{"rescale_factor": 0}',
             '{"image_mean": [1], "image_std": [1]}', '{"image_mean": "abc", "image_std": "abc"}', "[" * 100_000,
             '{"size": [1]}'],
)  # fmt: skip
def test_a_file_that_is_no_such_thing_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / preprocessor.FILE).write_text(text)
    with pytest.raises(ConfigurationError, match=r"preprocessor_config\.json: isn't an image processor's"):
        preprocessor.find(tmp_path / "model.onnx")
