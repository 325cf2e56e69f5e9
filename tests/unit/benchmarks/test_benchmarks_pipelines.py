from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.common.cpu import Snapshot
from benchmarks.common.files import read_result
from benchmarks.pipelines import compare
from benchmarks.pipelines.compare import Comparison
from benchmarks.pipelines.models import CLASSIFIER, DETECTOR
from benchmarks.pipelines.names import CLIENT, STORED, TRITON, UPLOADED, WAYS
from benchmarks.pipelines.report import BLOCK, CHAPTER, LARGER, PARTS, block, larger, lead, parts, plot, speed
from benchmarks.pipelines.scale import Scale
from benchmarks.pipelines.triton import make_repository, tensor_bytes
from benchmarks.pipelines.ways import Answer, Counts, Found, differences
from benchmarks.pipelines.window import closed_loop
from shoal.errors import Internal
from shoal.modelstore.repository import read_model

if TYPE_CHECKING:
    from pathlib import Path


def found(probability: float = 0.9, label: str = "red", x: float = 0.0) -> Found:
    return Found(x, 0.0, 0.2, 0.25, label, probability)


class Scripted:
    """A way that answers ``each``, as many times as boxes are asked for."""

    def __init__(self, each: Found, asked: list[tuple[str, int]], name: str) -> None:
        self.each = each
        self.choices, self.instances = (2, 4, 8), 0
        self._asked = asked
        self._name = name
        self._pictures = 0

    async def ask(self, number: int, count: int) -> Answer:
        await asyncio.sleep(0)
        self._asked.append((self._name, number))
        self._pictures += 1
        return Answer([self.each] * count, 2048)

    def snapshot(self) -> Snapshot:
        return Snapshot(float(self._pictures), {"server": 0.01 * self._pictures}, {}, 0.01 * self._pictures)

    async def counts(self) -> Counts:
        return Counts(4 * self._pictures, self._pictures, 1024 * self._pictures)


@pytest.fixture
def asked() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def ways(asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Scripted]:
    monkeypatch.setattr(compare, "WARM_UP_SECONDS", 0.001)
    monkeypatch.setattr(compare, "TRIAL_SECONDS", 0.001)
    return {name: Scripted(found(), asked, name) for name in WAYS}


def comparison(ways: dict[str, Scripted]) -> Comparison:
    return Comparison(ways, ways[TRITON], 2, 8, 0.001)  # type: ignore[arg-type]


async def test_bytes_of_calls_at_once_are_all_counted() -> None:
    async def ask(_: int) -> int:
        await asyncio.sleep(0)
        return 10

    window = await closed_loop(ask, 0.01, 8)
    assert window.sent_bytes == 10 * len(window.seconds)
    assert len(window.seconds) >= 8


