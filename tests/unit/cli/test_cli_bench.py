from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shoal import cli
from shoal.client.load import processes
from support.fake_service import FakeService, serving_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT = ("--duration", "0.4", "--warm-up", "0.05", "--concurrency", "2")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeService]:
    (tmp_path / "samples").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "samples" / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    with serving_in_thread() as running:
        monkeypatch.setenv("SHOAL_TARGET", running.target)
        monkeypatch.setenv("SHOAL_API_KEY", "test-key")
        yield running


def shoal(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return ended.value.code if isinstance(ended.value.code, int) else 0


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_references_are_uploaded_once(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("bench", "--json", *SHORT) == 0
    summary = told(capsys)
    assert service.calls["PUT"] == 2
    assert service.calls["Classify"] >= summary["answered"] > 0
    assert summary["mean_batch_size"] == 5
    assert summary["settings"]["model"] == "efficientnet-lite0"
    assert set(summary["latency_ms"]) == {"p50", "p95", "p99", "max"}


def test_uploads_are_counted(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("bench", "--json", "--upload", "--rate", "100", "--task", "detection", *SHORT) == 0
    assert service.calls["PUT"] >= service.calls["Detect"] > 2
    assert told(capsys)["stage_mean_us"]["upload"] > 0


def test_masks_are_asked_for(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("bench", "--json", "--task", "segmentation", "--model", "colours", *SHORT) == 0
    assert service.calls["Segment"] >= told(capsys)["answered"] > 0


def test_a_pipeline_is_asked(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    service.part_code = 0
    assert shoal("bench", "--json", "--pipeline", "street", "--priority", "bulk", *SHORT) == 0
    summary = told(capsys)
    assert service.calls["PUT"] == 2
    assert service.calls["Analyze"] > summary["answered"] > 0
    assert (service.requests[-1].model_name, service.metadata[-1]["x-priority"]) == ("street", "bulk")
    assert (summary["settings"]["task"], summary["settings"]["model"]) == ("pipeline", "street")
    found = summary["pipeline"]
    assert (found["whole"] > 0, found["lacking"], found["mean_objects"]) == (True, 0, 1)
    finder, species = found["steps"]
    assert (finder["step"], finder["calls"], finder["total_ms"]) == ("finder", found["whole"], {"p50": 8, "p99": 8})
    assert (species["step"], species["model"], species["total_ms"]["p99"]) == ("then.0", "species", 6)
    assert species["stage_mean_us"] == {"queue": 1, "fetch": 2, "decode": 3, "compute": 4}
    assert species["mean_batch_size"] == 5
    assert summary["stage_mean_us"] == {"upload": 0, "queue": None, "fetch": None, "decode": None, "compute": None}


def test_a_pipelines_uploads_are_counted(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    service.part_code = 0
    assert shoal("bench", "--json", "--pipeline", "street", "--upload", "--rate", "100", *SHORT) == 0
    assert service.calls["PUT"] >= service.calls["Analyze"] > 2
    assert told(capsys)["stage_mean_us"]["upload"] > 0


def test_answers_that_lack_a_part_are_1(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("bench", "--pipeline", "street", *SHORT) == 1
    table = capsys.readouterr().out
    assert "lack a part" in table
    assert "mean upload" in table
    assert "mean decode" not in table
    assert "x DEADLINE_EXCEEDED: too late" in table
    service.part_calls = 0  # there was no time to ask
    assert shoal("bench", "--json", "--pipeline", "street", *SHORT) == 1
    summary = told(capsys)
    lacking = summary["pipeline"]["lacking"]
    assert (summary["errors"], lacking > 0, summary["pipeline"]["whole"]) == ({}, True, 0)
    assert summary["pipeline"]["steps"][1] == {
        "step": "then.0",
        "model": "species",
        "calls": 0,
        "failed": 0,
        "codes": {"DEADLINE_EXCEEDED": lacking},
        "reasons": {"DEADLINE_EXCEEDED": "too late"},
        "total_ms": {"p50": None, "p99": None},
        "mean_batch_size": None,
        "stage_mean_us": {"queue": None, "fetch": None, "decode": None, "compute": None},
    }


def test_a_pipeline_that_answers_nothing_has_no_steps(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    service.reply_uuid = "another"
    assert shoal("bench", "--pipeline", "street", "--report", "report", *SHORT) == 1
    table = capsys.readouterr().out
    assert "answered whole" in table
    assert "batch" not in table
    assert "<dt>mean objects</dt><dd>-</dd>" in (tmp_path / "report" / "index.html").read_text()


def test_the_report_of_a_pipeline(service: FakeService, tmp_path: Path) -> None:
    service.part_code = 0
    assert shoal("bench", "--pipeline", "street", "--report", "report", *SHORT) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"shoal bench --target {service.target} --pipeline street --images" in page
    assert "<td class=text>species</td>" in page


def test_a_pipeline_that_is_not_there_is_told_before_the_load(
    service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.failures.append(grpc.StatusCode.NOT_FOUND)
    assert shoal("bench", "--pipeline", "strete", *SHORT) == 1
    assert "--pipeline strete: no such pipeline is served" in capsys.readouterr().err
    assert service.calls["Analyze"] == 1


def test_a_folder_without_pictures_is_told(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert shoal("bench", "--pipeline", "street", "--images", "empty", *SHORT) == 2
    assert "no pictures (.jpeg, .jpg, .png, .webp) in empty" in capsys.readouterr().err
    assert not service.calls


@pytest.mark.parametrize("words", [("--task", "detection"), ("--model", "cats"), ("--trace", "trace.csv")])
def test_what_is_for_models_alone_is_told(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, str]
) -> None:
    (tmp_path / "trace.csv").write_text(TRACE)
    assert shoal("bench", "--pipeline", "street", "--warm-up", "0", *words) == 2
    assert f"{words[0]} says which model is asked, and --pipeline asks none" in capsys.readouterr().err
    assert not service.calls


def test_failures_are_counted_and_are_1(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    service.reply_uuid = "another"
    assert shoal("bench", "--json", *SHORT) == 1
    summary = told(capsys)
    assert set(summary["errors"]) == set(summary["reasons"]) == {"INTERNAL"}
    assert summary["images_per_s"] == 0


def test_the_report(service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert shoal("bench", "--json", "--rate", "50", "--report", "out/report", *SHORT) == 0
    assert told(capsys)["answered"] > 0
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert f"shoal bench --target {service.target} --task classification" in page
    assert "test-key" not in page
    assert "test-key" not in (tmp_path / "out" / "report" / "bench.json").read_text()


@pytest.mark.parametrize("way", ["--stream", "--unary"])
def test_the_way_of_the_calls_and_their_priority(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path, way: str
) -> None:
    assert shoal("bench", "--json", way, "--priority", "bulk", "--report", "report", *SHORT) == 0
    summary = told(capsys)
    assert summary["settings"]["stream"] is (way == "--stream")
    assert summary["stream_share"] == 0  # this service is an older one
    assert service.metadata[-1]["x-priority"] == "bulk"
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"--priority bulk {way}" in page
    assert "<dt>calls by stream</dt><dd>0%</dd>" in page


def test_a_generator_at_its_limit_is_told(
    service: FakeService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_BUSY", 0.0)
    assert shoal("bench", *SHORT) == 0
    assert "shoal: this may be the load generator's limit: the load generator used" in capsys.readouterr().err


def test_a_report_of_failures_is_written_too(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    service.reply_uuid = "another"
    assert shoal("bench", "--report", "report", *SHORT) == 1
    assert "INTERNAL" in (tmp_path / "report" / "index.html").read_text()


def test_a_report_that_can_not_be_written_is_told_before_the_load(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    assert shoal("bench", "--report", "report", *SHORT) == 2
    assert not service.calls


def test_the_table(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("bench", *SHORT) == 0
    assert "latency p99" in capsys.readouterr().out
    service.reply_uuid = "another"
    assert shoal("bench", *SHORT) == 1
    assert "INTERNAL: the answer for image" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("--images", "nowhere"),
        ("--task", "segmentation"),  # without --model
        ("--processes", "3"),
        ("--rate", "0"),
        ("--concurrency", "0"),
        ("--burstiness", "4"),
        ("--burstiness", "-1", "--rate", "5"),
        ("--rate", "5", "--trace", "trace.csv"),
        ("--trace", "nowhere.csv"),
        ("--find-rate",),
        ("--find-rate", "--latency-slo-ms", "0"),
        ("--find-rate", "--latency-slo-ms", "50", "--quantile", "99"),
        ("--find-rate", "--latency-slo-ms", "50", "--rate", "5"),
        ("--find-rate", "--latency-slo-ms", "50", "--report", "page"),
        ("--latency-slo-ms", "50"),
        ("--quantile", "0.9"),
    ],
)
def test_a_wrong_command_line_is_2(service: FakeService, words: tuple[str, ...]) -> None:
    assert shoal("bench", *SHORT, *words) == 2
    assert not service.calls


def test_a_service_that_is_away_is_1(
    service: FakeService, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shoal("bench", "--target", f"127.0.0.1:{unused_tcp_port}", *SHORT) == 1
    assert "shoal up" in capsys.readouterr().err


def test_bursts_are_told(service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert shoal("bench", "--json", "--rate", "100", "--burstiness", "3", "--report", "report", *SHORT) == 0
    assert told(capsys)["settings"]["burstiness"] == 3
    assert "--rate 100.0 --burstiness 3.0" in (tmp_path / "report" / "index.html").read_text()


TRACE = "time,model,owner\n0,cats,amy\n0.1,dogs,ben\n0.1,cats,amy\n0.2,cats,amy\n0.3,dogs,amy\n"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_trace_is_played(
    service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path, processes: str
) -> None:
    (tmp_path / "trace.csv").write_text(TRACE)
    words = ("--trace", "trace.csv", "--warm-up", "0", "--processes", processes, "--report", "report")
    assert shoal("bench", "--json", *words) == 0
    captured = capsys.readouterr()
    assert sorted(request.model_name for request in service.requests) == ["cats"] * 3 + ["dogs"] * 2
    summary = json.loads(captured.out)
    assert summary["settings"]["trace"] == "trace.csv"
    assert summary["duration_s"] == 0.3
    assert not summary["errors"]
    assert "5 requests in 0.3 s: cats 3, dogs 2; the owners it names (2) are not used" in captured.err
    page = (tmp_path / "report" / "index.html").read_text()
    assert "--trace trace.csv" in page
    assert "--model" not in page


def test_a_trace_is_cut_short(service: FakeService, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(TRACE)
    assert shoal("bench", "--json", "--trace", "trace.csv", "--warm-up", "0.05", "--duration", "0.1") == 0
    assert service.calls["Classify"] == 3
    assert told(capsys)["duration_s"] == 0.1


@pytest.mark.parametrize(
    ("text", "words", "reason"),
    [
        (TRACE, (), "trace.csv: its last request comes at 0.3 s, and the warm-up takes 2 s"),
        (TRACE, ("--warm-up", "0", "--model", "cats"), "--model: a trace names the model"),
        ("time,model\n2,cats\n1,cats\n", (), "trace.csv:3: out of order"),
        ("time,model\n", (), "trace.csv: holds no arrivals"),
    ],
)
def test_a_trace_that_can_not_be_played_is_2(
    service: FakeService,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    words: tuple[str, ...],
    reason: str,
) -> None:
    (tmp_path / "trace.csv").write_text(text)
    assert shoal("bench", "--trace", "trace.csv", *words) == 2
    assert reason in capsys.readouterr().err
    assert not service.calls
