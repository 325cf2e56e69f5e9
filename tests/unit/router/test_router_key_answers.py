from __future__ import annotations

import re
from typing import Any

import pytest

from shoal.router.key_answers import key_routes, version
from shoal.runtime.priority import Priority
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.service.tokens import TokenIssuer

ALICE = Key(id="alice-1", key="a-secret-of-some-length-a", owner="alice")
BOB = Key(id="bob-1", key="a-secret-of-some-length-b", owner="bob", models=("resnet*",))
MODELS = ("resnet-50", "yolo")


def known(*keys: Key) -> dict[str, set[str]]:
    """The identities that are OK, by the model named; empty: any other."""
    version_route, *checks = key_routes(MODELS, KeyRing(keys))
    assert version_route["match"]["path"].endswith("/Version")
    return {model_of(route): {each["key"] for each in credentials(route)} for route in checks}


def model_of(route: dict[str, Any]) -> str:
    named = route["match"].get("headers", [])
    return str(named[0]["string_match"]["exact"]) if named else ""


def credentials(route: dict[str, Any]) -> list[dict[str, str]]:
    (config,) = route["typed_per_filter_config"].values()
    return list(config["credentials"])


def identity(key: Key) -> str:
    return Identity.of(key).write()


def test_an_identity_is_known_for_the_models_of_its_key() -> None:
    assert known(ALICE, BOB) == {"yolo": {identity(ALICE)}, "": {identity(ALICE), identity(BOB)}}
    assert known(BOB) == {"yolo": set(), "": {identity(BOB)}}


def test_no_secret_is_told() -> None:
    assert not any(key.key in str(key_routes(MODELS, KeyRing([ALICE, BOB]))) for key in (ALICE, BOB))


@pytest.mark.parametrize(
    ("shown", "known"),
    [("token:company:alice?v=1", True), ("token:a.b:alice?v=1", True), ("token:axb:alice?v=1", False),
     ("token:other:alice?v=1", False), ("alice-1?token:company:alice?", False)],
)  # fmt: skip
def test_a_tokens_caller_is_known_as_long_as_its_issuer_is(shown: str, known: bool) -> None:
    issuer = TokenIssuer(issuer="https://i.example", audiences=["shoal"], jwks_file="a")
    _, check, *_ = key_routes(MODELS, KeyRing([ALICE]), {"company": issuer, "a.b": issuer})
    (header,) = check["match"]["headers"]
    assert bool(re.fullmatch(header["string_match"]["safe_regex"]["regex"], shown)) == known
    assert version(KeyRing([ALICE]), {"company": issuer}) != version(KeyRing([ALICE]))


@pytest.mark.parametrize(
    "change",
    [
        {"key": "another-secret-of-a-length"},
        {"prefix": "elsewhere/"},
        {"models": ("yolo",)},
        {"requests_per_second": 5.0},
        {"priority": Priority.BULK},
    ],
)
def test_any_change_of_a_key_is_another_version(change: dict[str, Any]) -> None:
    assert version(KeyRing([ALICE, BOB])) != version(KeyRing([ALICE.model_copy(update=change), BOB]))


def test_the_order_of_keys_and_models_is_no_change() -> None:
    assert version(KeyRing([ALICE, BOB])) == version(KeyRing([BOB, ALICE]))
    two, other = (ALICE.model_copy(update={"models": models}) for models in (("a", "b"), ("b", "a")))
    assert version(KeyRing([two])) == version(KeyRing([other]))
