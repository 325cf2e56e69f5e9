from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.router.key_sources import KeySource, files, read
from shoal.service.tokens import TokenIssuer
from support.certificates import self_signed
from support.token_issuer import Issuer

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC = {"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}


def issuer(**source: object) -> dict[str, TokenIssuer]:
    return {"company": TokenIssuer.model_validate({"issuer": "i", "audiences": ["a"], **source})}


def test_a_key_set_of_a_file_is_read(tmp_path: Path) -> None:
    made = Issuer()
    (tmp_path / "jwks.json").write_text(made.key_set)
    tokens = issuer(jwks_file=str(tmp_path / "jwks.json"))
    assert json.loads(read(tokens)["company"].jwks) == json.loads(made.key_set)
    assert list(files(tokens)) == [tmp_path / "jwks.json"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "can't be read: No such file"),
        ("nonsense", "not JSON"),
        ('{"keys": [], "keys": []}', "not JSON, nested too deep, or with a name twice"),
        ("[]", 'expected {"keys": [...]}'),
        ('{"keys": []}', "with a key or more"),
        (json.dumps({"keys": [PUBLIC, {"kty": "oct", "k": "c2VjcmV0LXdvcmRz"}]}), "key 2 is a shared secret"),
        (json.dumps({"keys": [{**PUBLIC, "d": "c2VjcmV0LXdvcmRz"}]}), "key 1 is a private key"),
        (json.dumps({"keys": [{"kty": "AES"}]}), "key 1 has no kty that is known: EC, OKP, RSA"),
        (json.dumps({"keys": [7]}), "key 1 has no kty"),
    ],
)
def test_what_is_no_public_key_set_is_refused(tmp_path: Path, text: str | None, fault: str) -> None:
    if text is not None:
        (tmp_path / "jwks.json").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read(issuer(jwks_file=str(tmp_path / "jwks.json")))
    assert str(raised.value).startswith(f"router.tokens.company.jwks_file: {tmp_path}/jwks.json: ")
    assert fault in str(raised.value)
    assert "c2VjcmV0LXdvcmRz" not in str(raised.value)


def test_who_vouches_for_a_url_is_read(tmp_path: Path) -> None:
    self_signed().write(tmp_path)
    tokens = issuer(jwks_url="https://i.example/keys", ca_file=str(tmp_path / "tls.crt"))
    assert read(tokens) == {"company": KeySource(authorities=(tmp_path / "tls.crt").read_text())}
    assert list(files(tokens)) == [tmp_path / "tls.crt"]
    assert read(issuer(jwks_url="http://i.example/keys")) == {"company": KeySource()}
    with pytest.raises(ConfigurationError, match=r"router\.tokens\.company\.ca_file: .*nothing: can't be read"):
        read(issuer(jwks_url="https://i.example/keys", ca_file=str(tmp_path / "nothing")))


def test_the_systems_authorities_are_the_usual_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    self_signed().write(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.crt"))
    tokens = issuer(jwks_url="https://i.example/keys")
    assert read(tokens)["company"].authorities == (tmp_path / "tls.crt").read_text()
    assert list(files(tokens)) == []
