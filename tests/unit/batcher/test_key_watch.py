from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shoal.batcher import key_watch
from shoal.batcher.key_watch import NEW_SECONDS, KeyWatch
from shoal.batching import wire
from shoal.service.api_keys import Key
from shoal.service.identity import Identity
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    Context = grpc.aio.ServicerContext[bytes, bytes]


def identity(name: str) -> str:
    return Identity.of(Key(id=name, key=f"a-secret-of-some-length-{name}", owner=name)).write()


ALICE, BOB, CAROL = map(identity, ("alice", "bob", "carol"))


def token(owner: str, ends: float) -> str:
    """An identity as the router writes it for a token."""
    return f"{Identity(f'token:company:{owner}', owner, f'{owner}/', 'proof').write()}&exp={ends:.0f}&json=1"


@dataclass
class Router(grpc.GenericRpcHandler):
    """Answers as the load balancer's listener does."""

    known: set[tuple[str, str]] = field(default_factory=set)
    version: str = "1"
    fault: grpc.StatusCode | None = None
    """What every question is answered with."""
    denials: int = 0
    """So many questions more are answered with no."""
    asked: Counter[str] = field(default_factory=Counter)
    """Questions for the version, and for each identity."""

    def set(self, *known: tuple[str, str]) -> None:
        self.known = set(known)
        self.version += "1"

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        answer = {wire.KEYS_VERSION: self.tell_version, wire.KEYS_CHECK: self.check}[details.method]
        return grpc.unary_unary_rpc_method_handler(answer)

    async def tell_version(self, _: bytes, context: Context) -> bytes:
        self.asked["version"] += 1
        if self.fault is not None:
            await context.abort(self.fault)
        context.set_trailing_metadata(((wire.KEYS, self.version),))
        return b""

    async def check(self, _: bytes, context: Context) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        who, model = str(metadata["x-api-key"]), str(metadata[wire.MODEL])
        self.asked[who] += 1
        denied = self.denials > 0 or (who, model) not in self.known
        self.denials -= denied
        if self.fault is not None or denied:
            await context.abort(self.fault or grpc.StatusCode.UNAUTHENTICATED)
        return b""

    async def answer(self, times: int) -> None:
        """Until it was asked for the version so many times more; what came of the last but one is done then."""
        wanted = self.asked["version"] + times
        await until(lambda: self.asked["version"] >= wanted)


@dataclass
class Rig:
    router: Router
    watch: KeyWatch
    channel: grpc.aio.Channel
    now: float = 0.0
    ended: list[str] = field(default_factory=list)

    def follow(self, who: str, model: str = "yolo", name: str = "") -> Any:
        return self.watch.follow(who, model, lambda: self.ended.append(name or f"{who.partition('?')[0]} {model}"))


@asynccontextmanager
async def running(*known: tuple[str, str]) -> AsyncGenerator[Rig]:
    router = Router(set(known))
    server = grpc.aio.server(handlers=(router,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        rig = Rig(router, KeyWatch(channel, lambda: rig.now), channel)
        try:
            yield rig
        finally:
            await rig.watch.close()
            await server.stop(None)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "ASK_SECONDS", 0.0)


async def test_a_revoked_keys_uses_end_and_no_others() -> None:
    async with running((ALICE, "yolo"), (BOB, "yolo")) as rig:
        for name in ("one", "two"):
            rig.follow(ALICE, name=name)
        rig.follow(BOB)
        await rig.router.answer(3)
        rig.router.set((BOB, "yolo"))
        await until(lambda: rig.ended)
        await rig.router.answer(3)
        assert sorted(rig.ended) == ["one", "two"]


async def test_a_key_that_may_not_call_one_of_its_models_any_more_keeps_the_other() -> None:
    async with running((ALICE, "yolo"), (ALICE, "resnet")) as rig:
        rig.follow(ALICE, "yolo")
        rig.follow(ALICE, "resnet")
        await rig.router.answer(3)
        rig.router.set((ALICE, "resnet"))
        await until(lambda: rig.ended)
        await rig.router.answer(3)
        assert rig.ended == ["alice yolo"]


async def test_keys_are_asked_for_when_they_have_changed_and_not_before() -> None:
    async with running((ALICE, "yolo")) as rig:
        rig.follow(ALICE)
        await rig.router.answer(10)
        assert rig.router.asked[ALICE] == 1
        rig.router.set((ALICE, "yolo"), (BOB, "yolo"))
        await rig.router.answer(10)
        assert rig.router.asked[ALICE] == 2


@pytest.mark.parametrize(("denials", "ends"), [(1, False), (2, True)])
async def test_one_denial_is_not_enough_and_two_in_a_row_are(denials: int, ends: bool) -> None:
    async with running((ALICE, "yolo")) as rig:
        rig.follow(ALICE)
        await rig.router.answer(3)
        rig.router.denials = denials
        rig.router.set((ALICE, "yolo"))
        enough = rig.router.asked["version"] + 5
        await until(lambda: rig.ended or rig.router.asked["version"] >= enough)
        assert bool(rig.ended) == ends


async def test_denials_with_a_yes_between_them_are_not_in_a_row() -> None:
    async with running((ALICE, "yolo")) as rig:
        rig.follow(ALICE)
        for _ in range(3):
            await rig.router.answer(3)
            rig.router.denials = 1
            rig.router.set((ALICE, "yolo"))
        await rig.router.answer(3)
        assert not rig.ended


@pytest.mark.parametrize("fault", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL])
async def test_a_router_that_does_not_answer_ends_nothing(fault: grpc.StatusCode) -> None:
    async with running((ALICE, "yolo")) as rig:
        rig.follow(ALICE)
        await rig.router.answer(3)
        rig.router.fault = fault
        rig.router.set()
        await rig.router.answer(5)
        assert not rig.ended
        rig.router.fault = None
        await until(lambda: rig.ended)


