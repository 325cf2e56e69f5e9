from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shoal.client import AsyncClient
from shoal.errors import Unavailable
from support.fake_service import API_KEY, KNOWN, FakeService


def self_signed() -> tuple[bytes, bytes]:
    """A private key and its certificate for ``localhost``, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


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
