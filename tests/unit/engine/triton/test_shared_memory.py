from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from shoal.engine.triton import shared_memory
from shoal.engine.triton.shared_memory import Region, sweep


def test_a_region_is_a_file_of_zeros_until_it_is_closed(tmp_path: Path) -> None:
    region = Region(100, tmp_path)
    file = tmp_path / region.name
    assert file.read_bytes() == bytes(100)
    region.memory[:3] = b"abc"
    assert file.read_bytes()[:3] == b"abc"
    region.close()
    region.close()
    assert not list(tmp_path.iterdir())
    assert region.memory[:3] == b"abc"


def test_a_dead_process_leaves_a_region_that_the_next_one_removes(tmp_path: Path) -> None:
    living = Region(10, tmp_path)
    other = tmp_path / "something-else"
    other.touch()
    program = (
        "import os, pathlib, sys; from shoal.engine.triton.shared_memory import Region\n"
        "Region(10, pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    assert sweep(tmp_path) == 1
    assert set(tmp_path.iterdir()) == {tmp_path / living.name, other}
    living.close()


def test_one_that_is_swept_before_it_is_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = os.open

    def open_and_lose_the_first(path: str, *arguments: int) -> int:
        file = real(path, *arguments)
        if not opened:
            Path(path).unlink()
        opened.append(str(path))
        return file

    monkeypatch.setattr(shared_memory.os, "open", open_and_lose_the_first)
    region = Region(10, tmp_path)
    assert len(opened) == 2
    assert (tmp_path / region.name).exists()
    region.close()


def test_a_region_takes_more_memory_when_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(f_frsize=2**20, f_blocks=2**10, f_bavail=2**10)
    monkeypatch.setattr(shared_memory.os, "fstatvfs", lambda _: device)
    region = Region(2**24, tmp_path, reserved=2**12)
    blocks = lambda: (tmp_path / region.name).stat().st_blocks * 512  # noqa: E731 - short
    assert (len(region.memory), blocks()) == (2**24, 2**12)
    assert region.reserve(2**12)
    assert blocks() == 2**12
    assert region.reserve(2**12 + 1)
    assert blocks() == 2**12 + 2**22, "a step"
    assert region.reserve(2**24)
    assert blocks() == 2**24
    assert not region.reserve(2**24 + 1)
    region.close()


def test_half_of_the_device_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mebibyte = SimpleNamespace(f_frsize=2**20, f_blocks=16, f_bavail=13)
    monkeypatch.setattr(shared_memory.os, "fstatvfs", lambda _: mebibyte)
    region = Region(2**24, tmp_path, reserved=2**20)
    assert region.reserve(6 * 2**20)
    mebibyte.f_bavail -= 5
    assert not region.reserve(6 * 2**20 + 1)
    assert region.reserve(6 * 2**20), "what it has it keeps"
    region.close()
    assert not region.reserve(2**23)


def test_too_little_memory_is_an_error_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        Region(2**62, tmp_path)
    assert not list(tmp_path.iterdir())
