"""Models that decode on their device: what their config.pbtxt says, and what the rest of Shoal makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format

from shoal.errors import ConfigurationError
from shoal.modelconfig import encoded, pbtxt
from shoal.modelconfig.model import Tensor
from shoal.modelstore.making.edit import with_batching
from shoal.modelstore.repository import read_model
from shoal.profile.triton_target import with_instances
from shoal.triton.steer import original, steered

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 'input { name: "encoded_rows" data_type: TYPE_UINT8 dims: [-1] optional: true }\n'
REPORT = 'output { name: "row_report" data_type: TYPE_INT32 dims: [4] }\n'
LANES = 'parameters { key: "shoal.lanes" value { string_value: "4" } }\n'
PLAIN = """backend: "python"
max_batch_size: 64
input { name: "image" data_type: TYPE_UINT8 dims: [32, 32, 3] optional: true }
output { name: "logits" data_type: TYPE_FP32 dims: [4] }
instance_group { kind: KIND_GPU count: 1 }
parameters { key: "shoal.task" value { string_value: "classification" } }
"""


def read(store: Path, text: str) -> Any:
    (store / "m" / "1").mkdir(parents=True)
    (store / "m" / "1" / "model.py").touch()
    (store / "m" / "config.pbtxt").write_text(text)
    return read_model(store, "m")


def test_the_two_tensors_are_no_picture_and_no_answer(tmp_path: Path) -> None:
    model = read(tmp_path, PLAIN + ROWS + REPORT + LANES)
    assert model.encoded
    assert model.input == Tensor("image", "uint8", (32, 32, 3))
    assert model.outputs == (Tensor("logits", "float32", (4,)),)
    assert model.batching.instance_count == 4


def test_an_older_configuration_is_as_before(tmp_path: Path) -> None:
    model = read(tmp_path, PLAIN)
    assert (model.encoded, model.batching.instance_count) == (False, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN + ROWS, "has no row_report TYPE_INT32 .4.; encoded_rows needs it"),
        (PLAIN + ROWS + REPORT.replace("[4]", "[5]"), "has no row_report"),
        (PLAIN + ROWS.replace("[-1]", "[9]") + REPORT, "has 2 entries; Shoal feeds one"),
        (PLAIN + ROWS.replace(" optional: true", "") + REPORT, "has 2 entries; Shoal feeds one"),
        (PLAIN + ROWS.replace("encoded_rows", "prompt") + REPORT, "has 2 entries; Shoal feeds one"),
        (PLAIN + ROWS.replace("encoded_rows", "prompt") + ROWS + REPORT, "has 2 entries; Shoal feeds one"),
        (PLAIN + ROWS + REPORT + LANES.replace('"4"', '"0"'), "'0': expected a whole number from 1"),
        (PLAIN + ROWS + REPORT + LANES.replace('"4"', '"four"'), "'four': expected a whole number from 1"),
    ],
)
def test_what_is_not_quite_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path, text)


def test_a_report_alone_is_an_answer_like_others(tmp_path: Path) -> None:
    assert [each.name for each in read(tmp_path, PLAIN + REPORT).outputs] == ["logits", "row_report"]
    assert [each.name for each in encoded.answers(pbtxt.parse(PLAIN + REPORT))] == ["logits", "row_report"]


def test_other_numbers_of_batches_at_once_are_lanes(tmp_path: Path) -> None:
    settings = read(tmp_path, PLAIN + ROWS + REPORT + LANES).batching
    config = pbtxt.parse(PLAIN + ROWS + REPORT + LANES)
    same = json_format.Parse(steered(config, settings), type(config)())
    assert (pbtxt.instances(same), pbtxt.lanes(same), same.instance_group[0].count) == (4, 4, 1)
    pbtxt.set_instances(same, 6)
    assert (pbtxt.instances(same), pbtxt.lanes(same), same.instance_group[0].count) == (6, 6, 1)
    assert original(same) == config
    assert pbtxt.lanes(with_instances(config, 2)) == 2


def test_lanes_are_of_each_gpu() -> None:
    config = pbtxt.parse(PLAIN.replace("count: 1", "count: 1 gpus: [0, 1]") + LANES)
    assert pbtxt.instances(config) == 8
    pbtxt.set_instances(config, 4)
    assert pbtxt.lanes(config) == 2


def test_lanes_are_not_taken_for_instances_when_a_setting_is_written() -> None:
    with pytest.raises(ConfigurationError, match=r"set max_batch_size 8 and shoal\.lanes 3 by hand"):
        with_batching(PLAIN + LANES, instances=3, batch=8)
