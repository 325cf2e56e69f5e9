from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from shoal.errors import ConfigurationError
from shoal.modelstore.making.edit import with_batching
from shoal.modelstore.making.settle import settle
from shoal.modelstore.repository import read_model
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path

ANNOTATED = """# max_batch_size: 3 was too small
name: "m"
max_batch_size: 8  # as trained
dynamic_batching {
  # the sizes that the GPU likes
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
}
instance_group [
  { count: 2 kind: KIND_GPU gpus: [ 0 ] }  # two
]
parameters { key: "note" value { string_value: "max_batch_size: { 1" } }
"""


def test_only_the_values_change() -> None:
    assert with_batching(ANNOTATED, instances=3, batch=16) == (
        ANNOTATED.replace("max_batch_size: 8", "max_batch_size: 16")
        .replace("[ 4, 8 ]", "[16]")
        .replace("count: 2", "count: 3")
    )


@pytest.mark.parametrize(
    "text",
    [
        'name: "m"',
        'name: "m" instance_group { kind: KIND_CPU }',
        'max_batch_size: 2, instance_group: [ { count: 1, name: "}" } ];',
        "dynamic_batching { preferred_batch_size: 2 preferred_batch_size: 4 } max_batch_size: 4",
        "dynamic_batching { } instance_group [ { } ]",
    ],
)
def test_every_way_to_write_it_comes_to_the_same(text: str) -> None:
    found = text_format.Parse(with_batching(text, instances=3, batch=16), model_config_pb2.ModelConfig())
    assert (found.max_batch_size, found.instance_group[0].count, len(found.instance_group)) == (16, 3, 1)
    assert list(found.dynamic_batching.preferred_batch_size) == ([16] if "preferred" in text else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instance_group [ { count: 1 }, { count: 2 } ]", "several instance groups"),
        ("instance_group < count: 1 >", "can't be changed safely; set max_batch_size 16 and instance_group count 3"),
        ('name: "a" "b" instance_group { count: 1 }', "can't be changed safely"),
    ],
)
def test_what_can_not_be_changed_safely_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        with_batching(text, instances=3, batch=16)


def test_a_model_of_the_store_is_settled_in_one_step(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path)
    (tmp_path / "tiny" / "config.pbtxt").chmod(0o640)
    assert settle(tmp_path / "tiny", instances=5, batch=2).endswith("now instance_group count 5, max_batch_size 2")
    batching = read_model(tmp_path, "tiny").batching
    assert (batching.instance_count, batching.max_batch_size) == (5, 2)
    assert settle(tmp_path / "tiny", instances=5, batch=2).endswith("already")
    assert (tmp_path / "tiny" / "config.pbtxt").stat().st_mode & 0o777 == 0o640
    assert not list((tmp_path / "tiny").glob(".*"))
