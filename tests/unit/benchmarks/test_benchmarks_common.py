from __future__ import annotations

import argparse
import asyncio
import importlib.util
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks.common import cpu, service
from benchmarks.common.about import command
from benchmarks.common.ceiling import Feeder, Order, Pattern, Work
from benchmarks.common.chapter import markdown, replace_block
from benchmarks.common.cpu import Reading, Snapshot
from benchmarks.common.figures import Measurement, best, overhead, ratio
from benchmarks.common.files import read_json, read_pictures, read_result, write_json
from benchmarks.common.options import add_names
from shoal.errors import ConfigurationError
from shoal.modelconfig.model import ResizeFilter, Task
from shoal.modelstore.making.recipe import Recipe
from shoal.runtime.threads import make_pool
from support.measurements import measured
from support.pictures import encode, quadrants
from support.tiny_models import COLOURS, add_tiny_classifier, classifier

if TYPE_CHECKING:
    from pathlib import Path


def test_threads_are_told_apart_by_their_names() -> None:
    before = Reading(
        30.0, {1: ("python", 9.0), 2: ("decode", 5.0), 3: ("infer-some-model", 7.0), 9: ("infer-load", 4.0)}
    )
    after = Reading(
        42.0, {1: ("python", 12.0), 2: ("decode", 7.0), 3: ("infer-model", 11.0), 4: ("tokio-rt-worker", 0.5)}
    )
    assert cpu.split(before, after) == {"fetch": 0.5, "decode": 2.0, "inference": 4.0, "rest": 5.5}


def test_a_process_is_split_by_its_threads() -> None:
    begun, enough = threading.Event(), threading.Event()

    def spin() -> None:
        begun.set()
        while not enough.is_set():
            sum(range(1000))

    with make_pool(1, "decode") as pool:
        before = cpu.of_ceiling()
        pool.submit(spin)
        begun.wait()
        while not cpu.spent(before, cpu.of_ceiling()).components["decode"]:
            pass  # the kernel counts in steps
        enough.set()


def test_what_a_window_took() -> None:
    before = Snapshot(10.0, {"router": 1.0}, {7: Reading(2.0, {}), 8: Reading(1.0, {})}, 100.0)
    after = Snapshot(14.0, {"router": 1.5}, {7: Reading(3.0, {}), 8: Reading(1.5, {})}, 106.0)
    took = cpu.spent(before, after)
    assert (took.seconds, took.other_cores) == (4.0, 1.0)
    assert {name: seconds for name, seconds in took.components.items() if seconds} == {"router": 0.5, "rest": 1.5}


def test_ratios_are_taken_within_a_round() -> None:
    ceiling, shoal = [measured(100), measured(300), measured(200)], [measured(90), measured(240), measured(100)]
    assert ratio(shoal, ceiling) == {"median": 0.8, "min": 0.5, "max": 0.9, "rounds": [0.9, 0.8, 0.5]}


_SPENDS_IN_A_CHILD = """
import subprocess, sys
sys.stdin.readline()
burn = "import time; end = 0.2; any(time.process_time() > end for _ in iter(int, 1))"
subprocess.run([sys.executable, "-c", burn], check=True)
print("done", flush=True)
sys.stdin.readline()
"""


def test_what_a_servers_ended_processes_took_counts() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SPENDS_IN_A_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin
        assert server.stdout
        before = cpu.of_server(server.pid)
        server.stdin.write("go\n")
        server.stdin.flush()
        server.stdout.readline()
        assert cpu.spent(before, cpu.of_server(server.pid)).components["server"] >= 0.19
        server.stdin.close()


def test_overhead_is_router_batcher_and_the_workers_rest() -> None:
    assert overhead([measured(1000, rest=0.1, router=0.2, batcher=0.3, fetch=9.0, client=9.0)])["median"] == 0.6


def test_the_best_pattern_has_the_highest_median() -> None:
    assert best({"lucky once": [1.0, 9.0, 1.0], "good": [5.0, 6.0, 5.0]}) == "good"


