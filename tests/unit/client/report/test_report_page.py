from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from shoal.client import report
from shoal.client.findings import Analysis, StepTiming
from shoal.client.load.pipeline_tally import PipelineTally
from shoal.client.load.record import Record
from shoal.client.load.tally import LoadResult
from shoal.client.results import Timing
from shoal.errors import ConfigurationError, Overloaded

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    "task": "classification",
    "model": "<b>model</b>",
    "target": "host:1",
    "concurrency": 4,
    "rate": None,
    "upload": False,
    "processes": 1,
    "seed": None,
}
ABOUT: dict[str, Any] = {
    "date": "2026-11-24T00:00:00+00:00",
    "machine": {"cores": 2, "load_average": 0.5},
    "versions": {"shoal": "0.1.0"},
    "command": "shoal bench --model '<b>model</b>'",
    "settings": SETTINGS,
}


class Outline(HTMLParser):
    """Titles of the sections, and tags that were never closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"meta", "path", "use", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"meta", "path", "use", "rect"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def loaded(answers: int = 200, failures: int = 0) -> LoadResult:
    result = LoadResult(duration_seconds=2.0, record=Record())
    for number in range(answers):
        at = number / 100
        result.arrived(at)
        result.add(
            0.01 + number / 10_000,
            0.0,
            Timing(
                queue_us=10,
                fetch_us=20,
                decode_us=30,
                compute_us=40,
                upload_us=0,
                total_us=0,
                batch_size=1 + number % 4,
            ),
            at,
        )
    for number in range(failures):
        result.add_error(Overloaded("<script>full</script>"), number / 10)
    return result


def page_of(folder: Path, result: LoadResult, about: dict[str, Any] = ABOUT) -> str:
    return report.write(folder, result, about).read_text()


def test_the_page_has_every_part_and_nothing_from_outside(tmp_path: Path) -> None:
    page = page_of(tmp_path, loaded(failures=3))
    outline = Outline(page)
    assert outline.open == []
    assert outline.titles == [
        "Latency",
        "Latency by share of requests",
        "Throughput over time",
        "Latency over time",
        "Batch sizes",
        "Where the time went",
        "Errors",
        "Settings",
    ]
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 6
    for plot in plots:
        ET.fromstring(plot)
    assert not re.search(r"""(src|href)=["'](?!#)""", page.replace("xlink:", ""))
    assert "RESOURCE_EXHAUSTED" in page


def test_a_pipelines_page_has_its_steps(tmp_path: Path) -> None:
    result = LoadResult(duration_seconds=2.0, record=Record(), pipeline=PipelineTally())
    steps = tuple(StepTiming(name, "<m>", 2, 0, 9_000, Timing(1, 2, 3, 4, 0, 0, 8)) for name in ("finder", "species"))
    for number in range(100):
        result.arrived(number / 100)
        result.add(0.01, 0.0, Analysis("uuid", "street", (), steps, 0, 0), number / 100)
    page = page_of(tmp_path, result)
    outline = Outline(page)
    assert outline.open == []
    assert outline.titles[4:] == ["Steps", "Errors", "Settings"]
    assert "<dt>mean objects</dt><dd>0</dd>" in page
    row = "".join(f"<td>{cell}</td>" for cell in ("9.00", "9.00", "0.00", "0.00", "0.00", "0.00", "8"))
    assert (
        f"<td class=text>finder</td><td class=text>&lt;m&gt;</td><td>200</td><td>0</td><td class=text></td>{row}"
        in page
    )


def test_what_others_wrote_is_text(tmp_path: Path) -> None:
    page = page_of(tmp_path, loaded(failures=1))
    assert "<b>model</b>" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;full" in page


def test_the_same_figures_make_the_same_page(tmp_path: Path) -> None:
    assert page_of(tmp_path, loaded()) == page_of(tmp_path, loaded())


def test_figures_for_programs_stand_beside_it_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    page_of(tmp_path, loaded())
    told = json.loads((tmp_path / "bench.json").read_text())
    assert told["summary"]["answered"] == 200
    assert told["settings"]["model"] == "<b>model</b>"
    assert sum(one["count"] for one in told["histogram"]) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "index.html", "notes.txt"]


def test_a_run_without_answers_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, loaded(answers=0, failures=2))
    assert "nothing to draw" in page
    assert Outline(page).titles == ["Errors", "Settings"]


def test_a_generator_at_its_limit_is_a_warning(tmp_path: Path) -> None:
    result = loaded()
    result.cpu_seconds = 2.0
    assert "load generator&#x27;s limit" in page_of(tmp_path, result)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    report.prepare(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_in_the_way_is_told_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"--report .*/file: can't be written"):
        report.prepare(tmp_path / "file")


def test_a_missing_matplotlib_is_told_before_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'shoal\[report\]'"):
        report.prepare(tmp_path)
