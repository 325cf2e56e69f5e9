from __future__ import annotations

import pytest

from shoal.client import AsyncClient, Client
from shoal.client.caller import caller_of
from shoal.errors import ConfigurationError
from support.fake_service import KNOWN, serving


@pytest.mark.parametrize(("key", "token"), [(None, None), ("key", "a.b.c")])
def test_either_a_key_or_a_token(key: str | None, token: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"either api_key.* or the token"):
        caller_of(key, token)


@pytest.mark.parametrize("key", ["", " ", "k\n", "schlüssel"])
def test_what_can_be_no_key(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key: expected printable ASCII"):
        caller_of(key, None)


def test_no_secret_is_shown() -> None:
    with Client(token="a.b.c") as client:
        assert repr(client) == "Client('localhost:8080', token=…)"
    assert repr(AsyncClient(api_key="secret")) == "AsyncClient('localhost:8080', api_key=…)"


async def test_calls_and_uploads_carry_the_token_alone() -> None:
    async with serving() as service, AsyncClient(service.target, token=lambda: "a.b.c") as client:
        await client.classify(KNOWN, "cats")
        await client.upload(b"picture")
        assert service.calls["Create"] == 1
    assert service.requests[0].api_key == ""
    assert service.metadata[0]["authorization"] == "Bearer a.b.c"
    assert "x-api-key" not in service.metadata[0]