def test_a_block_is_replaced_between_its_markers() -> None:
    text = "a\n<!-- figures: x -->\nold\n<!-- end -->\nb\n<!-- figures: y -->\n<!-- end -->\n"
    once = replace_block(text, "x", r"new \1")
    assert once == text.replace("old", r"new \1")
    assert replace_block(once, "x", r"new \1") == once
    with pytest.raises(ValueError, match="'z' once; found 0"):
        replace_block(text, "z", "")


def test_a_markdown_table() -> None:
    assert markdown(("what", "figure"), [("a", "1")]) == "| what | figure |\n|---|---:|\n| a | 1 |"


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"b")
    (tmp_path / "a.jpeg").write_bytes(b"a")
    (tmp_path / "readme.md").write_bytes(b"")
    assert read_pictures(tmp_path) == [b"a", b"b"]
    with pytest.raises(ConfigurationError, match="no JPEG"):
        read_pictures(tmp_path / "none")


def test_a_ceiling_feeds_the_engine(tmp_path: Path) -> None:
    async def run() -> list[Measurement]:
        feeder = await Feeder.open(Work(add_tiny_classifier(tmp_path), [encode(quadrants())], tmp_path, threads=1))
        try:
            return [await feeder.run(Order(Pattern(2, spread), 0.0, 0.01)) for spread in (False, True)]
        finally:
            await feeder.close()

    assert all(one.images % 4 == 0 for one in asyncio.run(run()))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert read_json(file) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "none.json") is None


def test_a_result_that_is_missing_says_where_it_comes_from() -> None:
    with pytest.raises(ConfigurationError, match=r"none.json is missing; measure it first"):
        read_result("none")


def test_a_command_is_a_modules_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/shoal/benchmarks/peers/run.py", "--rounds", "2"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", importlib.util.find_spec("benchmarks.common.about"))
    assert command() == "python -m benchmarks.common.about --rounds 2"


_OLDER = """
import os, pathlib, sys
command, check, model = sys.argv[1:]
told = pathlib.Path(os.environ["SHOAL_HOME"], "models", model, "config.pbtxt").read_text()
refused = [key for key in {refuses} if key in told]
print(*(f"unknown: {{key}}" for key in refused))
sys.exit(bool(refused))
"""


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose command line refuses the filter of a resize."""
    recipe = Recipe(name="tiny", task=Task.CLASSIFICATION, labels=COLOURS, resize_filter=ResizeFilter.BICUBIC)
    monkeypatch.setattr(service, "PUBLISHED", {"tiny": lambda _cache: (classifier(), recipe)})
    return older_tree(tmp_path / "older", "shoal.resize_filter")


def older_tree(tree: Path, *refuses: str) -> Path:
    package = tree / "src" / "shoal"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(_OLDER.format(refuses=refuses))
    return tree


def test_a_model_is_left_as_it_is_where_no_other_commit_reads_it(older: Path) -> None:
    assert older.is_dir()
    with service.temporary_home("tiny") as (_, model):
        assert model.resize_filter == ResizeFilter.BICUBIC


def test_a_model_goes_without_what_an_older_commit_does_not_know(older: Path) -> None:
    with service.temporary_home("tiny", older) as (_, model):
        assert model.resize_filter == ResizeFilter.BILINEAR


def test_a_commit_that_reads_the_model_in_no_form_says_why(older: Path, tmp_path: Path) -> None:
    assert older.is_dir()
    with (
        pytest.raises(ConfigurationError, match=r"its service can't read tiny:\nunknown: shoal.task"),
        service.temporary_home("tiny", older_tree(tmp_path / "picky", "shoal.resize_filter", "shoal.task")),
    ):
        pass


def test_names_on_the_command_line_are_some_of_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_names(parser, "peer", {"mosec": 1, "triton": 2})
    assert parser.parse_args([]).peers == ["mosec", "triton"]
    assert parser.parse_args(["triton"]).peers == ["triton"]
    with pytest.raises(SystemExit):
        parser.parse_args(["tritn"])
    assert "no peer tritn: expected some of mosec, triton" in capsys.readouterr().err
