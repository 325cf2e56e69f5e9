"""One whole service for all tests that don't disturb it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def add_tiny_models(store: Path) -> None:
    """``tiny`` names the dominant colour, ``tiny-detector`` scores the four quadrants by brightness."""
    add_tiny_classifier(store)
    add_tiny_detector(store)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Store, worker, batcher and router with the tiny models. Don't stop its parts: start your own for that."""
    with running_stack(tmp_path_factory.mktemp("stack") / "home", models=add_tiny_models) as running:
        yield running
