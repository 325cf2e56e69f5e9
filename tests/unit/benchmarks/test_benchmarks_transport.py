from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.common.chapter import update
from benchmarks.common.python_models import with_parameters
from benchmarks.transport import decoding
from benchmarks.transport.report import BLOCKS, NONE, block, plot, speed, traffic
from benchmarks.transport.server import HERE
from benchmarks.transport.ways import (
    BATCH,
    JPEG,
    MEMORY,
    MESSAGE,
    NOBODY,
    ON_GPU,
    TENSOR_BYTES,
    Messages,
    Way,
    cells,
    moved,
    packed,
    turns,
)
from support.pictures import encode, quadrants

if TYPE_CHECKING:
    from pathlib import Path


def test_a_network_never_gets_pictures_that_nobody_decoded() -> None:
    assert not [c for c in cells(nvjpeg=True) if c.model == "network" and c.way == Way(JPEG, NOBODY)]


def test_nvjpeg_is_measured_only_where_asked() -> None:
    assert ON_GPU in {cell.way for cell in cells(nvjpeg=True)}
    assert ON_GPU not in {cell.way for cell in cells(nvjpeg=False)}
    assert len(set(cells(nvjpeg=True))) == len(cells(nvjpeg=True)) == 26


def test_every_round_has_every_cell_and_every_other_one_goes_backwards() -> None:
    every = cells(nvjpeg=False)
    found = list(turns(every, 3))
    assert found == [*every, *reversed(every), *every]
    assert set(Counter(found).values()) == {3}


def test_jpegs_are_packed_as_a_bytes_tensor() -> None:
    assert packed([b"ab", b"", b"c"]) == b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"


@pytest.mark.parametrize(
    ("way", "shared", "backend"),
    [
        (Way(MEMORY, NOBODY), TENSOR_BYTES, TENSOR_BYTES),
        (Way(MESSAGE, NOBODY), 0, TENSOR_BYTES),
        (Way(JPEG, NOBODY), 0, 5004),
    ],
)
def test_bytes_of_a_picture(way: Way, shared: int, backend: int) -> None:
    messages = Messages().plus(800 * BATCH, 4000 * BATCH).plus(802 * BATCH, 4000 * BATCH)
    found = moved(way, messages, 5000)
    assert found["counted"] == {"file": 5000, "request": 801, "answer": 4000}
    assert found["computed"] == {"shared_memory": shared, "backend": backend}


def test_opencv_sees_what_the_workers_decoder_sees() -> None:
    jpeg = encode(quadrants(640, 480))
    ours, theirs = np.zeros((2, 224, 224, 3), np.uint8)
    decoding.make("worker")(jpeg, theirs)
    decoding.make("opencv")(jpeg, ours)
    assert np.abs(ours.astype(int) - theirs).mean() < 3
    assert theirs.std() > 10


def test_a_config_names_its_model_and_parameters() -> None:
    text = with_parameters("take", HERE / "config.pbtxt", {"jobs": "4"})
    assert text.startswith('name: "take"\n')
    assert 'parameters { key: "jobs" value { string_value: "4" } }' in text


def a_result(other_cores: float = 0.0) -> dict[str, Any]:
    def cell(way: Way) -> dict[str, Any]:
        return {
            "model": "take",
            "carried": way.carried,
            "decodes": way.decodes,
            "in_flight": 4,
            "images_per_s_spread": {"median": 1234.0, "min": 1200.0, "max": 1300.0},
            "p50_ms": {"median": 6.25},
            "cpu_ms_per_image": {"client": 0.5, "server": 0.25},
            "cpu_ms_per_image_in_all": {"median": 0.75, "min": 0.7, "max": 0.8},
            "other_cores": {"median": other_cores},
            "bytes_per_image": moved(way, Messages(1, 8 * 150_600, 8 * 4010), 40_000),
        }

    return {
        "date": "2026-01-02T03:04:05",
        "machine": {"cpu": "a CPU", "gpus": ["a GPU"], "cores_used": 2},
        "load_average": 0.5,
        "settings": {
            "network": "resnet50",
            "batch": 8,
            "rounds": 3,
            "seconds": 1.2,
            "decode_threads": 2,
            "decoder": "opencv",
        },
        "cells": [cell(Way(MESSAGE, "client")), cell(ON_GPU)],
        "left_out": {"take: jpeg, nvjpeg, 1 in flight": "no nvJPEG here"},
    }


def test_the_tables_have_speed_and_bytes() -> None:
    row = "| take | tensors, in the message | client | 4 | 1,234 (1,200-1,300) | 6.2 | 0.50 | 0.25 | 0.75 (0.70-0.80) |"
    assert row in speed(a_result())
    assert "| tensors, in the message | 40,000 | 150,600 | 4,010 | 0 | 150,528 |" in traffic(a_result())
    text = block("gpu", a_result())
    assert "a CPU, a GPU" in text
    assert "no nvJPEG here" in text


def test_speed_of_a_busy_machine_is_in_italics() -> None:
    assert "*1,234 (1,200-1,300)*" in speed(a_result(0.5))


def test_a_block_without_results_says_so(tmp_path: Path) -> None:
    text = "".join(f"<!-- figures: transport-{name} -->\nold\n<!-- end -->\n" for name in BLOCKS)
    chapter = tmp_path / "chapter.md"
    chapter.write_text(text)
    update(chapter, {f"transport-{name}": NONE for name in BLOCKS})
    assert chapter.read_text().count(NONE) == 2


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    plot(a_result(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
