from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.runtime import gpus

if TYPE_CHECKING:
    from pathlib import Path


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_the_driver_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "echo NVIDIA H100; echo NVIDIA L4")
    assert gpus.names() == ("NVIDIA H100", "NVIDIA L4")
    assert gpus.usable({}) == ("0", "1")


@pytest.mark.parametrize("script", ["exit 9", "echo no driver; exit 1"])
def test_a_driver_that_fails_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    driver(tmp_path, monkeypatch, script)
    assert (gpus.names(), gpus.usable({})) == ((), ())


def test_without_a_driver_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.names() == ()


@pytest.mark.parametrize(("visible", "usable"), [("2, 3", ("2", "3")), ("GPU-5f", ("GPU-5f",)), ("", ())])
def test_what_we_may_use_is_what_cuda_is_told(visible: str, usable: tuple[str, ...]) -> None:
    assert gpus.usable({"CUDA_VISIBLE_DEVICES": visible}) == usable
