from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import pytest

from benchmarks.common.chapter import replace_block
from benchmarks.common.shown import ShownDecoder
from benchmarks.peers import pictures, warden
from benchmarks.peers.cells import CEILING, CEILING_AFTER, OURS, SHOAL, SHOAL_WITH_UPLOAD, Cell, Store, plan
from benchmarks.peers.clients import HttpCaller, http
from benchmarks.peers.environments import Environment
from benchmarks.peers.measure import cpu_ms
from benchmarks.peers.pictures import Recipe, Size
from benchmarks.peers.process import started
from benchmarks.peers.report import CHAPTER, measured
from benchmarks.peers.search import Search, pick
from benchmarks.peers.servers.plan import VARIABLE, Choice, Plan
from benchmarks.peers.servers.work import answer
from benchmarks.peers.settings import Windows
from benchmarks.peers.summary import summarise
from benchmarks.peers.tables import blocks
from shoal.errors import Code, InvalidRequest, Overloaded, Unavailable
from shoal.modelconfig.model import Resize, Task
from support.pictures import encode, quadrants
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLES = Path(__file__).parents[3] / "samples"
KEY: dict[str, Any] = {"commit": "abc", "windows": Windows().told()}


def window(images: int, seconds: float = 2.0, **errors: int) -> dict[str, Any]:
    return {
        "images": images,
        "images_per_s": images / seconds,
        "cpu_ms_per_image": {"server": 10.0, "client": 0.5},
        "components_ms_per_image": {"server": 10.0},
        "other_cores": 0.05,
        "mean_batch_size": 8.0,
        "errors": errors,
    }


def half(*latencies_ms: float) -> dict[str, Any]:
    return {**window(len(latencies_ms)), "rate_per_s": 50.0, "latencies_ms": list(latencies_ms)}


def results() -> dict[Cell, Mapping[str, Any]]:
    """Two rounds, small pictures only: a ceiling of 100 and 50 images/s, Shoal at 0.9 of it, a peer at 0.6 and 0.45."""
    found: dict[Cell, Mapping[str, Any]] = {}
    for number, speed in enumerate((100, 50)):
        ways = {
            ("shoal", CEILING): (1.0, None),
            ("shoal", SHOAL): (0.9, half(10, 20)),
            ("shoal", SHOAL_WITH_UPLOAD): (0.8, half(11, 21)),
            ("shoal", "mosec"): (0.6, half(30, 40)),
            ("shown", CEILING): (0.5, None),
            ("shown", "mosec"): (0.45, half(50, 60)),
        }
        for (decoder, way), (share, latencies) in ways.items():
            result = {"choice": "a choice", "saturated": window(int(2 * speed * share)), "half": latencies}
            found[Cell(number, Size.SMALL, decoder, way)] = result
    return found


def result() -> dict[str, Any]:
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "command": "python -m benchmarks.peers.run",
        "machine": {"cpu": "a CPU", "cores_used": 2},
        "load_average": 0.1,
        "versions": {"openvino": "1"},
        "peers": {"mosec": {"title": "mosec", "versions": {"mosec": "0.9", "openvino": "1"}}},
        "settings": {**Windows().told(), "callers": {"small": 48}, "model": "m", "precision": "f32"},
        "rows": summarise(results()),
    }


def row(way: str, decoder: str = "shoal") -> dict[str, Any]:
    return next(one for one in summarise(results()) if (one["way"], one["decoder"]) == (way, decoder))


def a_plan(tmp_path: Path) -> Plan:
    model = replace(add_tiny_classifier(tmp_path), resize=Resize.CROP, resize_shorter_side=36)
    return Plan(model, "shown", "f32", "cache", Choice("two", options={"fast": True}), 1234, str(tmp_path))


# Cells


