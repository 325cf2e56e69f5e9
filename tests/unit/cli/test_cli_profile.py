from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal import cli
from shoal.modelstore.repository import read_model
from shoal.profile.book import Book
from support.pictures import encode, quadrants
from support.tiny_models import add_tiny_classifier

SHORT = ("--duration", "0.02", "--warm-up", "0.02", "--rounds", "1", "--concurrency", "1,2", "--batch", "1,4")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working folder's, with the model ``tiny``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    add_tiny_classifier(tmp_path / "home" / "models")
    return tmp_path / "home" / "models"


def shoal(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["profile", *words])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def kept(folder: str = "profile/tiny") -> Any:
    return json.loads((Path(folder) / "profile.json").read_text())


def test_a_table_a_file_and_plots(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert shoal("tiny", *SHORT) == 0
    out = capsys.readouterr().out
    assert "images/s" in out
    assert len(kept()["cells"]) == 4
    assert kept()["cells"][0]["instances"] == 2  # as configured
    assert (tmp_path / "profile/tiny/profile.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "profile/tiny/profile.svg").read_text()


def test_a_second_run_goes_on_and_force_starts_anew(store: Path) -> None:
    assert shoal("tiny", "--no-plot", *SHORT) == 0
    first = kept()
    assert shoal("tiny", "--no-plot", *SHORT, "--instances", "1,2") == 0
    second = kept()
    assert [cell for cell in second["cells"] if cell["instances"] == 2] == first["cells"]
    assert len(second["cells"]) == 8
    assert shoal("tiny", "--no-plot", *SHORT, "--force") == 0
    assert len(kept()["cells"]) == 4


def test_another_model_file_needs_force(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("tiny", "--no-plot", *SHORT) == 0
    model = read_model(store, "tiny").path
    model.write_bytes(model.read_bytes() + b"\x3a\x00")  # the field doc_string of nothing: another file, the same model
    assert shoal("tiny", "--no-plot", *SHORT) == 2
    assert "of another subject (checksum" in capsys.readouterr().err


def test_the_best_setting_is_named_and_written(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (*SHORT, "--no-plot", "--instances", "3", "--batch", "2", "--latency-slo-ms", "100000", "--write")
    assert shoal("tiny", *options) == 0
    out = capsys.readouterr().out
    assert "best with p99 within 100000 ms: 3 instances, batches of 2" in out
    assert "now instance_group count 3, max_batch_size 2" in out
    batching = read_model(store, "tiny").batching
    assert (batching.instance_count, batching.max_batch_size) == (3, 2)
    assert shoal("tiny", *options) == 0  # what was written is no other subject


def test_no_setting_within_the_limit_is_1_with_the_closest(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("tiny", *SHORT, "--no-plot", "--latency-slo-ms", "0.0001", "--write") == 1
    assert "no setting has its p99 within 0.0001 ms; closest: 2 instances" in capsys.readouterr().err
    assert read_model(store, "tiny").batching.instance_count == 2


def test_pictures_are_cells_of_their_own(store: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(encode(quadrants()))
    assert shoal("tiny", *SHORT, "--no-plot") == 0
    assert shoal("tiny", *SHORT, "--no-plot", "--images", "pictures") == 0
    assert sorted(cell["input"] for cell in kept()["cells"]) == ["pictures"] * 4 + ["random"] * 4


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("none",), 1, "model 'none' is not in"),
        (("tiny", "--concurrency", "0"), 2, "--concurrency 0: expected whole numbers from 1 on"),
        (("tiny", "--duration", "0"), 2, "--duration 0: expected seconds"),
        (("tiny", "--write"), 2, "--write needs --latency-slo-ms"),
        (("none", "--write", "--latency-slo-ms", "5"), 2, "models/none has no config.pbtxt; --store names"),
        (("link", "--write", "--latency-slo-ms", "5"), 2, "models/link is a link, as model-sync makes them"),
        (("tiny", "--images", "nowhere"), 2, "--images nowhere: no such file or folder"),
        (("tiny", "--output", "file/folder"), 2, "--output file/folder: can't be written"),
        (("tiny", "--triton", "127.0.0.1:1"), 1, "no Triton answers at 127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_told(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "file").touch()
    (store / "link").symlink_to("tiny")
    assert shoal(*words) == code
    assert message in capsys.readouterr().err


def test_what_is_there_is_shown_when_it_ends_early(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add, left = Book.add, [2]

    def interrupted(*given: Any) -> None:
        add(*given)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Book, "add", interrupted)
    assert shoal("tiny", *SHORT, "--no-plot") == 130
    assert "profile/tiny/profile.json" in capsys.readouterr().out
    assert len(kept()["cells"]) == 2


def test_a_missing_matplotlib_is_told_before_the_work(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.cli.profile.find_spec", lambda name: None)
    assert shoal("tiny", *SHORT) == 2
    assert "pip install 'shoal[report]', or leave it out with --no-plot" in capsys.readouterr().err


def test_at_triton_it_needs_neither_engine_nor_codecs_nor_client(tmp_path: Path) -> None:
    absent = [
        "openvino",
        "cv2",
        "onnx",
        "obstore",
        "aiohttp",
        "simplejpeg",
        "PIL",
        "psutil",
        "grpc_health",
        "watchfiles",
        "matplotlib",
    ]
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent}))\n"
        "from shoal import cli\n"
        "import shoal.local.running_triton\n"
        "cli.main(['profile', 'm', '--triton', '127.0.0.1:1', '--no-plot', '--output', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "no Triton answers at 127.0.0.1:1" in done.stderr
