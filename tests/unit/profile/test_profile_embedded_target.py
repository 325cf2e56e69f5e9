from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from shoal.errors import ConfigurationError
from shoal.profile.embedded_target import EmbeddedTarget
from shoal.profile.inputs import decode, fill_randomly, fill_with
from shoal.profile.measure import measure
from shoal.profile.observer import Pace
from shoal.profile.records import Setting
from support.pictures import encode
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_tiny_model_is_measured_at_any_batch_size(tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path / "store")  # batches of 4
    target = EmbeddedTarget(config, fill_randomly, tmp_path / "cache", 16)
    work = [Setting(1, 16, 2), Setting(2, 1, 1)]
    found = [one async for one in measure(target, work, Pace(0.02, 0.05))]
    assert [one.setting for one in found] == work
    assert all(one.round.images_per_s > 0 and one.round.p99_ms > 0 for one in found)
    assert (target.instances, target.subject.engine) == (2, "openvino")
    assert target.subject.checksum.startswith("sha256:")


def test_pictures_fill_the_rows_in_turn(tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path / "store")
    for name, colour in (("a.png", 0), ("b.png", 255)):
        (tmp_path / name).write_bytes(encode(Image.new("RGB", (40, 40), (colour,) * 3), "PNG"))
    rows = np.full((5, 32, 32, 3), 7, np.uint8)
    fill_with(decode(config, [tmp_path / "a.png", tmp_path / "b.png"]))(rows)
    assert [int(row.mean()) for row in rows] == [0, 255, 0, 255, 0]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ConfigurationError, match=r"--images: .*a\.jpg"):
        decode(add_tiny_classifier(tmp_path / "store"), [tmp_path / "a.jpg"])


@pytest.mark.parametrize("kind", ["uint8", "float32", "float16", "int64", "bool"])
def test_every_number_can_be_made_up(kind: str) -> None:
    rows = np.zeros((2, 1000), kind)
    fill_randomly(rows)
    assert len(set(rows.ravel().tolist())) > 1
