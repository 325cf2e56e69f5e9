from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.client import AsyncClient
from support.fake_service import API_KEY, PROMPT, FakeService, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    async with serving() as running:
        yield running


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.target, api_key=API_KEY, retry=PROMPT, timeout_seconds=60) as one:
        yield one
