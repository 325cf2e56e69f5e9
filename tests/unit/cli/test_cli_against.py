from __future__ import annotations

from pathlib import Path

import pytest

from shoal.cli import main

HERE = Path(__file__).parent
COMMAND = ["simulate", "--against", "127.0.0.1:1", "--api-key", "k", "--images", str(HERE)]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*COMMAND, *words])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--rate", "5", "--trace", "trace.csv"]])
def test_arrivals_are_a_rate_or_a_trace(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected either --trace FILE or --rate R" in run(capsys, *words)


def test_a_trace_out_of_order_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,model\n2.0,m\n1.0,m\n")
    assert f"{trace}:3" in run(capsys, "--trace", str(trace))


def test_a_folder_of_pictures_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--images nowhere: no such folder" in run(capsys, "--rate", "5", "--images", "nowhere")
