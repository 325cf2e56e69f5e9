from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as v2

from shoal.engine.limits import JPEG_BYTES as ROW_BYTES
from shoal.engine.limits import LARGE_JPEG_BYTES, excess
from shoal.engine.triton import encoded_rows
from shoal.engine.triton.encoded_rows import JpegRow
from shoal.engine.triton.encoded_slot import EncodedSlot
from shoal.engine.triton.shared_memory import Region
from shoal.errors import Internal
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Tensor
from support.scripted_engine import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST = 4
PICTURE = JpegRow(1, 16, 16, 0, 0, 16, 16, 8, 8, 0)
UNSHARED: Any = SimpleNamespace(region=lambda size, reserved: None)


def config(shape: tuple[int, ...] = (8, 8, 3), dtype: str = "uint8") -> ModelConfig:
    batching = BatchingSettings(max_batch_size=MOST)
    return replace(CONFIG, input=Tensor("image", dtype, shape), batching=batching, encoded=True)


def sent(slot: EncodedSlot, size: int) -> list[bytes]:
    """The rows of a request, as the runner finds them."""
    request = v2.ModelInferRequest()
    slot.ask_for(request, size)
    (tensor,), (content,) = request.inputs, request.raw_input_contents
    assert (tensor.name, tensor.datatype, tensor.shape[0]) == ("encoded_rows", "UINT8", size)
    array = np.frombuffer(content, np.uint8).reshape(tensor.shape)
    entries = encoded_rows.read(array, size, 8 * 8 * 3, (8, 8))
    return [encoded_rows.content_of(array, entry).tobytes() for entry in entries]


def test_jpegs_and_pixels_lie_side_by_side() -> None:
    slot = EncodedSlot(config(), UNSHARED)
    slot.row(1)[...] = 9
    assert slot.put_jpeg(0, b"first", PICTURE)
    assert slot.put_jpeg(2, bytearray(b"third"), PICTURE)
    slot.row(1)[0, 0] = 1  # the same place
    assert sent(slot, 3) == [b"first", b"\1\1\1" + b"\x09" * (8 * 8 * 3 - 3), b"third"]


def test_a_request_is_as_small_as_its_pictures() -> None:
    slot = EncodedSlot(config((224, 224, 3)), UNSHARED)
    slot.put_jpeg(0, b"x" * 100, PICTURE)
    request = v2.ModelInferRequest()
    slot.ask_for(request, 1)
    assert len(request.raw_input_contents[0]) == MOST * 64 + 100


def test_moving_changes_the_table_alone() -> None:
    slot = EncodedSlot(config(), UNSHARED)
    slot.row(0)[...] = 1  # failed since
    slot.put_jpeg(1, b"jpeg", PICTURE)
    slot.row(2)[...] = 2
    before = slot._memory[slot._begin :].copy()
    slot.move(1, 0)
    slot.move(2, 1)
    slot.move(1, 1)
    np.testing.assert_array_equal(slot._memory[slot._begin :], before)
    assert sent(slot, 2) == [b"jpeg", b"\2" * (8 * 8 * 3)]


def test_float_rows_are_pixels_of_the_input() -> None:
    slot = EncodedSlot(config((3, 8, 8), "float32"), UNSHARED)
    row = slot.row(0)
    assert (row.shape, row.dtype, row.flags.c_contiguous) == ((3, 8, 8), np.float32, True)


def test_a_jpeg_that_takes_the_room_of_others_is_not_put_in() -> None:
    slot = EncodedSlot(config((320, 320, 3)), UNSHARED)  # 307,200 bytes, more than ROW_BYTES
    assert not slot.put_jpeg(0, b"x" * (encoded_rows.aligned(320 * 320 * 3) + 1), PICTURE)
    for number in range(MOST):
        slot.row(number)[...] = number
    with pytest.raises(Internal, match="asked for one more"):
        slot.row(MOST)


def test_small_jpegs_leave_their_room_to_a_large_one() -> None:
    slot = EncodedSlot(config(), UNSHARED)
    large = b"x" * (MOST - 1) * ROW_BYTES
    assert not slot.put_jpeg(0, large + b"x" * ROW_BYTES, PICTURE)
    assert slot.put_jpeg(0, large, PICTURE)
    assert all(slot.put_jpeg(number, b"small", PICTURE) for number in range(1, MOST))