def test_a_round_measures_each_way_once_between_two_ceilings() -> None:
    cells = list(plan(2, ["mosec", "ray"]))
    assert len(cells) == len(set(cells)) == 2 * len(Size) * (len(OURS) + 2 + 1 + 1 + 2 + 1)
    assert [cell.way for cell in cells[:6]] == [CEILING, SHOAL, SHOAL_WITH_UPLOAD, "mosec", "ray", CEILING_AFTER]
    assert [(cell.way, cell.decoder) for cell in cells[6:9]] == [(way, "shown") for way in (CEILING, "mosec", "ray")]
    assert {cell.round for cell in cells[: len(cells) // 2]} == {0}
    assert {cell.decoder for cell in cells if cell.way in (SHOAL, SHOAL_WITH_UPLOAD)} == {"shoal"}


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    cells = list(plan(1, ["mosec"]))
    store = Store(KEY, tmp_path)
    store.write(cells[0], {"a": 1})
    store.write(cells[2], {"a": 2})
    again = Store(json.loads(json.dumps(KEY)), tmp_path)
    assert [cell for cell in cells if again.read(cell) is None] == [cells[1], *cells[3:]]
    assert again.read(cells[2]) == {"a": 2}


def test_another_commit_or_other_windows_measure_again(tmp_path: Path) -> None:
    (cell, *_) = plan(1, [])
    Store(KEY, tmp_path).write(cell, {"a": 1})
    assert Store({**KEY, "commit": "def"}, tmp_path).read(cell) is None
    assert Store({**KEY, "windows": Windows.quick().told()}, tmp_path).read(cell) is None


def test_each_cell_has_a_file_of_its_own() -> None:
    cells = list(plan(3, ["mosec", "ray"]))
    assert len({cell.name for cell in cells}) == len(cells)


# Figures


def test_ratios_and_leads_are_taken_within_a_round() -> None:
    mosec = row("mosec")
    assert mosec["ratio"]["ceiling"]["rounds"] == [0.6, 0.6]
    assert mosec["lead"]["shoal"] == {"median": 1.5, "min": 1.5, "max": 1.5, "rounds": [1.5, 1.5]}
    assert mosec["images_per_s"]["median"] == 45.0


def test_a_peer_with_its_shown_decoder_has_two_ceilings() -> None:
    mosec = row("mosec", "shown")
    assert (mosec["ratio"]["ceiling"]["median"], mosec["ratio"]["own_ceiling"]["median"]) == (0.45, 0.9)


def test_the_ceiling_is_the_mean_of_before_and_after() -> None:
    after = {
        Cell(number, Size.SMALL, "shoal", CEILING_AFTER): {"saturated": window(4 * speed), "half": None}
        for number, speed in enumerate((100, 50))
    }
    rows = {(one["way"], one["decoder"]): one for one in summarise(results() | after)}
    assert rows["mosec", "shoal"]["ratio"]["ceiling"]["rounds"] == [0.4, 0.4]
    assert rows[CEILING, "shoal"]["images_per_s"]["rounds"] == [100, 50, 200, 100]
    assert (CEILING_AFTER, "shoal") not in rows


def test_latencies_of_all_rounds_count_together() -> None:
    found = row(SHOAL)["half"]
    assert (found["p50_ms"], found["p99_ms"], found["answers"]) == (10, 20, 4)
    assert row(CEILING)["half"] is None


def test_a_way_that_answers_nothing_has_no_lead_over_it() -> None:
    cell = Cell(0, Size.SMALL, "shoal", "mosec")
    found = results() | {cell: {"choice": "a", "saturated": window(0, UNAVAILABLE=7), "half": None}}
    mosec = next(one for one in summarise(found) if one["way"] == "mosec" and one["decoder"] == "shoal")
    assert (mosec["errors"], mosec["lead"]) == ({"UNAVAILABLE": 7}, {})


def test_cpu_time_of_server_store_and_client_apart() -> None:
    components = {"inference": 1.0, "rest": 0.5, "router": 0.25, "supervisor": 0.25, "store": 0.5, "client": 0.1}
    assert cpu_ms(components, 100) == {"server": 20.0, "store": 5.0, "client": 1.0}
    assert cpu_ms({"server": 2.0, "client": 0.1}, 100) == {"server": 20.0, "client": 1.0}


def test_the_chapters_tables_say_where_a_peer_is_ahead_and_what_failed() -> None:
    found = result()
    assert "| mosec, Shoal's decoder | 1.50 (1.50-1.50) |" in blocks(found)["aims"]
    assert "| mosec, Shoal's decoder | 45.0 (30.0-60.0) | 0.60 (0.60-0.60) |" in blocks(found)["speed-small"]
    mosec = next(one for one in found["rows"] if one["way"] == "mosec")
    mosec["lead"]["shoal"] |= {"median": 0.9}
    mosec["errors"] = {"DEADLINE_EXCEEDED": 3}
    assert "| mosec, Shoal's decoder | **0.90 (1.50-1.50)** |" in blocks(found)["aims"]
    assert "**3** of 183: DEADLINE_EXCEEDED" in blocks(found)["speed-small"]


def test_the_chapter_has_a_place_for_every_block() -> None:
    text = CHAPTER.read_text(encoding="utf-8")
    for name, block in {"measured": measured(result()), **blocks(result())}.items():
        text = replace_block(text, f"peers-{name}", block)
    assert "python -m benchmarks.peers.run" in text


# Choices


class Clockwork:
    """A peer whose choices have rates."""

    name = title = "clockwork"
    choices = (Choice("a"), Choice("b"), Choice("c"))

    def __init__(self) -> None:
        self.version = "1"

    def versions(self) -> dict[str, str]:
        return {"clockwork": self.version}


class Counted(Search):
    """Takes rates from a table in place of a server."""

    def __init__(self, file: Path, rates: Mapping[str, float]) -> None:
        super().__init__(None, {"cpu": "a CPU"}, lambda _text: None, file)  # type: ignore[arg-type]
        self._rates_of = rates
        self.measured: Counter[str] = Counter()

    def _measure(self, peer: Any, choice: Choice, size: Size, decoder: str) -> float:
        self.measured[choice.name] += 1
        if choice.name not in self._rates_of:
            raise Unavailable("it doesn't start")
        return self._rates_of[choice.name]


def test_the_fastest_choice_is_found_once(tmp_path: Path) -> None:
    file, peer = tmp_path / "choices.json", Clockwork()
    search = Counted(file, {"a": 1.0, "b": 3.0, "c": 2.0})
    assert [search.best(peer, Size.SMALL, decoder).name for decoder in ("shown", "shown", "shoal")] == ["b"] * 3  # type: ignore[arg-type]
    assert search.measured == {"a": 2, "b": 2, "c": 2}
    peer.version = "2"
    search.best(peer, Size.SMALL, "shown")  # type: ignore[arg-type]
    assert search.measured == {"a": 3, "b": 3, "c": 3}


def test_a_search_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    file, peer = tmp_path / "choices.json", Clockwork()
    with pytest.raises(Unavailable):
        Counted(file, {"a": 1.0, "b": 3.0}).best(peer, Size.LARGE, "shown")  # type: ignore[arg-type]
    again = Counted(file, {"c": 2.0})
    assert again.best(peer, Size.LARGE, "shown").name == "b"  # type: ignore[arg-type]
    assert again.measured == {"c": 1}


def test_without_a_search_the_first_choice_is_taken() -> None:
    assert pick(Clockwork.choices, {}).name == "a"


# Pictures and the work


def test_the_file_nearest_to_the_size_is_found() -> None:
    assert len(pictures.nearest(lambda quality: bytes(10 * quality), 1, 100, 333)) == 330


def test_pictures_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pictures.RECIPES, Size.SMALL, Recipe(160, 120, 6000, 3, ((1, 3.0), (2, 4.0))))
    first, again = pictures.make(Size.SMALL, SAMPLES), pictures.make(Size.SMALL, SAMPLES)
    assert first == again
    assert len({picture.data for picture in first}) == 3
    assert all(abs(len(picture.data) - 6000) < 600 for picture in first)
    assert [picture.classes for picture in first] == [(281, 282, 285), (967,), (281, 282, 285)]
    decoded = cv2.imdecode(np.frombuffer(first[0].data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (120, 160, 3)


def test_the_shown_decoder_resizes_then_crops_the_centre(tmp_path: Path) -> None:
    model = a_plan(tmp_path).model
    out = np.zeros(model.input.shape, np.uint8)
    ShownDecoder(model).decode(encode(quadrants()), out)
    corners = [tuple(int(value > 127) for value in out[y, x]) for y in (0, -1) for x in (0, -1)]
    assert len(set(corners)) == 4


def test_an_answer_has_the_most_probable_classes_first() -> None:
    found = answer(np.array([0.0, 3.0, 1.0, 2.0, -1.0, -2.0], np.float32), batch=4)
    assert [index for index, _ in found["classes"]] == [1, 3, 2, 0, 4]
    assert found["batch"] == 4
    assert 0.63 < found["classes"][0][1] < 0.65


def test_a_plan_reaches_the_server_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = a_plan(tmp_path)
    written.write(tmp_path / "plan.pickle")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "plan.pickle"))
    assert Plan.read() == written


def test_an_environment_holds_shoals_versions_and_leaks_no_python_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    variables = Environment("mosec", ("mosec==1",)).variables()
    assert "PYTHONHOME" not in variables
    assert variables["PYTHONPATH"].split(os.pathsep)[0].endswith("/src")


# Processes

_LEAVES_A_DAEMON = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
daemon = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(daemon.pid, flush=True)
time.sleep(600)
"""


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_nothing_of_a_server_stays_behind(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with started([sys.executable, "-c", _LEAVES_A_DAEMON], os.environ, log) as server:
        while not (told := log.read_text()).endswith("\n"):
            server.check()
        below = warden.descendants(server.pid)
        assert int(told) in below
        assert len(below) == 2
    assert not any(map(_alive, below))


def test_a_server_ends_with_its_harness(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    harness = subprocess.Popen(
        [sys.executable, warden.__file__, sys.executable, "-c", _LEAVES_A_DAEMON], stdin=reader, stdout=subprocess.PIPE
    )
    os.close(reader)
    assert harness.stdout is not None
    daemon = int(harness.stdout.readline())
    os.close(writer)  # as when the harness was killed
    assert harness.wait() == 0
    harness.stdout.close()
    assert not _alive(daemon)


def test_a_server_that_ends_is_named_with_what_it_said(tmp_path: Path) -> None:
    with started([sys.executable, "-c", "raise SystemExit('no such model')"], os.environ, tmp_path / "log") as server:
        server.process.wait()
        with pytest.raises(Unavailable, match=r"exit code 1:\n  no such model"):
            server.check()


# Clients


class Page:
    """What an HTTP peer answered."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    async def read(self) -> bytes:
        return self._body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Session:
    """Answers every POST alike."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def post(self, *_: object, **__: object) -> Page:
        return self._page


async def call(status: int, body: bytes) -> Any:
    caller = HttpCaller(Session(Page(status, body)), "http://peer")  # type: ignore[arg-type]
    return await caller.infer(Task.CLASSIFICATION, b"jpeg", "m", timeout_seconds=1)


async def test_an_answer_becomes_a_result() -> None:
    found = await call(200, b'{"classes": [[967, 0.9], [925, 0.1]], "batch": 8}')
    assert [(one.index, one.probability) for one in found.classes] == [(967, 0.9), (925, 0.1)]
    assert found.timing.batch_size == 8


@pytest.mark.parametrize(
    ("status", "kind"), [(429, Overloaded), (503, Unavailable), (400, InvalidRequest), (404, None), (418, None)]
)
async def test_a_refusal_counts_under_its_status(status: int, kind: type[Exception] | None) -> None:
    with pytest.raises(kind or Exception, match=f"{status}: no") as raised:
        await call(status, b"no")
    assert raised.value.code == {404: Code.NOT_FOUND, 418: Code.INTERNAL}.get(status, raised.value.code)  # type: ignore[attr-defined]


async def test_nobody_listening_is_unavailable() -> None:
    async with http(1, "/") as caller:
        with pytest.raises(Unavailable):
            await caller.infer(Task.CLASSIFICATION, b"jpeg", "m", timeout_seconds=5)
