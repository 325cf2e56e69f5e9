"""The page's questions, over a real socket, about parts that really answer, fall silent or are older."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shoal.console import parts
from shoal.console.server import Console, serving
from shoal.console.shared import Shared
from shoal.console.status import Known
from shoal.explain.endpoint import Beside, serve
from shoal.explain.views import Answer, Glance, Glances, Memory
from shoal.observe.metrics import BATCHER, WORKER
from shoal.observe.operators import serve_metrics
from shoal.runtime.endpoint import Endpoint
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import CLIENT_HEADER, Identity
from shoal.service.spec import Service
from shoal.service.topology import TellingPart, Topology
from shoal.service.worker_report import ServedModel, WorkerReport
from support.ports import free
from support.visits import batcher_visit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
HERE = Endpoint("127.0.0.1", 0)
ALICE = Key(id="key-1", key="a-secret-of-some-length", owner="alice")
BOB = Key(id="key-2", key="bobs-secret-of-some-length", owner="bob")
MEMORY = Memory(requests=1, limit=10)
VISIT = batcher_visit(key_id="key-1")


def remember(image_uuid: str) -> Answer:
    return Answer(memory=MEMORY, batcher=(VISIT,) if image_uuid == UUID else ())


def glances(keys: AbstractSet[str]) -> Glances:
    """A part that tells more than it was asked."""
    every = (
        Glance(model="m", key_id=key, seconds_ago=1, total_seconds=1, code="INTERNAL") for key in ("key-1", "key-2")
    )
    return Glances(failed=tuple(every)) if keys else Glances()


@contextmanager
def telling() -> Iterator[dict[str, TellingPart]]:
    """A batcher, a worker, an older worker, one that is gone and one whose name nobody knows."""
    report = WorkerReport(models=("m",), served={"m": ServedModel(version=2, task="classification")})
    servers = {
        "batcher": serve(HERE, BATCHER, remember, Beside(glances=glances)),
        "worker": serve(HERE, WORKER, lambda _: Answer(memory=MEMORY), Beside(models=lambda: report)),
        "older": serve_metrics(HERE, WORKER),
    }
    try:
        yield {
            "batcher-1": TellingPart(role="batcher", group="shared", metrics=servers["batcher"].endpoint),
            "worker-1": TellingPart(role="worker", group="default", metrics=servers["worker"].endpoint),
            "worker-2": TellingPart(role="worker", group="default", metrics=servers["older"].endpoint),
            "worker-3": TellingPart(role="worker", group="default", metrics=free()),
            "worker-4": TellingPart(role="worker", group="default", metrics=Endpoint("nobody.invalid", 1)),
            "triton-1": TellingPart(role="triton", group="default", metrics=servers["older"].endpoint),
            "store": TellingPart(role="store", group="", metrics=free()),
        }
    finally:
        for server in servers.values():
            server.close()


@asynccontextmanager
async def page(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """What Envoy would ask on behalf of the page."""
    with telling() as found:
        topology = Topology(
            public=HERE, balancer=HERE, batchers={"shared": [HERE]}, pools={"default": [HERE]}, telling=found
        )
        known = Known(Service(), topology, KeyRing([ALICE, BOB]), ("m",), frozenset())

        async def refused() -> Mapping[str, int]:
            return {"the API key's rate limit": 1}

        path = tmp_path / "c.sock"
        path.touch()  # an earlier process left something there
        async with serving(Console(lambda: known, refused), path):
            assert path.stat().st_mode & 0o777 == 0o600
            connector = aiohttp.UnixConnector(str(path))
            async with aiohttp.ClientSession("http://console", connector=connector) as session:
                yield session


async def ask(session: aiohttp.ClientSession, path: str, key: Key | None = ALICE) -> tuple[int, Any]:
    headers = {CLIENT_HEADER: Identity.of(key).write()} if key else {}
    async with session.get(path, headers=headers) as answer:
        told = await answer.json() if answer.content_type == "application/json" else await answer.text()
        return answer.status, told


async def test_everything_that_runs_is_told(tmp_path: Path) -> None:
    async with page(tmp_path) as session:
        status, told = await ask(session, "/v1/status")
    assert status == 200
    assert {part["name"]: part["state"] for part in told["parts"]} == {
        "router": "ready",
        "batcher-1": "ready",
        "worker-1": "ready",
        "worker-2": "ready",
        "worker-3": "silent",
        "worker-4": "silent",
        "triton-1": "ready",
        "store": "silent",
    }
    (model,) = told["models"]
    assert (model["versions"], model["task"], model["state"]) == ([2], "classification", "served")
    assert told["refused"] == {"the API key's rate limit": 1}
    assert (told["owner"], told["uploads_here"]) == ("alice", False)


async def test_a_caller_is_told_of_their_own_requests_alone(tmp_path: Path) -> None:
    async with page(tmp_path) as session:
        for key in (ALICE, BOB):
            _, told = await ask(session, "/v1/status", key)
            assert [each["key_id"] for each in told["requests"]["failed"]] == [key.id]
        _, told = await ask(session, f"/v1/requests/{UUID}")
        assert [each["code"] for each in told["requests"]] == ["OK"]
        assert [stage["name"] for stage in told["requests"][0]["stages"]] == ["permit", "open", "closed"]
        assert sorted(told["silent"]) == ["worker-2", "worker-3"], "what is none of ours isn't asked about requests"
        _, told = await ask(session, f"/v1/requests/{UUID}", BOB)
        assert told["requests"] == []


@pytest.mark.parametrize("path", ["/v1/status", f"/v1/requests/{UUID}"])
async def test_who_is_named_by_nobody_is_told_nothing(tmp_path: Path, path: str) -> None:
    async with page(tmp_path) as session:
        assert (await ask(session, path, None))[0] == 403


@pytest.mark.parametrize("text", ["abc", "", f"{UUID}/", "a/b", "a%2fb"])
async def test_what_is_no_uuid_is_refused_in_words(tmp_path: Path, text: str) -> None:
    async with page(tmp_path) as session:
        status, told = await ask(session, f"/v1/requests/{text}")
    assert status == 400
    assert "not a UUID" in told["message"]


async def test_an_answer_too_large_is_a_part_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_MOST_BYTES", 100)
    with telling() as found:
        known, _ = await parts.addresses({"batcher-1": found["batcher-1"]})
        (news,) = await parts.ask_batchers(known)
    assert "over 100 bytes" in news.silent


async def test_who_asks_together_shares_an_answer_and_a_fault_is_nobodys_for_long() -> None:
    asked: list[int] = []

    async def work() -> int:
        asked.append(1)
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise ValueError
        return len(asked)

    shared = Shared(work, 0.0)
    first = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
    assert [type(each) for each in first] == [ValueError, ValueError]
    assert len(asked) == 1
    assert await shared.get() == 2
    lasting = Shared(work, 3600.0)
    assert await lasting.get() == await lasting.get() == 3
