"""``shoal plan`` as its user calls it: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from shoal.cli import main
from shoal.plan.trial import Bench
from shoal.service import spec
from support.profiles import empty
from support.stage_pages import page as metrics_page

if TYPE_CHECKING:
    from pathlib import Path

PLAN = """\
models:
  a: {batch_ms: {1: 4, 8: 8}, memory_gib: 4, latency_objective_ms: 60, per_s: 900}
  b: {batch_ms: {1: 4, 8: 12}, memory_gib: 4, latency_objective_ms: 60, per_s: 300}
hardware: {servers: 4, gpus_per_server: 2, gpu_memory_gib: 24, cores_per_server: 32}
prices: {per_gpu_hour: 2}
sizing: {cores_ms_per_image: 2, process_images_per_s: 400}
"""
ONE = """\
models:
  a: {batch_ms: {1: 4, 8: 8}, memory_gib: 4, latency_objective_ms: 60, per_s: 1900}
hardware: {how_many: true, gpu_memory_gib: 24, cores_per_server: 16}
sizing: {cores_ms_per_image: 2, process_images_per_s: 400}
"""


@pytest.fixture(autouse=True)
def _short_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    """These say what is printed of a plan; how good one is, ``tests/unit/plan`` says."""
    monkeypatch.setattr("shoal.cli.plan.Bench", short)


def short(*given: float, **more: float) -> Bench:
    """With fewer requests than may be asked for."""
    return replace(Bench(*given, **more), requests=250, objectives=4)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def called(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *map(str, words), "--requests", "1000"])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_the_table_names_every_placement_and_the_sentences_what_to_set(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(ONE)
    code, out, err = called(capsys, path, "--explain")
    assert code == 0, err
    for name in ("round robin", "least load", "permits"):
        assert f"{name}  " in out
    assert "Lower bound: 1.9 GPUs" in out  # 1,900 of 1,000 pictures a second of a GPU
    assert re.search(
        r"Settings: a batches of up to 8, 1 at once on a GPU, closed (by the objective|after 7.369 ms)", out
    )
    assert "Worker processes a GPU: 3." in out  # 1,000 pictures a second at 400 a process
    assert re.search(r"CPU: [0-9.]+ cores a GPU at the peak; a server has 16\.", out)
    assert "What happens when a server dies at the peak?" in out


def test_a_service_file_and_a_page_are_written(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(
        capsys, path, "--json", "--explain", "--write-service", tmp_path / "shoal.yaml", "--report", tmp_path / "page"
    )
    assert code == 0, err
    told = json.loads(out)
    assert told["chosen"].endswith("permits")
    assert told["worker_processes"] == {"default": 3}
    assert {one["name"] for one in told["server_dies"]["models"]} == {"a", "b"}
    assert len(told["answers"]) == 6
    service = spec.load(tmp_path / "shoal.yaml")
    assert service.pools["default"].replicas == told["gpus"]
    assert service.pools["default"].worker_processes == 3
    for name, one in told["settings"].items():
        override = service.models[name]
        assert (override.max_batch_size, override.instance_count) == (one["max_batch_size"], one["instance_count"])
        assert (override.max_queue_delay_microseconds or 0) == one["max_queue_delay_microseconds"]
        assert (override.latency_objective_ms is None) == bool(one["max_queue_delay_microseconds"])
    assert json.loads((tmp_path / "page" / "plan.json").read_text()) == {
        name: value for name, value in told.items() if name != "answers"
    }
    shown = Page.of(tmp_path / "page" / "index.html")
    assert shown.open == []
    assert shown.count["svg"] == 2
    assert not shown.outside
    rows = [row for row in shown.rows if row and "permits" in row[0]]
    assert f"{told['gpus']} GPUs" in rows[0][-2]
    assert f"{told['gpus']} GPUs, the loss of one server" in " ".join(shown.text)


class Page(HTMLParser):
    """What is in a page, and whether its tags are balanced."""

    _EMPTY = frozenset({"meta", "br", "link", "img", "hr", "input", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.outside: list[str] = []
        self.rows: list[list[str]] = []
        self.text: list[str] = []

    @classmethod
    def of(cls, path: Path) -> Page:
        page = cls()
        page.feed(path.read_text())
        page.close()
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.outside += [
            value
            for name, value in attrs
            if value and name in {"src", "href", "xlink:href"} and not value.startswith(("#", "data:"))
        ]
        if tag not in self._EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._EMPTY:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def test_too_few_gpus_end_with_1_and_say_how_many_servers_are_missing(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(ONE.replace("how_many: true", "servers: 1, gpus_per_server: 2"))
    code, out, _ = called(capsys, path)
    assert code == 1
    assert re.search(r"There are 2: \d too few, \d servers", out)


def test_stages_take_the_place_of_prepare_ms(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(ONE.replace("latency_objective_ms: 60", "latency_objective_ms: 9"))
    for name in ("a", "b"):
        (tmp_path / name).write_text(metrics_page([0.007] * 100, [0.0015] * 100, name))
    code, _, err = called(capsys, path, "--stages", tmp_path / "b", "--stages", tmp_path / "a")
    assert code == 2
    assert re.search(r"9 ms is below the time of a picture: 7\.\d+ ms to prepare it and 4 ms for its batch", err)
    code, _, err = called(capsys, path, "--stages", tmp_path / "b")
    assert code == 2
    assert "nothing was fetched for a yet; there is b" in err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("memory_gib: 4", "memory_gib: 40", "plan.yaml:2: models.a.memory_gib: 40 GiB doesn't fit hardware.gpu_memory"),
        (
            "latency_objective_ms: 60",
            "latency_objective_ms: 3",
            "is below the time of a picture: 0 ms to prepare it and",
        ),
        ("latency_objective_ms: 60", "latency_objective_ms: 0.06", "plan.yaml:2: .*was it meant in seconds"),
        ("batch_ms: {1: 4, 8: 8}", "batch_ms: {1: 0.004}", "plan.yaml:2: .*was it meant in seconds. That is 4 ms"),
        ("batch_ms: {1: 4, 8: 8}", "profile: none.json", "models.a.profile: .*there is no such file; `shoal profile"),
        ("batch_ms: {1: 4, 8: 8}", "profile: empty.json", "models.a.profile: .*nothing was measured"),
        ("batch_ms: {1: 4, 8: 8}", "profile: foreign.json", "models.a.profile: .*not a profile"),
        ("per_s: 900", "per_s: -900", "plan.yaml:2: models.a.per_s: .*greater than or equal to 0"),
        ("per_s: 900", "by_hour: [1, 2, 3]", "plan.yaml:2: models.a.by_hour: .*has 3 numbers; expected 24"),
        ("per_s: 900", "per_s: 900, by_hour: [1]", "plan.yaml:2: "),
        ("process_images_per_s: 400", "process_images_per_s: 0", "plan.yaml:6: sizing.process_images_per_s"),
        ("cores_ms_per_image", "cores_per_image", "plan.yaml:6: sizing.cores_per_image: unknown key"),
        (PLAN, "models: {}\n", "models"),
        (PLAN, "- 1\n", "plan.yaml"),
    ],
)
def test_bad_input_is_refused_with_its_place_and_what_would_fit(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    (tmp_path / "empty.json").write_text(empty().to_json())
    (tmp_path / "foreign.json").write_text('{"hello": 1}')
    assert old in PLAN
    path.write_text(PLAN.replace(old, new, 1))
    code, out, err = called(capsys, path)
    assert (code, out) == (2, "")
    assert re.search(told, " ".join(err.split())), err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--history", "h.csv", "--prometheus", "http://p"], "expected one of --history and --prometheus"),
        (["--history", "nowhere.csv"], "nowhere.csv: can't be read"),
        (["--prometheus", "p:9090"], "must start with http:// or https://"),
        (["--stages", "nowhere"], "--stages nowhere: can't be read"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    code, _, err = called(capsys, path, *words)
    assert code == 2
    assert told in " ".join(err.split())


def test_what_no_number_of_gpus_keeps_is_told_and_writes_nothing(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(ONE.replace("latency_objective_ms: 60", "latency_objective_ms: 4.5"))
    code, out, err = called(capsys, path, "--write-service", tmp_path / "shoal.yaml")
    assert code == 2
    assert "No placement keeps the objectives, whatever the number of GPUs" in out
    assert "nothing to write" in err
    assert not (tmp_path / "shoal.yaml").exists()
