"""Every kind of caller against every behaviour, at a real router: the table of docs/any-client.md."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from shoal.client import Client
from shoal.modelconfig.batching import BatchingSettings
from shoal.service import api_keys
from support import any_caller
from support.any_caller import KINDS, MISSING, OF_HTTP, OF_PAGES, OF_TOKENS, PAGE, TOKENS, Asked, Heard, bring
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier
from support.token_issuer import AUDIENCE, Issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RED = encode(Image.new("RGB", (64, 64), (250, 0, 0)))
BROKEN = RED[:20] + b"no picture"
HELD = "held"
"""A model that waits a minute for a full batch."""
_WAITS = BatchingSettings(max_batch_size=64, preferred_batch_size=(64,), max_queue_delay_microseconds=60_000_000)


@dataclass(frozen=True)
class Rig:
    stack: Stack
    asked: Asked
    limited: str
    """A key that may call once in 20 s."""
    other: str
    """A key that may not call the model."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("any")

    def models(store: Path) -> None:
        add_tiny_classifier(store)
        add_tiny_classifier(store, HELD, batching=_WAITS)

    picture = folder / "red.jpg"
    picture.write_bytes(RED)
    issuers = {"company": Issuer(), "slow": Issuer("https://slow.example")}
    for name, issuer in issuers.items():
        (folder / f"{name}.json").write_text(issuer.key_set)
    told = {
        name: f"{{issuer: '{one.name}', audiences: [{AUDIENCE}], jwks_file: {folder}/{name}.json, models_claim: models"
        for name, one in issuers.items()
    }
    tokens = f"company: {told['company']}}}, slow: {told['slow']}, requests_per_second: 0.05}}"
    service = f"router: {{cors_origins: [{PAGE}], tokens: {{{tokens}}}}}"
    with running_stack(folder / "home", models=models, service=service) as stack:
        any_caller.REFLECTING[0] = stack.api_key
        with Client(stack.target, api_key=stack.api_key) as client:
            asked = Asked(stack.target, stack.api_key, "tiny", str(client.upload(RED)), picture)
        made = api_keys.create(stack.home.keys, "carol", models=("else*",)).key
        limited = api_keys.create(stack.home.keys, "local", requests_per_second=0.05).key
        claims = {"sub": "local", "models": "*"}
        TOKENS[stack.api_key] = issuers["company"].token(**claims)
        TOKENS[limited] = issuers["slow"].token(**claims)
        TOKENS[made] = issuers["company"].token(sub="local", models="else*")
        while any_caller.grpcio(replace(asked, key=made)).code == 16:
            pass  # the router hasn't seen it yet
        yield Rig(stack, asked, limited, made)


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Callable[[Asked], Heard]:
    if request.param in MISSING:
        pytest.skip("needs curl or node")
    found: Callable[[Asked], Heard] = request.param
    return found


def test_answer(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    heard = kind(rig.asked)
    assert (heard.code, heard.label) == (0, "red"), heard


def test_deadline(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    heard = kind(replace(rig.asked, deadline=1e-6))
    assert heard.code == 4, heard


def test_bad_key(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    heard = kind(replace(rig.asked, key="x" * 30))
    assert heard.code == 16, heard
    assert ("the token is refused" if kind in OF_TOKENS else "'shoal keys create' makes one") in heard.message


def test_forbidden_model(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    heard = kind(replace(rig.asked, key=rig.other))
    assert heard.code == 7, heard
    assert "may not call model 'tiny'" in heard.message


def test_unknown_model(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    heard = kind(replace(rig.asked, model="nope"))
    assert heard.code == 5, heard
    assert "no model 'nope' is served here" in heard.message


def test_bad_picture(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    heard = kind(bring(rig.asked, BROKEN))
    assert heard.code == 3, heard


def test_overload(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    """The second call within 20 s at the latest."""
    asked = replace(rig.asked, key=rig.limited, deadline=10.0)
    heard = next(heard for _ in range(3) if (heard := kind(asked)).code)
    assert heard.code == 8, heard
    assert "try again later" in heard.message
    if kind in OF_HTTP:
        assert int(heard.headers["retry-after"]) >= 1


def test_cancel(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    """The batcher hears of it, so the call takes nobody's place."""

    async def gone() -> float:
        return await rig.stack.metric("batcher-shared-1", "shoal_batcher_requests_total", model=HELD, code="CANCELLED")

    before = asyncio.run(gone())
    assert kind(replace(rig.asked, model=HELD, patience=1.0)).code == -1
    asyncio.run(
        rig.stack.until_metric(
            "batcher-shared-1", "shoal_batcher_requests_total", before + 1, model=HELD, code="CANCELLED"
        )
    )


def test_pages_of_the_origins_named_may_read_answers_and_refusals(rig: Rig, kind: Callable[[Asked], Heard]) -> None:
    if kind not in OF_PAGES:
        pytest.skip("no browser")
    for asked in (rig.asked, replace(rig.asked, key="x" * 30), replace(rig.asked, model="nope")):
        assert kind(asked).headers["access-control-allow-origin"] == PAGE
