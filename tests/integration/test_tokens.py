"""Callers with a token in the place of an API key, at a real router; batcher and workers are small echo servers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import grpc
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey

from shoal.batching.wire import KEYS_CHECK
from shoal.runtime.priority import Priority
from shoal.service import api_keys
from shoal.service.identity import Identity
from support.certificates import self_signed
from support.router_rig import CLASSIFY_STREAM, PATIENCE, Rig, running
from support.token_issuer import HOUR, ISSUER, Issuer, publishing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

UPLOAD = "/shoal.v1.Uploads/Create"
CLAIMS = "models_claim: models, priority_claim: urgency"


class Place(NamedTuple):
    rig: Rig
    issuer: Issuer

    async def call(self, *metadata: tuple[str, str], model: str | None = "yolo", **options: Any) -> Any:
        return await self.rig.call(None, model, metadata=list(metadata), **options)

    async def told(self, model: str | None = "yolo", path: str = UPLOAD, **claims: object) -> Identity:
        """What goes on behind the router."""
        seen = await self.call(self.issuer.bearer(**claims), model=model, path=path)
        found = Identity.parse(seen["x-api-key"])
        assert found, seen
        return found

    async def until(self, code: str, token: tuple[str, str]) -> None:
        await self.rig.until(code, None, metadata=[token])


@asynccontextmanager
async def tokens(tmp_path: Path, more: str = CLAIMS) -> AsyncGenerator[Place]:
    issuer = Issuer()
    (tmp_path / "keys").mkdir(exist_ok=True)
    (tmp_path / "keys" / "jwks.json").write_text(issuer.key_set)
    async with running(tmp_path, service=service(tmp_path, more)) as rig:
        yield Place(rig, issuer)


def service(tmp_path: Path, more: str = "", name: str = "company") -> str:
    source = "" if "jwks_url" in more else f"jwks_file: {tmp_path}/keys/jwks.json, "
    return f"router: {{tokens: {{{name}: {{issuer: {ISSUER!r}, audiences: [shoal], {source}{more}}}}}}}"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with tokens(tmp_path) as made:
        yield made


async def test_a_tokens_claims_become_the_callers_identity(place: Place) -> None:
    end = int(time.time()) + HOUR
    found = await place.told(exp=end)
    assert (found.key_id, found.owner, found.prefix) == ("token:company:alice", "alice", "alice/")
    assert (found.priority, found.json, found.expires) == (Priority.INTERACTIVE, True, end)
    assert (await place.told(urgency="bulk")).priority is Priority.BULK
    assert (await place.told(urgency="bulk&owner=bob")).owner == "alice"
    seen = await place.call(place.issuer.bearer(models=["yolo"]))
    assert seen["x-client-id"] == "token:company:alice"
    assert "authorization" not in seen


@pytest.mark.parametrize("models", [["resnet", "yolo"], "resnet yolo", ["yo*"], ["*"], "y*"])
async def test_models_of_the_claim_may_be_called(place: Place, models: object) -> None:
    assert (await place.call(place.issuer.bearer(models=models)))["server"] == "batcher"


@pytest.mark.parametrize("models", [None, [], "", ["yol"], ["yolo-2"], ["*yolo"], 7, {"yolo": 1}, [["yolo"]]])
async def test_others_are_refused(place: Place, models: object) -> None:
    code, text = await place.call(place.issuer.bearer(models=models))
    assert code == "PERMISSION_DENIED"
    assert "may not call model 'yolo'" in text


async def test_what_a_caller_says_of_itself_goes_no_further(place: Place) -> None:
    forged = Identity("alice-1", "bob", "bob/", "d", json=True).write()
    spoofed = [("x-client-id", forged), ("x-client-id", forged), ("x-shoal-owner", "bob")]
    seen = await place.call(place.issuer.bearer(models="*"), *spoofed)
    assert "bob" not in seen["x-api-key"] + seen["x-client-id"]
    assert await place.rig.code(None, metadata=spoofed) == "UNAUTHENTICATED"


def _unsigned(place: Place) -> str:
    payload = place.issuer.token().split(".")[1]
    return f"{_part({'alg': 'none'})}.{payload}."


def _signed_with_the_public_key(place: Place) -> str:
    payload = place.issuer.token().split(".")[1]
    signed = f"{_part({'alg': 'HS256', 'kid': '1'})}.{payload}"
    mac = hmac.new(place.issuer.key.as_pem(private=False), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64(mac)}"


def _of_another(place: Place) -> str:
    return Issuer().token()


def _changed(place: Place) -> str:
    header, _, signature = place.issuer.token().split(".")
    claims = _part({"iss": ISSUER, "aud": "shoal", "sub": "bob", "exp": 2e9})
    return f"{header}.{claims}.{signature}"


def _part(told: object) -> str:
    return _base64(json.dumps(told).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _with(**claims: object) -> Callable[[Place], str]:
    return lambda place: place.issuer.token(**claims)


REFUSED: dict[str, tuple[Callable[[Place], str], str]] = {
    "expired": (_with(exp=int(time.time()) - HOUR), "expired"),
    "endless": (_with(exp=None), "verification fails"),
    "not yet": (_with(nbf=int(time.time()) + HOUR), "not yet valid"),
    "foreign audience": (_with(aud="another"), "Audiences"),
    "no audience": (_with(aud=None), "Audiences"),
    "foreign issuer": (_with(iss="https://other.example"), "issuer"),
    "no issuer": (_with(iss=None), "issuer"),
    "no owner": (_with(sub=None), "its claim 'sub' names no owner"),
    "owner of a key's form": (_with(sub="a?v=1"), "its claim 'sub' names no owner"),
    "owner in another place": (_with(sub="../bob"), "its claim 'sub' names no owner"),
    "owner as a list": (_with(sub=["alice"]), "token is refused"),
    "wrong signature": (_of_another, "verification fails"),
    "changed": (_changed, "verification fails"),
    "alg none": (_unsigned, "form of Header.Payload.Signature"),
    "HS256 with the public key": (_signed_with_the_public_key, "token is refused"),
    "nonsense": (lambda _: "nonsense", "form of Header.Payload.Signature"),
}  # fmt: skip


async def test_a_token_that_isnt_good_is_refused_with_the_reason(place: Place) -> None:
    for name, (make, reason) in REFUSED.items():
        token = make(place)
        code, text = await place.call(("authorization", f"Bearer {token}"))
        assert (name, code) == (name, "UNAUTHENTICATED"), text
        assert reason in text, name
        assert not any(part and part in text for part in token.split(".") if len(part) > 20), name


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_other_kinds_of_keys_sign_too(tmp_path: Path) -> None:
    async with tokens(tmp_path, "") as place:
        for key, algorithm in (
            (ECKey.generate_key("P-256", {"kid": "e"}), "ES256"),
            (OKPKey.generate_key("Ed25519", {"kid": "o"}), "EdDSA"),
        ):
            (tmp_path / "keys" / "jwks.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
            claims = {"iss": ISSUER, "aud": "shoal", "sub": "alice", "exp": int(time.time()) + HOUR}
            token = jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])
            await place.until("OK", ("authorization", f"Bearer {token}"))


async def test_a_key_wins_over_a_token(place: Place) -> None:
    for token in (
        place.issuer.bearer(sub="bob", models=[]),
        ("authorization", "Bearer nonsense"),
        ("authorization", "Basic eA=="),
    ):
        seen = await place.rig.call(place.rig.alice.key, metadata=[token])
        assert Identity.parse(seen["x-api-key"]) == Identity.of(place.rig.alice)
    assert (
        await place.rig.code("unknown-key-of-some-length", metadata=[place.issuer.bearer(models="*")])
        == "UNAUTHENTICATED"
    )


async def test_without_either_the_answer_is_as_ever(place: Place) -> None:
    code, text = await place.call()
    assert (code, "the API key in the metadata x-api-key is missing" in text) == ("UNAUTHENTICATED", True)
    assert await place.rig.code(None, metadata=[("authorization", "Basic eDp5")]) == "UNAUTHENTICATED"
    assert (
        await place.rig.code(None, path="/shoal.v1.Inference/Classify?access_token=" + place.issuer.token(models="*"))
        == "UNAUTHENTICATED"
    )


async def test_health_needs_neither_and_asks_for_neither(place: Place) -> None:
    path = "/grpc.health.v1.Health/Check"
    metadata = [("authorization", "Bearer nonsense")]
    await place.rig.channel.unary_unary(path)(b"", metadata=metadata, timeout=PATIENCE)


async def test_json_and_grpc_web_take_tokens_too(place: Place) -> None:
    url = f"http://{place.rig.topology.public}"
    good, bad, other = (
        {"authorization": place.issuer.bearer(**claims)[1]}
        for claims in ({"models": "*"}, {"models": "*", "exp": 1}, {})
    )
    async with aiohttp.ClientSession() as session:

        async def json_call(headers: dict[str, str]) -> tuple[int, Any]:
            async with session.post(f"{url}/v1/models/yolo:classify", json={}, headers=headers) as answer:
                return answer.status, await answer.read()

        assert json.loads((await json_call(bad))[1]) == {
            "code": 16,
            "message": "the token is refused: Jwt is expired",
            "details": [],
        }
        status, body = await json_call(other)
        assert (status, json.loads(body)["code"]) == (403, 7)
        assert (await json_call(good))[0] not in {401, 403}  # the echo's answer is no message of ours
        web = {"content-type": "application/grpc-web+proto", "x-model-name": "yolo"}
        async with session.post(f"{url}/shoal.v1.Inference/Classify", data=bytes(5), headers=web | good) as answer:
            assert b"token:company:alice" in await answer.read()
        async with session.post(f"{url}/shoal.v1.Inference/Classify", data=bytes(5), headers=web | bad) as answer:
            assert answer.headers["grpc-status"] == "16"
        async with session.get(f"{url}/v1/models", headers=good) as answer:
            assert answer.status == 200


async def test_new_keys_of_the_file_count_on_open_connections(place: Place, tmp_path: Path) -> None:
    old = place.issuer.bearer(models="*")
    await place.until("OK", old)
    place.issuer.rotate()
    new = place.issuer.bearer(models="*")
    assert await place.rig.code(None, metadata=[new]) == "UNAUTHENTICATED"
    (tmp_path / "keys" / "jwks.json").write_text("{broken")  # stays as it was
    (tmp_path / "keys" / "jwks.json").write_text(place.issuer.key_set)
    await place.until("OK", new)
    assert await place.rig.code(None, metadata=[old]) == "UNAUTHENTICATED"


async def test_an_owner_has_its_rate_over_all_of_its_tokens(tmp_path: Path) -> None:
    async with tokens(tmp_path, "requests_per_second: 0.01") as place:
        codes = [await place.rig.code(None, metadata=[place.issuer.bearer(jti=str(n))]) for n in range(3)]
        assert codes == ["OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
        told = await place.call(place.issuer.bearer())
        assert told == ("RESOURCE_EXHAUSTED", "the rate limit of this token's owner is reached; try again later")
        headers = dict([place.issuer.bearer()]) | {"content-type": "application/json"}
        url = f"http://{place.rig.topology.public}/v1/models/yolo:classify"
        async with aiohttp.ClientSession() as session, session.post(url, data=b"{}", headers=headers) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            assert "this token's owner" in (await answer.json())["message"]
        assert (await place.told(sub="bob")).requests_per_second == 0.01
        assert await place.rig.code(place.rig.alice.key) == "OK"


async def test_a_fixed_owner_and_a_claim_of_any_name(tmp_path: Path) -> None:
    async with tokens(tmp_path, "owner: robots, models_claim: 'https://a.example/may.call'") as place:
        claims = {"sub": "system:serviceaccount:ns:a", "https://a.example/may.call": ["yolo"]}
        seen = await place.call(place.issuer.bearer(**claims))
        assert seen["x-client-id"] == "token:company:robots"


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_a_key_set_at_a_url_is_fetched_again(tmp_path: Path, tls: bool) -> None:
    published = Issuer()
    certificate = tmp_path / "certificate"
    self_signed("localhost").write(certificate)
    with publishing(published, certificate if tls else None) as server:
        where = f"{'https' if tls else 'http'}://localhost:{server.port}/jwks.json?of=us"
        ca = f", ca_file: {certificate}/tls.crt" if tls else ""
        async with tokens(tmp_path, f"jwks_url: '{where}', refresh_seconds: 1{ca}") as place:
            old = published.bearer()
            await place.until("OK", old)
            published.rotate()
            await place.until("OK", published.bearer())
            assert await place.rig.code(None, metadata=[old]) == "UNAUTHENTICATED"


async def test_an_issuer_that_is_away_is_no_fault_of_the_token(tmp_path: Path) -> None:
    published = Issuer()
    with publishing(published) as server:
        server.broken = True
        url = f"jwks_url: 'http://127.0.0.1:{server.port}/'"
        async with tokens(tmp_path, url) as place:
            code, text = await place.call(published.bearer())
            assert (code, "issuer can't be fetched" in text) == ("UNAVAILABLE", True)
            assert await place.rig.code(place.rig.alice.key) == "OK"
            server.broken = False
            await place.until("OK", published.bearer())


async def test_what_was_read_last_holds_while_the_issuer_is_away(tmp_path: Path) -> None:
    published = Issuer()
    with publishing(published) as server:
        async with tokens(tmp_path, f"jwks_url: 'http://127.0.0.1:{server.port}/', refresh_seconds: 1") as place:
            await place.until("OK", published.bearer())
            server.broken = True
            while server.failed < 2:
                assert await asyncio.to_thread(server.asked.acquire, timeout=PATIENCE)
            assert await place.rig.code(None, metadata=[published.bearer()]) == "OK"


async def test_a_stream_of_calls_opens_with_a_token_and_is_known_while_its_issuer_is(
    place: Place, tmp_path: Path
) -> None:
    call = place.rig.open_calls(None, metadata=[place.issuer.bearer(models="*")], path=CLASSIFY_STREAM)
    shown = json.loads(await call.read())["x-api-key"]
    call.cancel()
    found = Identity.parse(shown)
    assert found
    assert found.expires

    async def known() -> str:
        check = place.rig.balancer.unary_unary(KEYS_CHECK)(
            b"", metadata=[("x-api-key", shown), ("x-model-name", "yolo")]
        )
        return (await check.code()).name

    assert await known() == "OK"
    (tmp_path / "shoal.yaml").write_text(service(tmp_path, CLAIMS, "another"))
    while await known() == "OK":
        await asyncio.sleep(0.02)
    assert await known() == grpc.StatusCode.UNAUTHENTICATED.name


async def test_two_issuers(tmp_path: Path) -> None:
    other = Issuer("https://other.example")
    (tmp_path / "other.json").write_text(other.key_set)
    partner = f"issuer: '{other.name}', audiences: [a, shoal], jwks_file: {tmp_path}/other.json, owner_claim: team"
    more = f"}}, partner: {{{partner}"
    async with tokens(tmp_path, more) as place:
        assert (await place.told()).key_id == "token:company:alice"
        seen = await place.call(other.bearer(team="red"))
        assert seen["x-client-id"] == "token:partner:red"
        wrong = Issuer(other.name)
        assert await place.rig.code(None, metadata=[wrong.bearer(team="red")]) == "UNAUTHENTICATED"
        expired = await place.call(other.bearer(team="red", exp=1))
        assert expired == ("UNAUTHENTICATED", "the token is refused: Jwt is expired")


async def test_other_keys_are_no_concern_of_tokens(place: Place) -> None:
    before = await place.told()
    api_keys.create(place.rig.home.keys, "carol")
    while (after := await place.told(exp=before.expires)) == before:
        await asyncio.sleep(0.02)
    assert after.digest != before.digest
    assert after == Identity(before.key_id, "alice", "alice/", after.digest, 0.0, json=True, expires=before.expires)
