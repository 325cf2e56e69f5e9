from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from shoal.cli import main
from shoal.simulate import parts

if TYPE_CHECKING:
    from pathlib import Path

SCENARIO = """\
seconds: 3
warm_up_seconds: 0.5
models:
  resnet50:
    batch_ms: {1: 2.5, 8: 4}
    prepare: {p50_ms: 3, p99_ms: 20}
    batching: {max_batch_size: 8, latency_objective_ms: 50}
pools:
  gpus: {models: [resnet50], replicas: 2}
loads:
  - {model: resnet50, per_s: 300}
  - {trace: trace.csv}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "trace.csv").write_text("time,model,owner\n1.0,resnet50,ann\n1.5,resnet50,bob\n")
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *words])
    told = capsys.readouterr()
    assert not ended.value.code, told.err
    return told.out


def test_a_scenario_is_calculated_the_same_each_time(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (said(capsys, str(path), "--json", "--seed", seed) for seed in ("3", "3", "4"))
    assert first == again != other
    told = json.loads(first)
    assert told["models"]["resnet50"]["owners"]["ann"] == {"offered": 1, "answered": 1}
    assert told["models"]["resnet50"]["p99_ms"] < 60
    assert 0 < told["pools"]["gpus"]["utilisation"] < 1
    assert "resnet50" in said(capsys, str(path))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("per_s: 300", "rate: 300", "scenario.yaml:11: loads.0.rate: unknown key"),
        ("replicas: 2", "replicas: 0", "scenario.yaml:9: pools.gpus.replicas:"),
        ("batch_ms: {1: 2.5, 8: 4}", "profile: no.json", "models.resnet50.profile: .*no.json: there is no such file"),
        ("{1: 2.5, 8: 4}", "{1: 2.5, 4: 4}", "batch_ms ends at a batch of 4, and max_batch_size is 8"),
        ("trace: trace.csv", "trace: none.csv", "none.csv: can't be read"),
        ("seconds: 3\n", "seconds: 0.1\n", "less than seconds"),
    ],
)
def test_what_is_wrong_is_named(path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, text: str) -> None:
    path.write_text(SCENARIO.replace(old, new, 1))
    with pytest.raises(SystemExit) as ended:
        main(["simulate", str(path)])
    assert ended.value.code == 2
    assert re.search(text, capsys.readouterr().err)


def test_parts_are_simulated_where_they_are_asked_for_and_the_output_says_so(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(SCENARIO.replace("replicas: 2", "replicas: 16"))
    told = said(capsys, str(path), "--parts", "2", "--share", "1/4")
    assert "sampled: 2 parts of 1/4" in told
    assert "each with 4 of 16 replicas" in told
    assert re.search(r"resnet50 .* ± ", told)
    assert "extrapolated from three sizes of parts" in told
    sampled = json.loads(said(capsys, str(path), "--parts", "2", "--share", "0.25", "--json"))
    assert sampled["sample"]["share"] == "1/4"
    assert sampled["models"]["resnet50"]["p99_ms"] > 0
    assert len(sampled["sample"]["models"]["resnet50"]["sizes"]) == 3
    assert "sampled" not in said(capsys, str(path))


def test_a_large_service_is_sampled_unless_all_of_it_is_asked_for(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(SCENARIO.replace("replicas: 2", "replicas: 4"))
    monkeypatch.setattr(parts, "MOST_REQUESTS", 500)
    told = said(capsys, str(path))
    assert "sampled" in told
    assert "what size does to figures is not known" in told  # a single replica has no half
    assert "sampled" not in said(capsys, str(path), "--parts", "0")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--share", "a third"], "--share a third: expected a part of 1"),
        (["--share", "1/0"], "--share 1/0: expected a part of 1"),
        (["--share", "1/3"], "parts of 1/2, 2/2 and so on"),
        (["--parts", "1", "--share", "1/2"], "1 parts of 1/2: expected 2 or more"),
    ],
)
def test_parts_that_there_are_not_are_refused(
    path: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", str(path), *words])
    assert ended.value.code == 2
    assert text in capsys.readouterr().err
