from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal import cli
from shoal.pictures.mask import decode_png
from support.fake_service import FakeService, serving_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def service() -> Iterator[FakeService]:
    with serving_in_thread() as running:
        yield running


class Shell:
    """Runs ``shoal`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, *words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        code = ended.value.code
        self.code = code if isinstance(code, int) else 0
        told = self._capsys.readouterr()
        self.err = told.err
        return told.out

    def records(self, *words: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*words).splitlines()]


@pytest.fixture
def shell(
    service: FakeService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    monkeypatch.setenv("SHOAL_TARGET", service.target)
    monkeypatch.setenv("SHOAL_API_KEY", "test-key")
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    (pictures / "more").mkdir(parents=True)
    for name in ("b.jpg", "a.JPEG", "more/c.png", "notes.txt"):
        (pictures / name).write_bytes(b"picture")
    return pictures


@pytest.mark.parametrize("command", ["classify", "detect", "segment"])
def test_priority_travels_with_the_call(shell: Shell, service: FakeService, folder: Path, command: str) -> None:
    shell(command, folder / "b.jpg", "--model", "m")
    shell(command, folder / "b.jpg", "--model", "m", "--priority", "bulk")
    assert [one.get("x-priority") for one in service.metadata[-2:]] == [None, "bulk"]
    shell(command, folder / "b.jpg", "--model", "m", "--priority", "urgent")
    assert shell.code == 2


def test_classify_json(shell: Shell, folder: Path) -> None:
    (record,) = shell.records("classify", folder / "b.jpg", "--json")
    assert shell.code == 0
    assert record.pop("image_uuid")
    assert record["timing_us"].pop("total") > 0
    assert record == {
        "image": str(folder / "b.jpg"),
        "model": "efficientnet-lite0",
        "classes": [{"index": 7, "label": "cock", "probability": 0.75}],
        "timing_us": {"queue": 1, "fetch": 2, "decode": 3, "compute": 4},
        "batch_size": 5,
    }


def test_detect_json(shell: Shell, folder: Path) -> None:
    (record,) = shell.records("detect", folder / "b.jpg", "--json", "--model", "texts")
    assert record["boxes"] == [{"x": 0.25, "y": 0.5, "width": 0.125, "height": 0.25, "label": "text", "score": 0.5}]
    assert record["model"] == "texts"


def test_segment_json(shell: Shell, folder: Path) -> None:
    (record,) = shell.records("segment", folder / "b.jpg", "--json", "--model", "colours", "--mask-size", "picture")
    assert record["mask"] == {"width": 3, "height": 2}
    assert record["regions"] == [
        {"index": 1, "label": "thing", "pixels": 3},
        {"index": 0, "label": "background", "pixels": 2},
    ]
    (record,) = shell.records("segment", folder / "b.jpg", "--json", "--runs", "--model", "colours")
    assert [region["counts"] for region in record["regions"]] == [[2, 3, 1], [0, 2, 4]]


def test_segment_tells_each_regions_share(shell: Shell, folder: Path) -> None:
    shown = shell("segment", folder / "b.jpg", "gone.jpg", "--model", "colours")
    assert "1 thing" in shown
    assert "0.500" in shown
    assert "NOT_FOUND: gone.jpg: no such file" in shown
    assert shell.code == 1
    shell("segment", folder)
    assert shell.code == 2
    assert "--model" in shell.err


def test_saved_masks_need_no_library(shell: Shell, folder: Path, tmp_path: Path) -> None:
    for runs in ([], ["--runs"]):
        shell("segment", folder / "b.jpg", "gone.jpg", "--model", "colours", "--output", tmp_path / "masks", *runs)
        (saved,) = (tmp_path / "masks").iterdir()
        assert saved.name == "b.mask.png"
        assert decode_png(saved.read_bytes()).indices == bytes([0, 1, 1, 0, 1, 255])
    (tmp_path / "file").touch()
    shell("segment", folder / "b.jpg", "--model", "colours", "--output", tmp_path / "file" / "masks")
    assert (shell.code, "--output" in shell.err) == (2, True)


def test_drawn_masks(shell: Shell, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    numpy = pytest.importorskip("numpy")
    cv2.imwrite(str(tmp_path / "page.png"), numpy.full((40, 60, 3), 200, numpy.uint8))
    shell("segment", tmp_path / "page.png", "--model", "colours", "--draw", tmp_path / "drawn")
    assert shell.code == 0
    drawn = cv2.imread(str(tmp_path / "drawn" / "page.overlay.jpg")).astype(int)
    for x, y, bgr in ((8, 8, (100, 100, 100)), (32, 8, (100, 100, 164)), (52, 32, (200, 200, 200))):
        assert abs(drawn[y, x] - bgr).max() < 6, (x, y, drawn[y, x])


def test_folders_are_searched_and_one_failure_is_its_own(shell: Shell, folder: Path) -> None:
    records = shell.records("classify", folder, "gone.jpg", "--json")
    names = ["a.JPEG", "b.jpg", "more/c.png"]
    assert [record["image"] for record in records] == [*(str(folder / name) for name in names), "gone.jpg"]
    assert records[-1]["error"] == {"code": "NOT_FOUND", "message": "gone.jpg: no such file"}
    assert shell.code == 1


def test_a_name_that_the_system_refuses_fails_alone(shell: Shell, folder: Path) -> None:
    records = shell.records("classify", "x" * 300, folder / "b.jpg", "--json")
    assert records[0]["error"]["code"] == "INVALID_ARGUMENT"
    assert "can't be read: File name too long" in records[0]["error"]["message"]
    assert "classes" in records[1]


def test_the_table(shell: Shell, folder: Path) -> None:
    (folder / "odd [red].jpg").write_bytes(b"picture")
    shown = shell("classify", folder, "gone.jpg")
    assert "7 cock" in shown
    assert "0.750" in shown
    assert "odd [red].jpg" in shown
    assert "NOT_FOUND: gone.jpg: no such file" in shown
    assert shell.code == 1


def test_a_wrong_command_line_is_2(shell: Shell, tmp_path: Path) -> None:
    shell("classify")
    assert shell.code == 2
    (tmp_path / "empty").mkdir()
    shell("classify", tmp_path / "empty")
    assert shell.code == 2
    assert "no pictures" in shell.err


def test_nothing_to_talk_to(shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOAL_TARGET")
    shell("classify", folder)
    assert shell.code == 2
    assert "shoal up" in shell.err


def test_a_service_that_is_away(shell: Shell, folder: Path, unused_tcp_port: int) -> None:
    target = f"127.0.0.1:{unused_tcp_port}"
    records = shell.records("classify", folder, "--json", "--target", target)
    assert [record["error"]["code"] for record in records] == ["UNAVAILABLE"] * 3
    assert shell.code == 1
    shell("classify", folder, "--target", target)
    assert "shoal up" in shell.err
    assert shell.code == 1


def test_drawn_boxes(shell: Shell, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    numpy = pytest.importorskip("numpy")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "page.png"), numpy.zeros((20, 40, 3), numpy.uint8))
    shell("detect", tmp_path / "one", tmp_path / "two", "--draw", tmp_path / "drawn", "--json")
    assert shell.code == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["page-2.boxes.jpg", "page.boxes.jpg"]
    drawn = cv2.imread(str(tmp_path / "drawn" / "page.boxes.jpg"))
    assert drawn[10, 12, 2] > 100  # the corner at (0.25, 0.5) is red
