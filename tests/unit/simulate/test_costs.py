from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shoal.errors import ConfigurationError
from shoal.profile.records import Cell, Machine, Profile, Round, Subject
from shoal.simulate import costs

if TYPE_CHECKING:
    from pathlib import Path


def cell(batch: int, concurrency: int, rate: float, instances: int = 1, **more: Any) -> Cell:
    one = Round(images_per_s=rate, p50_ms=10.0, p99_ms=12.0, batches=200, seconds=3.0, warm_up_s=1.0, settled=True)
    told = {"duration_s": 3.0, "input": "random", "rounds": (one,), **more}
    return Cell(instances=instances, batch=batch, concurrency=concurrency, **told)


ALONE = [cell(1, 1, 100.0), cell(8, 1, 400.0)]


def test_seconds_lie_on_lines_between_sizes_that_were_measured() -> None:
    found = costs.of_cells(ALONE, largest=8)
    assert [found.seconds(size) for size in (1, 8)] == pytest.approx([0.010, 0.020])
    assert found.seconds(4) == pytest.approx(0.010 + 0.010 * 3 / 7)
    assert found.speed(1) == found.speed(5) == 1.0
    assert found.misfit == pytest.approx(0.0)


def test_a_larger_batch_never_takes_less() -> None:
    found = costs.of_cells([cell(1, 1, 100.0), cell(2, 1, 250.0)])
    assert found.seconds(2) == found.seconds(1)


def test_speed_is_what_more_in_flight_gave() -> None:
    cells = [*ALONE, cell(8, 2, 600.0), cell(8, 4, 800.0)]
    found = costs.of_cells(cells)
    assert [found.speed(k) for k in (1, 2, 3, 4, 9)] == pytest.approx([1.0, 1.5, 1.75, 2.0, 2.0])
    assert found.rate(8, 4) == pytest.approx(800.0)


def test_of_one_instance_more_in_flight_is_a_queue() -> None:
    found = costs.of_cells([*ALONE, cell(8, 2, 440.0)], instances=1)
    assert found.speeds == pytest.approx((1.1,))  # the way to the engine is hidden


def test_a_misfit_is_told() -> None:
    assert costs.of_cells([*ALONE, cell(1, 2, 200.0), cell(8, 2, 480.0)]).misfit == pytest.approx(0.333, abs=0.01)


def test_jitter_is_that_of_percentiles_and_has_a_mean_of_one() -> None:
    jitter = costs.of_cells(ALONE).jitter
    assert jitter is not None
    assert jitter.mean == pytest.approx(1.0)
    assert jitter.sigma == pytest.approx(0.0784, abs=0.001)


@pytest.mark.parametrize(
    ("cells", "arguments", "text"),
    [
        ([], {}, "nothing was measured"),
        ([cell(8, 2, 100.0)], {}, "1 batch in flight; `shoal profile --concurrency 1,2`"),
        (ALONE, {"largest": 32}, "largest batch measured is of 8, and batches may be of 32; .*--batch 1,8,32"),
        (ALONE, {"instances": 2}, "no cell has 2 instances, but 1; .*--instances 2"),
        ([cell(8, 1, 0.0)], {}, "batch 8, concurrency 1: images_per_s is not above 0"),
        ([cell(8, 1, 10.0, executed_batch=16.0)], {}, "merged batches .16 images in each"),
    ],
)
def test_what_does_not_tell_is_refused(cells: list[Cell], arguments: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        costs.of_cells(cells, **arguments)


def test_a_file_is_read_and_named_where_it_is_no_use(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    with pytest.raises(ConfigurationError, match=f"{path}: there is no such file; `shoal profile"):
        costs.read(path)
    path.write_text('{"cells": []}')
    with pytest.raises(ConfigurationError, match=f"{path}: not a profile"):
        costs.read(path)
    subject = Subject(
        model="m", version=1, engine="triton", engine_version="1", checksum="sha256:0", checksum_of="model file"
    )
    machine = Machine(cpu="c", cores=1, memory_gib=1.0)
    told = Profile(
        subject=subject, machine=machine, versions={}, date="d", command="c", load_average=0.0, cells=tuple(ALONE)
    )
    path.write_text(told.to_json())
    assert costs.read(path, largest=8).sizes == (1, 8)
    with pytest.raises(ConfigurationError, match=f"{path}: the largest batch"):
        costs.read(path, largest=9)