class Shares:
    """As ``Sharing``, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[int, int | None]] = []

    def region(self, size: int, reserved: int | None = None) -> Region:
        self.asked.append((size, reserved))
        return Region(size, self.folder, reserved=reserved)

    def drop(self, regions: Iterable[Region]) -> None:
        for region in regions:
            region.close()


def device(mebibytes: int, free: int) -> SimpleNamespace:
    return SimpleNamespace(f_frsize=2**20, f_blocks=mebibytes, f_bavail=free)


def test_large_jpegs_get_more_room_where_there_is_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda _: device(mebibytes=2**10, free=2**10))
    shares: Any = Shares(tmp_path)
    slot = EncodedSlot(config(), shares)
    large = b"x" * ROW_BYTES * 3
    for _ in range(2):  # a slot stays as large
        assert [slot.put_jpeg(number, large + bytes([number]), PICTURE) for number in range(MOST)] == [True] * MOST
        assert [row[-1] for row in sent(slot, MOST)] == list(range(MOST))
        slot.clear()
    assert not slot.put_jpeg(0, b"x" * MOST * LARGE_JPEG_BYTES, PICTURE), "with nothing left for the others"
    assert shares.asked == [(MOST * (64 + LARGE_JPEG_BYTES + 1), MOST * (64 + ROW_BYTES + 1))]
    slot.close(shares)
    slot.clear()
    assert not slot.put_jpeg(0, large * 2, PICTURE), "in a message"


def test_large_jpegs_get_no_more_room_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fstatvfs", lambda _: device(mebibytes=2**10, free=2**9))
    shares: Any = Shares(tmp_path)
    slot = EncodedSlot(config(), shares)
    large = b"x" * ROW_BYTES * 2
    assert [slot.put_jpeg(number, large, PICTURE) for number in range(MOST)] == [True, False, False, False]
    slot.row(1)[...] = 7
    assert sent(slot, 2)[0] == large
    assert sent(slot, 2)[1] == b"\7" * (8 * 8 * 3)
    slot.close(shares)


def test_a_new_batch_begins_anew() -> None:
    slot = EncodedSlot(config(), UNSHARED)
    for _ in range(3):
        slot.clear()
        assert slot.put_jpeg(0, b"x" * (MOST - 1) * ROW_BYTES, PICTURE)
        slot.row(1)


def test_what_batches_may_ask_for_counts_jpegs_too() -> None:
    many = BatchingSettings(max_batch_size=5000)
    assert excess(replace(config(), batching=many, encoded=False)) is None
    found = excess(replace(config(), batching=many))
    assert found is not None
    assert found[0] == "max_batch_size"
    assert "4,096 is the most" in found[1]


def test_it_says_whether_there_are_jpegs_in_it() -> None:
    slot = EncodedSlot(config(), UNSHARED)
    slot.row(0)
    slot.put_jpeg(1, b"jpeg", PICTURE)
    assert [slot.has_files(size) for size in (1, 2)] == [False, True], "among those that are sent"
    slot.clear()
    assert not slot.has_files(2)


def test_rows_that_nobody_wrote_to_are_pixels() -> None:
    slot = EncodedSlot(config(), UNSHARED)
    assert [len(row) for row in sent(slot, 2)] == [8 * 8 * 3] * 2


@given(st.lists(st.tuples(st.sampled_from(["jpeg", "pixels", "own", "lost"]), st.integers(1, 10**6)), max_size=MOST))
def test_whatever_comes_there_is_room_and_each_row_has_its_own(rows: list[tuple[str, int]]) -> None:
    """As a batch does it: pictures come, some fail or bring pixels of their own, the rest moves to the front."""
    slot = EncodedSlot(config(), UNSHARED)
    ready: list[tuple[int, bytes, bool]] = []
    for number, (kind, size) in enumerate(rows):
        content = bytes([number + 1]) * (8 * 8 * 3)
        if kind == "jpeg" and slot.put_jpeg(number, jpeg := bytes([number + 1]) * size, PICTURE):
            ready.append((number, jpeg, False))
            continue
        if kind != "own" or size % 2:
            slot.row(number)[...] = number + 1 if kind != "own" else 0
        if kind != "lost":
            ready.append((number, content, kind == "own"))
    for target, (number, content, own) in enumerate(ready):
        slot.move(number, target)
        if own:
            slot.row(target)[...] = np.frombuffer(content, np.uint8).reshape(8, 8, 3)
    if ready:
        assert sent(slot, len(ready)) == [content for _, content, _ in ready]
