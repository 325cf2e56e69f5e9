"""Stores open to a pod's ServiceAccount: AWS' IRSA and EKS Pod Identity, each as its webhook sets a pod up."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from shoal.pictures.objectstore import open_store, presign_puts
from shoal.service import spec
from support.certificates import self_signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROLE = "arn:aws:iam::111122223333:role/shoal-worker"
STORE = spec.ObjectStore(url="s3://images", managed=False)
_STS = """\
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>FROM-STS</AccessKeyId>
<SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken><Expiration>{until}</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class Aws:
    """What gives out credentials: STS over TLS, and the agent of Pod Identity on the node."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []

    async def sts(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        return web.Response(text=_STS.format(until=_until()), content_type="text/xml")

    async def agent(self, request: web.Request) -> web.Response:
        self.asked.append({"token": request.headers["authorization"]})
        keys = {"AccessKeyId": "FROM-AGENT", "SecretAccessKey": "secret", "Token": "session", "Expiration": _until()}
        return web.json_response(keys)


def _until() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The projected token of a ServiceAccount; nothing else tells who we are."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "token"
    file.write_text("a-projected-token")
    return file


@pytest.fixture
async def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Aws, str, str]]:
    """It, and the addresses of STS and of the agent."""
    certificate = self_signed()
    certificate.write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.crt"))
    here = Aws()
    app = web.Application()
    app.router.add_post("/", here.sts)
    app.router.add_get("/v1/credentials", here.agent)
    runner = web.AppRunner(app)
    await runner.setup()
    for encryption in (context, None):
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=encryption).start()
    (_, encrypted), (_, plain) = runner.addresses
    yield here, f"https://localhost:{encrypted}", f"http://127.0.0.1:{plain}/v1/credentials"
    await runner.cleanup()


async def signer() -> str:
    """Whose access key signs an upload now."""
    (url,) = await presign_puts(open_store(STORE, None, None), ["a.jpg"], 60)
    (credential,) = parse_qs(urlsplit(url).query)["X-Amz-Credential"]
    return credential.partition("/")[0]


async def test_a_role_is_taken_with_the_pods_token(
    aws: tuple[Aws, str, str], token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, sts, _ = aws
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)
    assert await signer() == "FROM-STS"
    assert here.asked[0].items() >= {"RoleArn": ROLE, "WebIdentityToken": "a-projected-token"}.items()


async def test_the_nodes_agent_is_asked_with_the_pods_token(
    aws: tuple[Aws, str, str], token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _, agent = aws
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    assert await signer() == "FROM-AGENT"
    assert here.asked == [{"token": "a-projected-token"}]


async def test_keys_in_the_environment_are_those_of_a_bucket_claim(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROM-CLAIM")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert await signer() == "FROM-CLAIM"
