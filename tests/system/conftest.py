"""A whole service for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Store, worker, batcher and router with the tiny classifier."""
    with running_stack(tmp_path_factory.mktemp("stack") / "home", models=add_tiny_classifier) as running:
        yield running
