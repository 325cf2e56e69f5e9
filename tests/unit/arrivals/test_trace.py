from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

import pytest

from shoal.arrivals.trace import Arrival, read, split, survey, write
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = [
    Arrival(0.0, "cats", "amy"),
    Arrival(0.5, "dogs", ""),
    Arrival(0.5, "cats", "ben"),
    Arrival(12.25, "dogs", "amy"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def test_what_is_written_is_read(file: Path) -> None:
    write(file, iter(GOOD))
    assert list(read(file)) == GOOD
    assert file.read_text().startswith("time,model,owner\n0.000000,cats,amy\n")


@pytest.mark.parametrize(
    "text",
    [
        "time,model,owner\n0,cats,amy\n0.5,dogs,\n0.5,cats,ben\n12.25,dogs,amy\n",
        "\ufefftime,model,owner\r\n0,cats,amy\r\n0.5,dogs,\r\n0.5,cats,ben\r\n12.25,dogs,amy\r\n\r\n",
        'owner,time,model\namy,0.0,"cats"\n,5e-1,dogs\nben,.5,cats\namy, 12.25 ,dogs',
        (
            "time,model,owner\n2026-11-27T10:00:00Z,cats,amy\n2026-11-27T10:00:00.5Z,dogs,\n"
            "2026-11-27T11:00:00.5+01:00,cats,ben\n2026-11-27T10:00:12.250Z,dogs,amy\n"
        ),
        (
            "time,model,owner\n2026-11-27 10:00:00,cats,amy\n2026-11-27 10:00:00.5,dogs,\n"
            "2026-11-27 10:00:00.5,cats,ben\n2026-11-27 10:00:12.250,dogs,amy\n"
        ),
    ],
    ids=["plain", "bom and crlf", "other order", "stamps", "stamps without zone"],
)
def test_ways_to_write_the_same(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    assert list(read(file)) == GOOD


def test_an_owner_may_be_missing(file: Path) -> None:
    file.write_text("time,model\n1,cats\n")
    assert list(read(file)) == [Arrival(1.0, "cats", "")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ":1: the file is empty"),
        ("\n1,cats\n", ":1: the file is empty"),
        ("time,model\n", ": holds no arrivals"),
        ("time,model\n\n\n", ": holds no arrivals"),
        ("time,model,colour\n1,cats,red\n", ":1: unknown column 'colour'"),
        ("time;model\n1;cats\n", ":1: unknown column 'time;model'"),
        ("1,cats\n2,cats\n", ":1: unknown column '1'"),
        ("time,owner\n1,amy\n", ":1: no column 'model'"),
        ("model\ncats\n", ":1: no column 'time'"),
        ("time,time,model\n1,1,cats\n", ":1: two columns are named 'time'"),
        ("time,model\n2,cats\n1,cats\n", ":3: out of order: 1 s comes after 2 s"),
        ("time,model\n-1,cats\n", ":2: time -1: expected 0 or more"),
        ("time,model\nnan,cats\n", ":2: time nan: expected 0 or more"),
        ("time,model\n1,cats\ninf,cats\n", ":3: time inf: expected 0 or more"),
        ("time,model\nsoon,cats\n", ":2: time 'soon': expected seconds from the start, or an ISO time stamp"),
        ("time,model\n1_0,cats\n", ":2: time '1_0': expected seconds"),
        ("time,model\n1,cats\n2026-11-27T10:00:00Z,cats\n", ":3: time '2026-11-27T10:00:00Z' is not a number"),
        ("time,model\n2026-11-27T10:00:00Z,cats\n5,cats\n", ":3: time '5': expected seconds .*one kind in a file"),
        ("time,model\n2026-11-27T10:00:00Z,cats\n2026-11-27T10:00:01,cats\n", ":3: .* with and without a time zone"),
        ("time,model\n2026-11-27T10:00:01Z,cats\n2026-11-27T10:00:00Z,cats\n", ":3: time -1: expected 0 or more"),
        ("time,model\n1,\n", ":2: no model is named"),
        ("time,model\n1,cats,amy\n", ":2: 3 columns: expected 2"),
        ("time,model\n1\n", ":2: 1 columns: expected 2"),
        ('time,model\n1,"cats\n', ":2: is no CSV"),
    ],
)
def test_a_wrong_line_is_named(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=f"^{file}{told}"):
        list(read(file))


def test_lines_before_a_wrong_one_are_read(file: Path) -> None:
    file.write_text("time,model\n1,cats\nx,cats\n")
    arrivals = read(file)
    assert next(arrivals) == Arrival(1.0, "cats")
    with pytest.raises(ConfigurationError):
        next(arrivals)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere: can't be read: No such file"):
        list(read(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="expected a file"):
        survey(tmp_path)
    (tmp_path / "picture").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ConfigurationError, match="picture: is not text"):
        list(read(tmp_path / "picture"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="pipe: expected a file: a trace is read more than once"):
        survey(tmp_path / "pipe")


def test_a_survey(file: Path) -> None:
    write(file, GOOD)
    found = survey(file)
    assert (found.arrivals, found.seconds) == (4, 12.25)
    assert found.models == {"cats": 2, "dogs": 2}
    assert found.owners == {"amy": 2, "ben": 1}


def test_times_by_model_and_owner() -> None:
    assert split(GOOD) == {
        ("cats", "amy"): array("d", [0.0]),
        ("dogs", ""): array("d", [0.5]),
        ("cats", "ben"): array("d", [0.5]),
        ("dogs", "amy"): array("d", [12.25]),
    }


def test_what_could_not_be_read_is_not_written(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=":3: out of order"):
        write(file, [Arrival(2.0, "cats"), Arrival(1.0, "cats")])
    with pytest.raises(ConfigurationError, match="can't be written"):
        write(file.parent, GOOD)
