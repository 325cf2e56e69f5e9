from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.fault import FaultReport
from shoal.modelconfig.model import ModelConfig, Resize, ResizeFilter, Task, Tensor
from shoal.modelstore.making.build import add_model, add_onnx
from shoal.modelstore.making.recipe import Recipe
from shoal.modelstore.making.render import render
from shoal.modelstore.reader import inspect
from support.tiny_models import COLOURS, QUADRANTS, add_tiny_classifier, add_tiny_detector, classifier, detector

if TYPE_CHECKING:
    from pathlib import Path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recipe(**fields: Any) -> Recipe:
    return Recipe(**{"name": "m", "task": Task.CLASSIFICATION, "labels": COLOURS} | fields)


def test_the_tiny_classifier_names_the_dominant_colour(tmp_path: Path) -> None:
    model = add_tiny_classifier(tmp_path, classes=6)
    pictures = np.zeros((4, 32, 32, 3), np.uint8)
    for colour in range(3):
        pictures[colour, ..., colour] = 230
    pictures[3] = 128
    (logits,) = ReferenceEvaluator(onnx.load(model.path)).run(None, {"image": pictures})
    assert logits.shape == (4, 6)
    assert logits.argmax(1).tolist() == [0, 1, 2, 3]


def test_the_tiny_detector_scores_the_bright_quadrant(tmp_path: Path) -> None:
    model = add_tiny_detector(tmp_path)
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    pictures[1, :16, 16:] = 255
    boxes, scores = ReferenceEvaluator(onnx.load(model.path)).run(None, {"image": pictures})
    np.testing.assert_allclose(scores, [[0, 0, 0, 0], [0, 1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(boxes, [QUADRANTS, QUADRANTS])


def test_crop_gets_a_shorter_side_as_256_is_to_224(tmp_path: Path) -> None:
    model = add_tiny_classifier(tmp_path, size=28, resize=Resize.CROP)
    assert model.resize_shorter_side == 32


def test_nothing_is_overwritten_without_being_asked_to(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigurationError, match="--version N, or replace it with --force"):
        add_tiny_classifier(tmp_path, size=16)
    assert snapshot(tmp_path) == before


def test_force_replaces_all_versions(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path, "m")
    add_tiny_classifier(tmp_path, "m", version=2)
    model = add_model(tmp_path, classifier(16), recipe(), force=True)
    assert (model.version, model.height) == (1, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
    assert not (tmp_path / "m" / "2").exists()


def test_a_new_version_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    before = snapshot(tmp_path)
    assert add_tiny_classifier(tmp_path, version=3).version == 3
    after = snapshot(tmp_path)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"tiny/3/model.onnx"}
    with pytest.raises(ConfigurationError, match="3 exists"):
        add_tiny_classifier(tmp_path, version=3)


def test_a_new_version_must_fit_the_configuration(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    with pytest.raises(ConfigurationError, match="other tensors"):
        add_tiny_classifier(tmp_path, size=16, version=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "Not A Name"}, "can't be a model's name"),
        ({"labels": ("one",)}, "1 labels for 4 classes"),
        ({"head": "sotfmax"}, "did you mean 'softmax'"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"head_parameters": {"treshold": 1.0}}, "shoal.head.treshold.*unknown"),
        ({"task": Task.DETECTION}, "head boxes_scores reads"),
        ({"batching": BatchingSettings(2, (4,))}, "preferred_batch_size"),
    ],
)
def test_a_failure_leaves_the_store_as_it_was(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    add_tiny_detector(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        add_model(tmp_path, classifier(), recipe(**fields))
    assert snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-detector"]


def test_a_failed_swap_keeps_the_old_model(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path, "m")
    before = snapshot(tmp_path)
    with pytest.raises(ConfigurationError):
        add_model(tmp_path, classifier(), recipe(labels=("one",)), force=True)
    assert snapshot(tmp_path) == before


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file: can't be written"):
        add_tiny_classifier(tmp_path / "file")


def test_files(tmp_path: Path) -> None:
    onnx.save(detector(), tmp_path / "d.onnx")
    store = tmp_path / "deep" / "store"
    assert add_onnx(store, tmp_path / "d.onnx", recipe(task=Task.DETECTION, labels=("x",))).head == "boxes_scores"
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("gone.onnx", "text.onnx"):
        with pytest.raises(ConfigurationError, match=name):
            add_onnx(store, tmp_path / name, recipe())


LABEL = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
NUMBER = st.floats(0.001, 1000)
CONFIGS = st.builds(
    ModelConfig,
    name=st.just("m"),
    version=st.just(1),
    path=st.none(),
    task=st.just(Task.DETECTION),
    input=st.sampled_from([Tensor("image", "uint8", (32, 48, 3)), Tensor('in"put\\é', "float32", (3, 32, 48))]),
    outputs=st.just((Tensor("a", "float32", (-1, 4)), Tensor("b", "int64", (4,)))),
    batching=st.builds(
        BatchingSettings,
        max_batch_size=st.integers(8, 64),
        preferred_batch_size=st.sampled_from([(), (8,), (4, 8)]),
        max_queue_delay_microseconds=st.integers(0, 10**7),
        max_queue_size=st.integers(0, 1000),
        default_timeout_microseconds=st.integers(0, 10**7),
        instance_count=st.integers(1, 8),
    ),
    labels=st.lists(LABEL, max_size=3).map(tuple),
    resize=st.just(Resize.CROP),
    resize_shorter_side=st.integers(48, 500),
    resize_filter=st.sampled_from(ResizeFilter),
    head=st.just("db"),
    head_parameters=st.fixed_dictionaries({}, optional={"box_threshold": st.floats(0, 1), "unclip_ratio": NUMBER}),
)


@settings(max_examples=50)
@given(config=CONFIGS)
def test_config_pbtxt_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, config: ModelConfig
) -> None:
    folder = tmp_path_factory.mktemp("store") / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").touch()
    config = replace(config, path=folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(render(config), encoding="utf-8")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in config.labels), encoding="utf-8")
    report = FaultReport("m")
    assert inspect(folder, report) == config
    assert not report.faults
