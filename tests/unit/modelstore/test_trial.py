"""`shoal model add` and `shoal model check` try a model as a worker does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.fault import FaultReport
from shoal.modelconfig.model import Task
from shoal.modelstore import repository, trial
from shoal.modelstore.check import check
from shoal.modelstore.making.build import add_model
from shoal.modelstore.making.recipe import Recipe
from shoal.modelstore.making.wrap import wrap
from shoal.triton.client import TritonClient
from support.fake_triton import fake_triton
from support.tiny_models import COLOURS, add_tiny_classifier, add_tiny_segmenter, classifier, model

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = Recipe(name="tiny", task=Task.CLASSIFICATION, labels=COLOURS, batching=BatchingSettings(max_batch_size=4))


def centred() -> onnx.ModelProto:
    """The tiny classifier, less the mean over the batch."""
    made = classifier()
    made.graph.node[-1].output[0] = "own"
    made.graph.node.append(helper.make_node("ReduceMean", ["own"], ["mean"], axes=[0], keepdims=1))
    made.graph.node.append(helper.make_node("Sub", ["own", "mean"], ["logits"]))
    return made


def softmaxed() -> onnx.ModelProto:
    """The tiny classifier with its softmax, in an operator that doesn't say so."""
    made = classifier()
    made.graph.node[-1].output[0] = "own"
    made.graph.node.append(helper.make_node("LogSoftmax", ["own"], ["logarithms"], axis=1))
    made.graph.node.append(helper.make_node("Exp", ["logarithms"], ["logits"]))
    return made


def foreign() -> onnx.ModelProto:
    """With an operator that OpenVINO doesn't know."""
    made = classifier()
    made.graph.node[-1].output[0] = "own"
    made.graph.node.append(helper.make_node("Riddle", ["own"], ["riddle"], domain="example.org"))
    made.graph.node.append(helper.make_node("Add", ["riddle", "own"], ["logits"]))
    made.opset_import.append(helper.make_opsetid("example.org", 1))
    return made


def put(store: Path, made: onnx.ModelProto) -> None:
    """In the place of the tiny classifier's file, past all that ``model add`` looks at."""
    path = add_tiny_classifier(store).path
    path.write_bytes(wrap(made, RECIPE).model.SerializeToString())


def told(store: Path, *, run: bool = True) -> list[str]:
    return [f"{fault.severity}: {fault}" for fault in check(store, "tiny", run=run)]


def test_a_good_model_has_no_fault(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    assert told(tmp_path) == []


def test_a_model_that_mixes_pictures(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^tiny/1/model\.onnx: works with one picture.*--max-batch-size 1$"):
        add_model(tmp_path, centred(), RECIPE)
    assert repository.names(tmp_path) == []
    put(tmp_path, centred())
    assert told(tmp_path, run=False) == []
    (fault,) = told(tmp_path)
    assert fault.startswith("note: ")
    assert "workers take batches of 1 alone" in fault
    alone = replace(RECIPE, name="alone", batching=BatchingSettings(max_batch_size=1))
    assert add_model(tmp_path, centred(), alone).batching.max_batch_size == 1
    assert check(tmp_path, "alone", run=True) == []


def test_a_model_whose_answers_are_no_logits(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="use head probabilities"):
        add_model(tmp_path, softmaxed(), RECIPE)
    put(tmp_path, softmaxed())
    assert told(tmp_path, run=False) == []
    (fault,) = told(tmp_path)
    assert fault.startswith("error: ")
    assert "use head probabilities" in fault


def test_a_model_that_another_engine_may_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = add_tiny_classifier(tmp_path).path
    proto = wrap(classifier(), RECIPE).model
    own, riddle = proto.graph.node[-1], foreign()
    own.output[0] = "own"
    proto.graph.node.extend(riddle.graph.node[-2:])
    proto.opset_import.append(riddle.opset_import[-1])
    path.write_bytes(proto.SerializeToString())
    (fault,) = told(tmp_path)
    assert fault.startswith("error: ")
    assert "can't be served with engine: openvino" in fault
    assert "Riddle" in fault
    assert "a pool with engine: triton may" in fault
    assert "not a model that OpenVINO can read" in trial.refuse(tmp_path / "tiny"), "but it may be added"


def test_a_segmenter_of_one_class_is_told_its_heads(tmp_path: Path) -> None:
    """As a U-Net's, with the task's usual head."""
    mean = helper.make_node("ReduceMean", ["input"], ["mask"], axes=[1], keepdims=1)
    unet = model([mean], 32, {}, {"mask": [1, 32, 32]})
    recipe = replace(RECIPE, task=Task.SEGMENTATION, labels=())
    with pytest.raises(ConfigurationError, match=r"One class is read by sigmoid \(logits\) or foreground"):
        add_model(tmp_path, unet, recipe)
    with pytest.raises(ConfigurationError, match="use head foreground"):
        add_model(tmp_path, unet, replace(recipe, head="sigmoid"))
    assert add_model(tmp_path, unet, replace(recipe, head="foreground")).head == "foreground"


def test_a_batch_that_takes_all_memory(tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path).path.parent.parent / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 4", "max_batch_size: 2147483647"))
    (fault,) = told(tmp_path, run=False)
    assert "max_batch_size: is 2,147,483,647, and one picture takes 3,072 bytes" in fault
    assert "so 349,525 is the most" in fault


def test_what_isnt_onnx_is_not_tried(tmp_path: Path) -> None:
    config = replace(add_tiny_classifier(tmp_path), path=tmp_path / "model.plan")
    assert trial.try_out(config) == trial.TrialOutcome(untried="it isn't ONNX")


async def test_it_may_be_called_from_a_loop(tmp_path: Path) -> None:
    assert trial.try_out(add_tiny_classifier(tmp_path)) == trial.TrialOutcome()


@pytest.mark.parametrize(("made", "severity", "expected"), [
    (classifier, "", ""),
    (centred, "note", "workers take batches of 1 alone"),
    (softmaxed, "error", "use head probabilities"),
])  # fmt: skip
async def test_a_model_at_a_triton(tmp_path: Path, made: object, severity: str, expected: str) -> None:
    assert callable(made)
    put(tmp_path, made())
    async with fake_triton(tmp_path) as (fake, url), TritonClient(url) as client:
        fake.load("tiny")
        running = fake.models["tiny"]
        report = FaultReport("tiny")
        await trial.through(client, tmp_path / "tiny", report)
        assert fake.models == {"tiny": running}, "it is used as it is"
        assert not fake.regions
    assert [fault.severity.value for fault in report.faults] == [severity] * bool(severity)
    assert expected in "".join(map(str, report.faults))


def test_a_segmenter_is_not_mistaken(tmp_path: Path) -> None:
    for stride, last in ((1, False), (2, True)):
        config = add_tiny_segmenter(tmp_path, f"s{stride}", stride=stride, channels_last=last)
        assert trial.try_out(config) == trial.TrialOutcome()


def test_pictures_that_a_plain_classifier_tells_apart() -> None:
    """What the trial shows is no blank: else nothing could be said of batches."""
    from shoal.engine.probe import pictures
    from support.pictures import config

    means = np.array([picture.mean(axis=(0, 1)) for picture in pictures(config(64, 64))])
    assert min(np.abs(means[one] - means[other]).max() for one, other in ((0, 1), (0, 2), (1, 2))) > 10