async def test_a_router_that_is_away_ends_nothing() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1", [("grpc.enable_http_proxy", 0)]) as channel:
        watch = KeyWatch(channel)
        ended: list[bool] = []
        watch.follow(ALICE, "yolo", lambda: ended.append(True))
        for _ in range(1000):
            await asyncio.sleep(0)
        await watch.close()
        assert not ended


async def test_what_a_token_has_open_ends_with_the_token() -> None:
    async with running() as rig:
        rig.watch = KeyWatch(rig.channel, lambda: rig.now, lambda: 1_000_000.0)
        good, over, gone = (token("good", 1e9), token("over", 1_000_000 - 61), token("gone", 1_000_000 - 61))
        rig.router.set(*((each, "yolo") for each in (good, over, gone)))
        rig.follow(good)
        rig.follow(over)
        rig.follow(gone)()  # its stream has ended before
        await rig.router.answer(3)
        assert rig.ended == ["token:company:over yolo"]


async def test_a_token_is_good_for_a_minute_after_its_end_as_for_the_router() -> None:
    async with running((token("late", 1_000_000 - 50), "yolo")) as rig:
        rig.watch = KeyWatch(rig.channel, lambda: rig.now, lambda: 1_000_000.0)
        rig.follow(token("late", 1_000_000 - 50))
        await rig.router.answer(3)
        assert not rig.ended
        await rig.watch.close()


async def test_a_key_that_was_never_known_has_time_to_become_known() -> None:
    async with running() as rig:
        rig.follow(ALICE)
        await rig.router.answer(5)
        rig.now = NEW_SECONDS - 1
        await rig.router.answer(3)
        assert not rig.ended
        rig.now = NEW_SECONDS
        await until(lambda: rig.ended)


async def test_a_key_that_was_known_once_is_no_new_one_when_it_comes_back() -> None:
    async with running((ALICE, "yolo")) as rig:
        release = rig.follow(ALICE)
        await rig.router.answer(3)
        release()
        rig.router.set()
        rig.follow(ALICE, name="again")
        await until(lambda: rig.ended)
        assert rig.ended == ["again"]


async def test_what_is_released_is_not_told_and_releasing_twice_is_no_harm() -> None:
    async with running((ALICE, "yolo")) as rig:
        release = rig.follow(ALICE, name="released")
        rig.follow(ALICE, name="kept")
        await rig.router.answer(3)
        release()
        release()
        rig.router.set()
        await until(lambda: rig.ended)
        assert rig.ended == ["kept"]
        release()


async def test_nothing_is_asked_while_nothing_is_followed() -> None:
    async with running((ALICE, "yolo")) as rig:
        tasks = asyncio.all_tasks()
        release = rig.follow(ALICE)
        (task,) = asyncio.all_tasks() - tasks
        await rig.router.answer(2)
        release()
        async with asyncio.timeout(60):
            await task
        asked = rig.router.asked["version"]
        rig.follow(ALICE)
        await until(lambda: rig.router.asked["version"] > asked)


async def test_who_has_no_identity_is_not_followed() -> None:
    async with running() as rig:
        tasks = asyncio.all_tasks()
        for text in ("", "key-1", "key-1?v=2&owner=a&sha256=b"):
            rig.follow(text)()
        assert asyncio.all_tasks() == tasks


async def test_one_that_can_not_be_ended_keeps_no_other_alive(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError

    async with running((CAROL, "yolo")) as rig:
        rig.watch.follow(CAROL, "yolo", fail)
        rig.follow(CAROL, name="other")
        await rig.router.answer(3)
        rig.router.set()
        await until(lambda: rig.ended)
    assert "carol" in caplog.text
    assert "sha256" not in caplog.text


async def test_closing_stops_it_in_the_middle_of_a_question() -> None:
    async with running((ALICE, "yolo")) as rig:
        tasks = asyncio.all_tasks()
        rig.follow(ALICE)
        (task,) = asyncio.all_tasks() - tasks
        await until(lambda: rig.router.asked["version"])
        await rig.watch.close()
        assert task.done()


async def test_whom_a_pipeline_calls_for_is_followed_by_nobody() -> None:
    """The caller's key is followed where the pipeline was called, and need not be one for its models."""
    shown = Identity.parse(ALICE)
    assert shown
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    watch = KeyWatch(channel)
    watch.follow(shown.by_pipeline("street", "", "proof").write(), "m", pytest.fail)()
    assert watch._followed == {}
    assert watch._task is None
    await watch.close()
    await channel.close()
