from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError, NotFound
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Resize, ResizeFilter, Task, Tensor
from shoal.modelstore.repository import names, read_model, scan
from support.tiny_models import BATCHING, add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [3, 24, 32] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [4] } ]
parameters { key: "shoal.task" value { string_value: "classification" } }
"""


def write(store: Path, text: str, name: str = "m", versions: tuple[int, ...] = (1,)) -> None:
    (store / name).mkdir()
    for version in versions:
        (store / name / str(version)).mkdir(parents=True)
        (store / name / str(version) / "model.onnx").touch()
    (store / name / "config.pbtxt").write_text(text)


def parameter(key: str, value: str) -> str:
    return f'\nparameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def test_what_build_wrote_is_read_back(tmp_path: Path) -> None:
    model = add_tiny_classifier(tmp_path)
    assert model == read_model(tmp_path, "tiny")
    assert model.input == Tensor("image", "uint8", (32, 32, 3))
    assert model.outputs == (Tensor("logits", "float32", (4,)),)
    assert model.labels == ("red", "green", "blue", "grey")
    assert model.batching == BATCHING
    assert (model.height, model.width, model.channels_last) == (32, 32, True)


def test_a_plain_triton_repository_with_all_settings(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + """
    dynamic_batching {
      preferred_batch_size: [8, 4]
      max_queue_delay_microseconds: 100
      default_queue_policy { max_queue_size: 64 default_timeout_microseconds: 5000 }
    }
    instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_CPU } ]
    """
    )
    for key, value in {
        "shoal.resize": "crop", "shoal.resize_shorter_side": "36", "shoal.mean": "1, 2, 3", "shoal.std": "4",
        "shoal.head": "probabilities", "shoal.resize_filter": "bicubic",
    }.items():  # fmt: skip
        text += parameter(key, value)
    write(tmp_path, text)
    model = read_model(tmp_path, "m")
    assert model.batching == BatchingSettings(8, (4, 8), 100, 64, 5000, 3)
    assert (model.task, model.head) == (Task.CLASSIFICATION, "probabilities")
    assert (model.resize, model.resize_shorter_side) == (Resize.CROP, 36)
    assert model.resize_filter is ResizeFilter.BICUBIC
    assert (model.mean, model.std) == ((1.0, 2.0, 3.0), (4.0, 4.0, 4.0))
    assert (model.height, model.width, model.channels_last) == (24, 32, False)


def test_defaults(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL)
    model = read_model(tmp_path, "m")
    assert (model.head, model.resize, model.batching) == ("softmax", Resize.STRETCH, BatchingSettings(8))
    assert model.resize_filter is ResizeFilter.BILINEAR


@pytest.mark.parametrize("head", ["argmax", "class_map", "sigmoid", "foreground"])
def test_segmentation_has_its_heads(tmp_path: Path, head: str) -> None:
    text = MINIMAL.replace("classification", "segmentation")
    write(tmp_path, text if head == "argmax" else text + parameter("shoal.head", head))
    model = read_model(tmp_path, "m")
    assert (model.task, model.head) == (Task.SEGMENTATION, head)


def test_head_parameters_are_numbers(tmp_path: Path) -> None:
    text = MINIMAL.replace("classification", "detection") + parameter("shoal.head", "db")
    write(tmp_path, text + parameter("shoal.head.box_threshold", "0.5"))
    assert read_model(tmp_path, "m").head_parameters == {"box_threshold": 0.5}


@pytest.mark.parametrize(
    ("policy", "version"),
    [
        ("", 10),
        ("version_policy: { latest { num_versions: 1 } }", 10),
        ("version_policy: { specific { versions: [2, 1] } }", 2),
    ],
)
def test_the_highest_version_that_the_policy_allows(tmp_path: Path, policy: str, version: int) -> None:
    write(tmp_path, MINIMAL + policy, versions=(1, 2, 10))
    (tmp_path / "m" / "11").mkdir()  # without a model
    model = read_model(tmp_path, "m")
    assert model.version == version
    assert model.path == tmp_path / "m" / str(version) / "model.onnx"


def test_models_are_sorted_and_a_missing_store_is_empty(tmp_path: Path) -> None:
    add_tiny_detector(tmp_path, "zebra")
    add_tiny_classifier(tmp_path, "ant")
    assert list(scan(tmp_path)[0]) == ["ant", "zebra"]
    assert scan(tmp_path / "missing") == ({}, [])


def test_a_broken_model_hides_no_other(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / ".half-written").mkdir()
    (tmp_path / "README").touch()
    models, faults = scan(tmp_path)
    assert list(models) == ["tiny"]
    assert [fault.model for fault in faults] == ["broken"]
    assert names(tmp_path) == ["broken", "tiny"]


def test_an_unknown_model_is_not_found(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    with pytest.raises(NotFound, match="there: tiny"):
        read_model(tmp_path, "resnet")
    with pytest.raises(NotFound):
        read_model(tmp_path, "../" + tmp_path.name + "/tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_batch_size: 8", "max_batch_size: 0"), "max_batch_size: is 0"),
        (("[3, 24, 32]", "[3, -1, -1]"), "input.dims: .* varies"),
        (("[3, 24, 32]", "[3, 1000000000, 1000000000]"), "input.dims: .* is over 268,435,456 numbers a picture"),
        (("[3, 24, 32]", "[24, 32, 3]"), r"input.dims: .* expected \[3, height, width\]"),
        (("TYPE_FP32 dims: [3", "TYPE_INT64 dims: [3"), "input.data_type: int64"),
        (("TYPE_FP32 dims: [4", "TYPE_STRING dims: [4"), "output.data_type: TYPE_STRING of 'y'"),
        (("input [", "input [ { name: 'z' data_type: TYPE_FP32 dims: [3, 8, 8] },"), "input: has 2 entries"),
        (("classification", "classificaton"), r"shoal.task\"\]: 'classificaton' .* did you mean 'classification'"),
        (("shoal.task", "shoal.tsak"), r"shoal.tsak\"\]: unknown; did you mean 'shoal.task'"),
        (("max_batch_size", "name: 'other' max_batch_size"), "name: is 'other', but the folder is 'm'"),
        (("max_batch_size", "max_batchsize"), "config.pbtxt: line 2: .*max_batchsize"),
        (("max_batch_size", "version_policy { specific { versions: 7 } } max_batch_size"), "wants version 7;"),
        (("name: \"y\"", "name: 'y' label_filename: 'gone.txt'"), "gone.txt: missing"),
        (("name: \"y\"", "name: 'y' label_filename: '../../labels'"), "leaves the model's folder"),
        (("max_batch_size", "default_model_filename: '../../m' max_batch_size"), "default_model_filename: .* leaves"),
        (("max_batch_size", "default_model_filename: '/m.onnx' max_batch_size"), "default_model_filename: .* leaves"),
        (("parameters", parameter("shoal.model_filename", "../m") + " parameters"), r"model_filename\"\]: .* leaves"),
        (("max_batch_size", f"default_model_filename: '{'m' * 300}' max_batch_size"), "read: File name too long"),
    ],
)  # fmt: skip
def test_each_fault_names_file_and_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    write(tmp_path, MINIMAL.replace(*change, 1))
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_model(tmp_path, "m")
    assert str(tmp_path / "m") in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (parameter("shoal.resize", "crop"), "resize_shorter_side.* missing"),
        (parameter("shoal.resize", "crop") + parameter("shoal.resize_shorter_side", "31"), "is 31; .* 32 or more"),
        (parameter("shoal.resize", "zoom"), "'zoom' is unknown; known: crop, stretch, letterbox"),
        (parameter("shoal.resize_filter", "cubic"), "'cubic' is unknown; did you mean 'bicubic'"),
        (parameter("shoal.mean", "1 2"), "expected one number, or three"),
        (parameter("shoal.std", "1 0 1"), "must be positive"),
        (parameter("shoal.head", "db"), "'db' is unknown"),
        (parameter("shoal.head.box_threshold", "0.5"), "unknown"),
        (
            parameter("shoal.head", "db") + parameter("shoal.head.box_threshold", "50"),
            r"box_threshold\"\]: 50 is not in",
        ),
        ("dynamic_batching { preferred_batch_size: 9 }", "preferred_batch_size: .* max_batch_size"),
    ],
)
def test_faults_in_what_is_added(tmp_path: Path, extra: str, message: str) -> None:
    write(tmp_path, MINIMAL + extra)
    with pytest.raises(ConfigurationError, match=message):
        read_model(tmp_path, "m")


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL.replace("8", "0") + parameter("shoal.resize", "zoom"), versions=())
    with pytest.raises(ConfigurationError) as caught:
        read_model(tmp_path, "m")
    assert len(str(caught.value).splitlines()) == 3


def test_a_version_folder_must_be_a_number(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL)
    (tmp_path / "m" / "1").rename(tmp_path / "m" / "v1")
    with pytest.raises(ConfigurationError, match=r"v1/model\.onnx is there"):
        read_model(tmp_path, "m")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xef\xbb\xbfa\r\nb\r\nc\r\nd\r\n", ""),
        ("a\u2028b\nb\x85\nc\nd\n".encode(), ""),
        (b"gr\xfcn\n", "can't be read: not UTF-8 from byte 2"),
        (b"a\n" * 3_000_000, "is larger than 4,194,304 bytes"),
        (b"", "empty; write one label a line"),
    ],
)
def test_label_files_are_read_or_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    add_tiny_classifier(tmp_path)
    (tmp_path / "tiny" / "labels.txt").write_bytes(content)
    if reason:
        with pytest.raises(ConfigurationError, match=rf"labels\.txt: .*{reason}"):
            read_model(tmp_path, "tiny")
    else:
        assert len(read_model(tmp_path, "tiny").labels) == 4


def test_a_label_file_that_is_a_link_out_a_loop_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    labels = tmp_path / "tiny" / "labels.txt"
    for make in (
        lambda: labels.symlink_to("/etc/hostname"),
        lambda: labels.symlink_to("labels.txt"),
        lambda: os.mkfifo(labels),
    ):
        labels.unlink()
        make()
        with pytest.raises(ConfigurationError, match=r"leaves the model's folder|is a pipe"):
            read_model(tmp_path, "tiny")
