from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.batcher.model_queue import ModelQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.batcher.request import Request


@pytest.fixture
def affinities(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the requests that entered a queue, in order."""
    entered: list[str] = []
    enter = ModelQueue.enter

    def noted(self: ModelQueue, requests: Sequence[Request]) -> None:
        entered.extend(request.affinity for request in requests)
        enter(self, requests)

    monkeypatch.setattr(ModelQueue, "enter", noted)
    return entered
