from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.profile.book import Book
from shoal.profile.grid import Grid
from shoal.profile.records import Setting, read
from support.profiles import empty, measured

if TYPE_CHECKING:
    from pathlib import Path

GRID = Grid(instances=(1,), batches=(8,), concurrencies=(1, 2), rounds=1, duration_seconds=1.0, input="random")
SUBJECT = empty().subject


def opened(path: Path, *, force: bool = False, checksum: str = "sha256:0") -> Book:
    book = Book(path, force=force)
    book.open(GRID, SUBJECT.model_copy(update={"checksum": checksum}), "shoal profile m")
    return book


def test_each_measurement_is_on_disk_at_once_and_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    opened(path).add(Setting(1, 8, 1), measured(100.0), None)
    again = opened(path)
    assert [cell.setting for cell in again.cells()] == [Setting(1, 8, 1)]
    again.add(Setting(1, 8, 2), measured(200.0), None)
    kept = read(path)
    assert kept is not None
    assert len(kept.cells) == 2


def test_another_model_file_is_refused_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    opened(path).add(Setting(1, 8, 1), measured(100.0), None)
    with pytest.raises(ConfigurationError, match=r"of another subject \(checksum sha256:0, now sha256:1\): --force"):
        opened(path, checksum="sha256:1")
    forced = opened(path, checksum="sha256:1", force=True)
    assert forced.cells() == []
    assert (kept := read(path)) is not None  # until there is something better
    assert kept.subject == SUBJECT
    forced.add(Setting(1, 8, 1), measured(50.0), None)
    assert (kept := read(path)) is not None
    assert kept.subject.checksum == "sha256:1"


def test_another_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(empty().to_json())
    with pytest.raises(ConfigurationError, match=r"of another machine \(cpu a CPU, now "):
        opened(path)


def test_nothing_is_written_before_there_is_something(tmp_path: Path) -> None:
    opened(tmp_path / "profile.json")
    assert Book(tmp_path / "profile.json").cells() == []
    assert list(tmp_path.iterdir()) == []
