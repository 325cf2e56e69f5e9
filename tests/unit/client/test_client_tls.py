from __future__ import annotations

import grpc
import pytest

from shoal.client import AsyncClient
from shoal.errors import Unavailable
from support.certificates import self_signed
from support.fake_service import API_KEY, KNOWN, FakeService


async def test_tls_checks_the_service_against_the_given_authority() -> None:
    private, certificate = self_signed()
    server = grpc.aio.server(handlers=FakeService().handlers())
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(private, certificate)]))
    await server.start()
    target = f"https://localhost:{port}"
    trusted = grpc.ssl_channel_credentials(certificate)
    async with AsyncClient(target, api_key=API_KEY, credentials=trusted) as client:
        assert (await client.classify(KNOWN, "cats")).image_uuid == KNOWN
    async with AsyncClient(target, api_key=API_KEY) as client:  # the public authorities don't know it
        with pytest.raises(Unavailable):
            await client.connect()
    await server.stop(0)
