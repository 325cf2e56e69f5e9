"""The runner's modules are copied into a model's folder: here they are imported from theirs, as Triton's stub does."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal.engine.triton
import shoal.modelstore.making

GPU = Path(shoal.modelstore.making.__file__).with_name("gpu")
MEMORY, SCRATCH = 1_000_000, 9_000_000


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    for folder in (GPU, Path(shoal.engine.triton.__file__).parent):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("batch")


class Decoder:
    """Knows JPEGs by their first byte, an index of ``kinds``; decodes a batch if none of ``refused`` is in it."""

    def __init__(self, layout: np.dtype[Any], kinds: list[tuple[Any, ...]], refused: tuple[int, ...] = ()) -> None:
        self._kinds = np.array(kinds, layout)
        self._refused = refused
        self.asked: list[list[int]] = []

    def layouts(self, addresses: Any, lengths: Any) -> Any:
        return self._kinds[[_first_byte(address) for address in addresses.tolist()]]

    def decode(self, addresses: Any, lengths: Any, images: Any, stream: int) -> bool:
        self.asked.append([_first_byte(address) for address in addresses.tolist()])
        return not set(self.asked[-1]) & set(self._refused)


def _first_byte(address: int) -> int:
    import ctypes

    return ctypes.c_ubyte.from_address(address).value


COLOUR, GREY, NONE = (
    (3, 2, (500, 250, 250, 0), (375, 188, 188, 0)),
    (1, 6, (64, 0, 0, 0), (48, 0, 0, 0)),
    (0,) * 2 + ((0,) * 4,) * 2,
)


def _batch(runner: Any, decoder: Any, rows: list[tuple[int, int, int]]) -> Any:
    """``rows``: kind, first byte, width as the table has it."""
    content = np.zeros(64 * 2 * len(rows) + 64, np.uint8)
    content = content[-content.ctypes.data % 64 :]
    table = np.zeros(len(rows), importlib.import_module("encoded_rows").ENTRY)
    for number, (kind, first, width) in enumerate(rows):
        offset = 64 * (len(rows) + number)
        content[offset] = first
        height = {500: 375, 64: 48}.get(width, 1)
        table[number] = (kind, 1, offset, 10, width, height, 10.5, 20.0, width - 10, height - 5, 32, 24, 0, 0)
    return runner.Batch(content, table, decoder)


def _decoder(runner: Any, *refused: int) -> Decoder:
    return Decoder(importlib.import_module("nvjpeg").LAYOUT, [COLOUR, GREY, NONE], refused)


def test_planes_lie_one_behind_the_other(runner: Any) -> None:
    batch = _batch(runner, _decoder(runner), [(1, 0, 500), (1, 1, 64), (1, 0, 500)])
    batch.give_addresses(MEMORY, SCRATCH)
    spans = sorted(
        (int(image["planes"][plane]), int(image["planes"][plane]) + int(image["pitches"][plane]) * height)
        for image, (components, _, _, heights) in zip(batch.images, [COLOUR, GREY, COLOUR], strict=True)
        for plane, height in enumerate(heights[:components])
    )
    assert spans[0][0] == MEMORY
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    assert spans[-1][1] == MEMORY + batch.plane_bytes
    assert not (batch.images["pitches"] % 256).any()
    assert batch.images["pitches"][:, 0].tolist() == [512, 256, 512]


def test_the_kernels_are_told_what_the_table_says(runner: Any) -> None:
    batch = _batch(runner, _decoder(runner), [(1, 0, 500), (1, 1, 64)])
    batch.give_addresses(MEMORY, SCRATCH)
    colour, grey = batch.pictures
    assert colour["size"].tolist() == [500, 375]
    assert (colour["shifts"].tolist(), grey["shifts"].tolist()) == ([1, 1], [0, 0])
    assert (colour["components"], grey["components"]) == (3, 1)
    assert colour["box"].tolist() == [10.5, 20.0, 490.0, 370.0]
    assert colour["target"].tolist() == [32, 24]
    # From 20 to 370, less and more than what a triangle of 350 / 24 to each side reaches.
    assert colour["first_row"] <= 20 - 350 / 24 + 0.5
    assert (
        colour["first_row"] + colour["rows_needed"] >= 370 + 350 / 24 - 0.5
        or colour["first_row"] + colour["rows_needed"] == 375
    )
    assert grey["scratch"] - colour["scratch"] == colour["rows_needed"] * 32 * 3
    assert batch.scratch_bytes == (colour["rows_needed"] + grey["rows_needed"]) * 32 * 3


@pytest.mark.parametrize(
    ("row", "why"),
    [((1, 2, 500), "it is no JPEG for the device"), ((1, 0, 64), "the table has another size than its header")],
)
def test_what_the_device_can_not_take_is_left_to_others(runner: Any, row: tuple[int, int, int], why: str) -> None:
    batch = _batch(runner, _decoder(runner), [(1, 0, 500), row, (1, 1, 64)])
    assert batch.status.tolist() == [0, 1, 0], why
    assert batch.jpegs.tolist() == [0, 2]
    assert batch.pictures["components"].tolist() == [3, -1, 1]


def test_frames_are_read_where_they_are(runner: Any) -> None:
    batch = _batch(runner, _decoder(runner), [(0, 0, 0), (1, 0, 500)])
    assert batch.pictures["components"].tolist() == [0, 3]
    assert batch.pictures["planes"][0, 0] == batch.begin + 64 * 2
    assert batch.status.tolist() == [0, 0]


def test_without_a_decoder_frames_are_served_all_the_same(runner: Any) -> None:
    batch = _batch(runner, None, [(1, 0, 500), (0, 0, 0)])
    assert batch.status.tolist() == [2, 0], "and workers are told that it is no matter of the picture"
    assert batch.pictures["components"].tolist() == [-1, 0]


def test_a_batch_is_decoded_at_once(runner: Any) -> None:
    decoder = _decoder(runner)
    _batch(runner, decoder, [(1, 0, 500), (0, 9, 0), (1, 1, 64)]).decode(decoder, 7)
    assert decoder.asked == [[0, 1]]


def test_of_a_batch_that_is_refused_each_is_tried_alone(runner: Any) -> None:
    decoder = _decoder(runner, 1)
    batch = _batch(runner, decoder, [(1, 0, 500), (1, 1, 64), (1, 0, 500), (1, 1, 64)])
    batch.decode(decoder, 7)
    assert decoder.asked == [[0, 1, 0, 1], [0], [1], [0], [1]]
    assert batch.status.tolist() == [0, 1, 0, 1]
    assert batch.pictures["components"].tolist() == [3, -1, 3, -1]


def test_planes_beyond_the_limit_are_left_to_others(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LARGEST_BYTES", 700_000)
    batch = _batch(runner, _decoder(runner), [(1, 0, 500), (1, 0, 500), (1, 0, 500)])
    assert batch.status.tolist() == [0, 0, 1]
    assert batch.plane_bytes <= 700_000
