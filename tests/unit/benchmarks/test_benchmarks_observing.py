from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from benchmarks.observing.boards import Target, boards
from benchmarks.observing.draw import draw
from benchmarks.observing.load import callers
from benchmarks.observing.prometheus import Series
from shoal.errors import Overloaded
from shoal.observe import dashboards

if TYPE_CHECKING:
    from pathlib import Path

BOARDS = boards(service="local", model="tiny", pool="default", pipeline="street")
PHASES = [("little", 100.0), ("much", 130.0)]


class Client:
    """Answers when it is told to; counts who waits."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.waiting = 0
        self.most = 0
        self.error: Exception | None = None

    async def classify(self, image: str, model: str) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.go.wait()
        finally:
            self.waiting -= 1
        if self.error:
            raise self.error


def test_dashboards_are_read_as_grafana_reads_them() -> None:
    assert {f"shoal-{board.name}.json" for board in BOARDS} == set(dashboards.render())
    targets = [target for board in BOARDS for panel in board.panels for target in panel.targets]
    assert not [target.expr for target in targets if "$" in target.expr]
    assert {panel.kind for board in BOARDS for panel in board.panels} == {"row", "stat", "timeseries"}


def test_a_legend_names_a_series_by_its_labels() -> None:
    assert Target("x", "asked for {{pool}} {{gone}}").named({"pool": "a"}) == "asked for a "


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_is_drawn_with_and_without_data(board: object, tmp_path: Path) -> None:
    targets = [target for panel in board.panels for target in panel.targets]
    series = [Series({"pool": "a", "code": "OK"}, ((100.0, 0.0), (130.0, 0.8), (160.0, 1500.0)))]
    sizes = []
    for answers in (dict.fromkeys(targets, series), {target: [] for target in targets}):
        draw(board, answers, PHASES, 160.0, tmp_path / "board.png")
        with Image.open(tmp_path / "board.png") as image:
            sizes.append(image.size)
    assert sizes[0] == sizes[1]
    assert sizes[0][0] > 1000


async def test_there_are_as_many_callers_as_was_said() -> None:
    client = Client()
    async with callers(client, "tiny", ["a", "b"]) as load:
        for count in (3, 1, 5):
            await load.set(count)
            while client.waiting != count:  # callers tell nobody
                await asyncio.sleep(0)
    assert client.waiting == 0
    assert client.most == 5


async def test_who_is_refused_rests_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.observing.load._REST_SECONDS", 0.0)
    client = Client()
    client.error = Overloaded("full")
    client.go.set()
    async with callers(client, "tiny", ["a"]) as load:
        await load.set(1)
        for _ in range(20):
            await asyncio.sleep(0)
        client.go.clear()
        while not client.waiting:  # callers tell nobody
            await asyncio.sleep(0)