async def test_all_ways_are_measured_in_turns_every_other_round_backwards(
    ways: dict[str, Scripted], asked: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = await comparison(ways).run(3, 2)
    assert [row["way"] for row in rows] == list(WAYS)
    told = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [f"3 objects, 8 at once, {name}" for name in (*WAYS, *reversed(WAYS))]
    (one, *_) = rows
    assert (one["sent_kib"]["median"], one["moved_kib"]["median"], one["mean_batch"]["median"]) == (2, 1, 4)
    assert one["cpu_ms_per_image_in_all"]["median"] == pytest.approx(10)
    assert set(one["lead"]) == {CLIENT, TRITON}
    assert rows[-1]["instances"] in (2, 4, 8)
    assert set(rows[-1]["instances_tried"]) == {"2", "4", "8"}


@pytest.mark.parametrize(
    "other",
    [found(probability=0.87), found(x=0.001), found(label="green")],
    ids=["probability", "box", "label"],
)
async def test_nothing_is_timed_where_answers_differ(
    ways: dict[str, Scripted], capsys: pytest.CaptureFixture[str], other: Found
) -> None:
    ways[TRITON].each = other
    with pytest.raises((Internal, ValueError)):
        await comparison(ways).run(3, 1)
    assert not capsys.readouterr().out


async def test_too_few_boxes_are_no_answer(ways: dict[str, Scripted], monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(number: int, count: int) -> Answer:
        return Answer([found()] * (count - 1), 0)

    monkeypatch.setattr(ways[UPLOADED], "ask", ask)
    with pytest.raises(Internal, match="2 boxes were found, not 3"):
        await comparison(ways).run(3, 1)


def test_differences_are_the_largest_ones() -> None:
    boxes, probabilities = differences([found(), found(0.5, x=0.25)], [found(0.85), found(0.5, x=0.5)])
    assert (boxes, probabilities) == (0.25, pytest.approx(0.05))
    with pytest.raises(ValueError, match="labels differ"):
        differences([found()], [])


def test_triton_has_the_same_networks_batches_and_instances(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "triton", (1, 5), Scale())
    assert {folder.name for folder in repository.iterdir()} == {
        *(DETECTOR.format(count) for count in (1, 5)),
        CLASSIFIER,
        *(f"look-{number}" for number in (2, 4, 8, 16)),
    }
    batching = read_model(repository, CLASSIFIER).batching
    assert (batching.max_batch_size, batching.instance_count) == (32, 2)
    config = (repository / "look-4" / "config.pbtxt").read_text()
    assert "count: 4" in config
    assert f'key: "classifier" value {{ string_value: "{CLASSIFIER}" }}' in config
    assert (repository / "look-4" / "1" / "model.py").is_file()


def test_tensors_are_the_detectors_picture_and_the_crops() -> None:
    assert tensor_bytes(0) == 320 * 320 * 3
    assert tensor_bytes(2) - tensor_bytes(1) == 224 * 224 * 3


def a_result(other_cores: float = 0.0, lead: float = 1.25) -> dict[str, Any]:
    def spread(median: float) -> dict[str, float]:
        return {"median": median, "min": median - 1, "max": median + 1}

    def row(at_once: int, way: str) -> dict[str, Any]:
        ratio = {"median": lead, "min": 1.0, "max": 2.0}
        pipeline = way in (UPLOADED, STORED)
        return {
            "objects": 5,
            "at_once": at_once,
            "way": way,
            "images_per_s_spread": spread(50),
            "cpu_ms_per_image_in_all": spread(20.5),
            "cpu_ms_per_image": {name: place + 0.25 for place, name in enumerate(PARTS)},
            "other_cores": {"median": other_cores},
            "p50_ms": spread(80),
            "p99_ms": spread(1200),
            "sent_kib": spread(35.1),
            "moved_kib": spread(70.7),
            "mean_batch": spread(8),
            "lead": {CLIENT: ratio, TRITON: ratio} if pipeline else {},
            **({"instances": 4, "instances_tried": {"2": 1.0, "4": 2.0, "8": 1.5}} if way == TRITON else {}),
        }

    return {
        "date": "2026-01-02T03:04:05",
        "commit": "abc",
        "command": "python -m benchmarks.pipelines.run",
        "machine": {"cpu": "a CPU", "cores_used": 2},
        "load_average": 0.5,
        "settings": {"seconds": 5.0, "rounds": 3},
        "rows": [row(at_once, way) for at_once in (8, 32) for way in WAYS],
    }


def test_the_tables_say_what_was_measured_and_where_the_pipeline_is_behind() -> None:
    row = "| 5 | 32 | Triton alone | 50.0 (49.0-51.0) | 80 | 1,200 | 20.5 (19.5-21.5) | 35.1 | 70.7 | 8.0 |"
    assert row in speed(a_result())
    assert "| 5 objects, 8 at a time | 1.25 (1.00-2.00) |" in lead(a_result())
    assert "| 5 objects, 32 at a time | **0.80 (1.00-2.00)** |" in lead(a_result(lead=0.8))
    assert "| 5 objects, 8 at a time, pipeline, stored pictures | 0.2 | 1.2 | 2.2 |" in parts(a_result())
    text = block(a_result())
    assert "the fastest of 2, 4, 8 in each row: 4, 4." in text
    assert "In italics" not in text


def test_speed_of_a_busy_machine_is_in_italics() -> None:
    assert "*50.0 (49.0-51.0)* | *80* |" in speed(a_result(0.5))
    assert "In italics" in block(a_result(0.5))


def test_the_chapter_tells_the_result() -> None:
    text = CHAPTER.read_text(encoding="utf-8")
    told = {BLOCK: block(read_result(BLOCK)), LARGER: larger(read_result(LARGER))}
    for name, figures in told.items():
        assert f"<!-- figures: {name} -->\n{figures}\n<!-- end -->" in text


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    plot(a_result(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("cores", "workers", "others", "pictures"),
    [(1, 1, 1, 12), (2, 2, 1, 24), (7, 7, 1, 84), (8, 8, 2, 48), (16, 16, 4, 48)],
)
def test_more_cores_have_more_processes_and_pictures(cores: int, workers: int, others: int, pictures: int) -> None:
    scale = Scale(cores)
    assert (scale.workers, scale.others, scale.max_pictures) == (workers, others, pictures)
    assert scale.instances == (cores, 2 * cores, 4 * cores, 8 * cores)
    assert scale.at_once == (4 * cores, 16 * cores)
