from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.profile import choice
from shoal.profile.records import FORMAT, Setting, read, write
from support.profiles import cell, empty, measured

if TYPE_CHECKING:
    from pathlib import Path


def test_a_profile_comes_back_as_it_was_with_its_figures_for_others(tmp_path: Path) -> None:
    profile = empty()
    for rate in (100.0, 130.0, 110.0):
        profile = profile.with_round(cell(concurrency=2), measured(rate), 8.0)
    write(tmp_path / "profile.json", profile)
    assert read(tmp_path / "profile.json") == profile
    data = json.loads((tmp_path / "profile.json").read_text())
    assert data["format"] == FORMAT
    assert data["cells"][0]["images_per_s"] == {"median": 110.0, "min": 100.0, "max": 130.0}
    assert data["cells"][0]["p99_ms"]["median"] == 20.0
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_rounds_join_their_cell_and_others_stay_apart() -> None:
    profile = empty()
    for like in (cell(), cell(concurrency=2), cell(duration_s=2.0), cell(input="pictures"), cell()):
        profile = profile.with_round(like, measured(100.0), None)
    assert len(profile.cells) == 4
    assert len(profile.cell(cell()).rounds) == 2
    assert profile.cell(cell(batch=1)).rounds == ()


def test_the_time_of_a_batch_is_that_of_a_busy_instance() -> None:
    # 4 instances, 100 batches of 8 a second: each instance does 25 a second.
    assert cell(4, 8, 16, measured(800.0)).batch_ms == 40.0
    assert cell(4, 8, 2, measured(800.0)).batch_ms == 20.0


def test_a_cell_is_settled_only_if_every_round_was() -> None:
    assert cell(1, 8, 1, measured(1.0)).settled
    assert not cell(1, 8, 1, measured(1.0), measured(1.0, settled=False)).settled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        ('{"format": "shoal.profile/9"}', "format: Input should be 'shoal.profile/1'"),
        ("{}", "subject: Field required"),
    ],
)
def test_what_is_no_profile_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path / "profile.json")


def test_no_file_is_no_profile(tmp_path: Path) -> None:
    assert read(tmp_path / "profile.json") is None


def test_the_best_has_the_most_images_within_the_limit() -> None:
    cells = [
        cell(1, 1, 1, measured(100.0, 10.0)),
        cell(1, 8, 2, measured(400.0, 40.0)),
        cell(2, 8, 4, measured(600.0, 60.0)),
    ]
    found = [choice.best(cells, slo) for slo in (5.0, 10.0, 59.9, 60.0)]
    assert [each and each.setting for each in found] == [None, Setting(1, 1, 1), Setting(1, 8, 2), Setting(2, 8, 4)]
    assert choice.closest(cells).setting == Setting(1, 1, 1)


def test_a_tie_goes_to_fewer_in_flight_then_instances_then_images() -> None:
    cells = [
        cell(2, 8, 8, measured(1000.0)),
        cell(2, 8, 4, measured(985.0)),
        cell(1, 8, 4, measured(981.0)),
        cell(1, 4, 4, measured(981.0)),
        cell(1, 1, 1, measured(979.0)),  # more than 2 % behind
    ]
    found = choice.best(cells, 50.0)
    assert found is not None
    assert found.setting == Setting(1, 4, 4)
