from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import helper

from shoal.errors import NotFound
from shoal.modelconfig.fault import Severity
from shoal.modelstore.check import check
from support.tiny_models import (
    add_tiny_classifier,
    add_tiny_detector,
    add_tiny_segmenter,
    add_tiny_yolo,
    classifier,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    add_tiny_classifier(tmp_path)
    return tmp_path / "tiny"


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "config.pbtxt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def faults(folder: Path) -> list[str]:
    return [f"{fault.severity}: {fault}" for fault in check(folder.parent, folder.name)]


def test_good_models_have_no_faults(tiny: Path) -> None:
    add_tiny_detector(tiny.parent)
    assert faults(tiny) == []
    assert faults(tiny.parent / "tiny-detector") == []
    add_tiny_segmenter(tiny.parent)
    assert faults(tiny.parent / "tiny-segmenter") == []
    add_tiny_segmenter(tiny.parent, "last", channels_last=True)
    assert faults(tiny.parent / "last") == []
    for head in ("yolov5", "yolov8"):
        add_tiny_yolo(tiny.parent, head, head=head)
        assert faults(tiny.parent / head) == []


def test_an_unknown_model(tiny: Path) -> None:
    with pytest.raises(NotFound):
        check(tiny.parent, "nope")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name: "image"', 'name: "imge"', "input.name: 'imge' is not in the graph; did you mean 'image'?"),
        ("dims: [32, 32, 3]", "dims: [16, 32, 3]", "input.dims: of 'image' are [16, 32, 3]; .* [32, 32, 3]"),
        ("dims: [4]", "dims: [5]", "output.dims: of 'logits' are [5]"),
        ("TYPE_FP32", "TYPE_FP16", "output.data_type: of 'logits' is float16; the graph's is float32"),
        ('name: "logits"', 'name: "scores"', "output.name: 'scores' is not in the graph"),
        ('"softmax"', '"sofmax"', "did you mean 'softmax'?"),
        ("max_batch_size: 4", "max_batch_size: 4 max_batch_size: 5", "line"),
    ],
)
def test_config_against_graph(tiny: Path, old: str, new: str, expected: str) -> None:
    edit(tiny, old, new)
    found = faults(tiny)
    assert all(line.startswith("error: ") and "config.pbtxt" in line for line in found)
    parts = expected.split(" .* ")
    assert any(all(part in line for part in parts) for line in found), found


def test_a_wrong_input_is_named_once(tiny: Path) -> None:
    edit(tiny, "TYPE_UINT8", "TYPE_INT8")
    assert len(faults(tiny)) == 1


def test_missing_files_are_named(tiny: Path) -> None:
    (tiny / "labels.txt").unlink()
    (tiny / "1" / "model.onnx").unlink()
    assert [line.partition(": ")[2] for line in faults(tiny)] == [
        f"{tiny / '1' / 'model.onnx'}: missing; a model is at <version>/model.onnx, such as 1/model.onnx",
        f"{tiny / 'labels.txt'}: missing; output.label_filename of config.pbtxt names it",
    ]
    (tiny / "config.pbtxt").unlink()
    assert "config.pbtxt: missing" in faults(tiny)[0]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100])
def test_an_unreadable_model(tiny: Path, content: bytes) -> None:
    (tiny / "1" / "model.onnx").write_bytes(content)
    (fault,) = check(tiny.parent, "tiny")
    assert fault.file == tiny / "1" / "model.onnx"
    assert "not a model that can be loaded" in fault.message


def test_labels(tiny: Path) -> None:
    (tiny / "labels.txt").write_text("a\nb\n")
    assert "output.label_filename: names 2 labels for 4 classes" in faults(tiny)[0]
    (tiny / "labels.txt").write_text("")
    assert "labels.txt: empty" in faults(tiny)[0]
    edit(tiny, ' label_filename: "labels.txt"', "")
    assert [fault.severity for fault in check(tiny.parent, "tiny")] == [Severity.NOTE]


def test_a_float_input_is_a_note_with_its_cost_and_the_way_out(tiny: Path) -> None:
    onnx.save(classifier(), tiny / "1" / "model.onnx")
    edit(
        tiny,
        'name: "image" data_type: TYPE_UINT8 dims: [32, 32, 3]',
        'name: "input" data_type: TYPE_FP32 dims: [3, 32, 32]',
    )
    (fault,) = check(tiny.parent, "tiny")
    assert fault.severity is Severity.NOTE
    assert "12,288 bytes a picture, uint8 3,072" in fault.message
    assert "--name tiny-uint8 --task classification --mean 0,0,0 --std 1,1,1" in fault.message


def test_a_fixed_batch(tiny: Path) -> None:
    model = onnx.load(tiny / "1" / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tiny / "1" / "model.onnx")
    assert "max_batch_size: is 4, but the graph's batch is fixed at 1" in faults(tiny)[0]


def test_a_head_must_find_its_outputs(tmp_path: Path) -> None:
    add_tiny_detector(tmp_path)
    edit(tmp_path / "tiny-detector", '"boxes_scores"', '"db"')
    assert "head db reads one output [1, height, width]" in faults(tmp_path / "tiny-detector")[0]


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        (
            "tiny-segmenter",
            '"argmax"',
            '"sigmoid"',
            "head sigmoid reads one output [height, width], [1, height, width]",
        ),
        ("tiny-segmenter", '"argmax"', '"class_map"', "head class_map reads one output [height, width], [1, height"),
        ("tiny-yolo", '"yolov8"', '"boxes_scores"', "head boxes_scores reads outputs boxes [n, 4] and scores [n]"),
        ("tiny-yolo", '"yolov8"', '"yolov5"', "names 3 labels for 27 classes"),
        ("tiny-detector", '"boxes_scores"', '"yolov5"', "head yolov5 reads one output [n, 5 + classes]"),
        ("last", '"1.0"', '"0"', "It takes --head-parameter channels_last=1"),
    ],
)
def test_outputs_that_a_head_does_not_read(tmp_path: Path, name: str, old: str, new: str, expected: str) -> None:
    add_tiny_segmenter(tmp_path)
    add_tiny_segmenter(tmp_path, "last", channels_last=True)
    add_tiny_yolo(tmp_path)
    add_tiny_detector(tmp_path)
    edit(tmp_path / name, old, new)
    (fault,) = check(tmp_path, name)
    assert fault.severity is Severity.ERROR
    assert expected in fault.message


def test_two_inputs_in_the_graph(tiny: Path) -> None:
    model = onnx.load(tiny / "1" / "model.onnx")
    model.graph.input.append(helper.make_tensor_value_info("mask", 1, [1]))
    onnx.save(model, tiny / "1" / "model.onnx")
    assert "image, mask" in faults(tiny)[0]
