from __future__ import annotations

import asyncio
import itertools
import math
import threading
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from shoal.batching import wire
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, DeadlineExceeded, InvalidRequest, NotFound, Unavailable
from shoal.explain.recent import Recent
from shoal.observe.metrics import WORKER
from shoal.pictures.decode import Decoder
from shoal.pictures.header import PictureSize
from shoal.runtime.priority import Priority
from shoal.runtime.threads import Threads
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.v1 import inference_pb2
from shoal.worker import batch as batch_module
from shoal.worker.access import Access
from shoal.worker.admission import Admission
from shoal.worker.batch import PictureBatch
from shoal.worker.budget import Account, Budget
from shoal.worker.decoding import Decoding
from shoal.worker.fetch_picture import NOBODY
from shoal.worker.fetched import Fetched
from shoal.worker.handler import PictureHandler
from shoal.worker.heads.head import make_head
from shoal.worker.meter import Meter
from shoal.worker.picture import LOOKUP
from shoal.worker.picture_model import PictureModel
from shoal.worker.result_cache import ResultCache, Scope
from shoal.worker.result_cache_meter import ResultCacheMeter
from shoal.worker.stages import explain
from support.occupied import occupied
from support.pictures import encode
from support.scripted_engine import ScriptedModel
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from shoal.explain.views import WorkerVisit
    from shoal.pictures.region import PictureRegion

SECRET = "s" * 24
RED, GREEN, BLUE = (encode(Image.new("RGB", (16, 16), colour)) for colour in ("red", "lime", "blue"))


@dataclass
class FakeFetcher:
    """Pictures by uuid; one that is an event hangs until it is set. The real one has its own tests."""

    pictures: dict[str, bytes | Exception | asyncio.Event] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    priorities: list[Priority] = field(default_factory=list)
    max_ages: list[float] = field(default_factory=list)

    def put(self, picture: bytes | Exception | asyncio.Event, owner: str = "me") -> str:
        name = str(uuid.uuid4())
        self.pictures[f"{owner}/{name}.jpg"] = picture
        return name

    budget: Budget = field(default_factory=lambda: Budget(10**9, max_waiting=1))

    def fetch(
        self,
        key: str,
        timeout_seconds: float | None = None,
        account: Account = NOBODY,
        max_age_seconds: float = 0.0,
    ) -> asyncio.Future[Fetched]:
        self.max_ages.append(max_age_seconds)
        return asyncio.ensure_future(self._fetch(key, timeout_seconds, account))

    async def _fetch(self, key: str, timeout_seconds: float | None, account: Account) -> Fetched:
        self.priorities.append(account.priority)
        data = await self._bytes(key, timeout_seconds)
        return Fetched(data, self.budget.take(account, len(data)))  # type: ignore[arg-type]

    async def _bytes(self, key: str, timeout_seconds: float | None) -> bytes:
        self.fetched.append(key)
        picture = self.pictures.get(key, NotFound("no image"))
        if isinstance(picture, asyncio.Event):
            try:
                async with asyncio.timeout(timeout_seconds):
                    await picture.wait()
            except TimeoutError:
                raise DeadlineExceeded("the deadline passed") from None
            return RED
        if isinstance(picture, Exception):
            raise picture
        return picture


@pytest.fixture
def engine() -> ScriptedModel:
    return ScriptedModel()


class FakePool:
    """Decodes apart once it may; the real one has its own tests."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Event()
        self.begun: list[str] = []
        self.priorities: list[Priority] = []
        self.left: list[str] = []

    async def decode(
        self, owner: str, decoder: Decoder, data: Any, priority: Priority, regions: Sequence[PictureRegion | None]
    ) -> tuple[np.ndarray, float]:
        self.begun.append(owner)
        self.priorities.append(priority)
        self.asked.set()
        row = np.empty(decoder.input.shape, decoder.input.dtype)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left.append(owner)
            raise
        rows = [row.copy() for _ in decoder.decode_parts(data, row, regions)]
        return np.stack(rows), 0.001


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def model(engine: ScriptedModel, pool: FakePool) -> Iterator[PictureModel]:
    with closing(Threads(1, "decode")) as threads:
        head = make_head(engine.config)
        access = Access(KeyRing([Key(id="k", key=SECRET, owner="me"), Key(id="other", key="o" * 24, owner="you")]))
        yield PictureModel(
            loaded=engine,
            admission=Admission(engine.config, head, access, Recent(100)),
            decoder=Decoder(engine.config, max_pixels=10**6, max_scans=10),
            head=head,
            fetcher=FakeFetcher(),  # type: ignore[arg-type]
            decoding=Decoding(threads, pool),  # type: ignore[arg-type]
            meter=Meter("colour"),
        )


@pytest.fixture
async def batch(model: PictureModel) -> AsyncIterator[PictureBatch]:
    made = PictureBatch(model)
    yield made
    made.abandon()


def item(
    index: int,
    image_uuid: str,
    timeout_us: int = 0,
    client: str = "k",
    priority: batching_pb2.Priority = batching_pb2.PRIORITY_INTERACTIVE,
    **request: object,
) -> batching_pb2.BatchItem:
    fields = {"api_key": SECRET, "image_uuid": image_uuid, "model_name": "colour"} | request
    message = inference_pb2.ImageRequest(**fields).SerializeToString()
    return batching_pb2.BatchItem(
        index=index, request=message, owner=client, timeout_us=timeout_us, queued_us=7, priority=priority
    )


async def results(batch: PictureBatch) -> dict[int, batching_pb2.BatchItemResult]:
    return {result.index: result async for group in batch.finish() for result in group}


def label(result: batching_pb2.BatchItemResult) -> str:
    assert result.code == Code.OK, result.message
    return inference_pb2.ClassifyReply.FromString(result.response).classes[0].label


async def test_each_picture_gets_its_own_answer(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    names = [model.fetcher.put(picture) for picture in (RED, GREEN, BLUE)]
    for index, name in enumerate(names):
        batch.add(item(index, name))
    answered = await results(batch)
    assert [label(answered[index]) for index in range(3)] == ["red", "green", "blue"]
    assert engine.sizes == [3]
    reply = inference_pb2.ClassifyReply.FromString(answered[1].response)
    assert (reply.image_uuid, reply.model_name, reply.model_version) == (names[1], "colour", 3)
    assert reply.timing.batch_size == 3
    assert reply.timing.compute_us == 1000
    assert reply.timing.queue_us >= 7


async def test_a_batch_says_when_it_was_ready_and_which_part_of_it_is_bulk(
    model: PictureModel, batch: PictureBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    turn = model.turns.turn

    def noted(*of: Any) -> Any:
        asked.append(of)
        return turn(*of)

    monkeypatch.setattr(model.turns, "turn", noted)
    for index in range(4):
        each = item(index, model.fetcher.put(RED))
        each.priority = batching_pb2.PRIORITY_BULK if index else batching_pb2.PRIORITY_INTERACTIVE
        batch.add(each)
    closed = monotonic()
    await results(batch)
    assert closed <= batch.ready_at <= monotonic()
    assert [(of[0], of[2]) for of in asked] == [(Priority.INTERACTIVE, 0.75)]


async def test_bad_items_leave_no_gap_and_harm_nobody(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    bad = [b"", b"text", BLUE[:-200], NotFound("no image"), ValueError("a fault of ours")]
    for index, picture in enumerate([*bad[:2], RED, *bad[2:4], GREEN]):
        batch.add(item(index, model.fetcher.put(picture)))
    answered = await results(batch)
    assert (label(answered[2]), label(answered[5])) == ("red", "green")
    assert [answered[index].code for index in (0, 1, 3, 4)] == [Code.INVALID_ARGUMENT] * 3 + [Code.NOT_FOUND]
    assert engine.sizes == [2]


async def test_large_answers_take_several_messages(
    model: PictureModel, batch: PictureBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "RESULTS_BYTES", 300)
    for index in range(5):
        batch.add(item(index, model.fetcher.put(RED)))
    groups = [list(group) async for group in batch.finish()]
    assert [len(group) for group in groups] == [2, 2, 1]
    assert all(sum(len(result.response) for result in group) <= 300 for group in groups)


async def test_an_unexpected_error_is_internal_and_tells_nothing(model: PictureModel, batch: PictureBatch) -> None:
    batch.add(item(0, model.fetcher.put(ValueError("secret"))))
    answered = await results(batch)
    assert answered[0].code == Code.INTERNAL
    assert "secret" not in answered[0].message


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"image_uuid": "../../etc/passwd"}, Code.INVALID_ARGUMENT),
        ({"api_key": ""}, Code.UNAUTHENTICATED),
        ({"api_key": "wrong" * 5}, Code.UNAUTHENTICATED),
        ({"api_key": "o" * 24}, Code.UNAUTHENTICATED),
        ({"model_name": "another"}, Code.INVALID_ARGUMENT),
        ({"model_version": 2}, Code.INVALID_ARGUMENT),
    ],
)
async def test_a_refused_request_costs_no_fetch(
    model: PictureModel, batch: PictureBatch, request_fields: dict[str, object], code: Code
) -> None:
    batch.add(item(0, **({"image_uuid": str(uuid.uuid4())} | request_fields)))  # type: ignore[arg-type]
    answered = await results(batch)
    assert answered[0].code == code
    assert model.fetcher.fetched == []


async def test_garbage_is_invalid(batch: PictureBatch) -> None:
    batch.add(batching_pb2.BatchItem(index=0, request=b"\xff\xff", owner="k"))
    assert (await results(batch))[0].code == Code.INVALID_ARGUMENT


async def test_fetches_are_counted_by_outcome_and_tensors_by_size(model: PictureModel, batch: PictureBatch) -> None:
    def counted() -> list[float]:
        labels = [("fetches_total", "NOT_FOUND"), ("fetches_total", "OK"), ("tensor_bytes_total", "")]
        given = [(name, {"model": "colour"} | ({"code": code} if code else {})) for name, code in labels]
        return [WORKER.get_sample_value(f"shoal_worker_{name}", of) or 0.0 for name, of in given]

    before = counted()
    batch.add(item(0, model.fetcher.put(RED)))
    batch.add(item(1, str(uuid.uuid4())))
    await results(batch)
    size = model.loaded.config.input
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, math.prod(size.shape)]


async def test_the_wait_in_the_batcher_does_not_make_a_picture_older(model: PictureModel, batch: PictureBatch) -> None:
    for index, asked in enumerate([{"max_age_us": 2_000_000}, {}]):
        sent = item(index, model.fetcher.put(RED), **asked)
        sent.queued_us = 500_000
        batch.add(sent)
    await results(batch)
    assert model.fetcher.max_ages == [2.5, 0.0]  # type: ignore[attr-defined]


def test_another_tasks_method_is_refused_with_the_right_one(model: PictureModel) -> None:
    handler = PictureHandler(model)
    handler.check("/shoal.v1.Inference/Classify")
    with pytest.raises(InvalidRequest, match="call Classify"):
        handler.check("/shoal.v1.Inference/Detect")


async def test_a_hanging_fetch_is_left_behind_and_answered_later(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    hangs = asyncio.Event()
    batch.add(item(0, model.fetcher.put(hangs)))
    batch.add(item(1, model.fetcher.put(GREEN)))
    groups = batch.finish()
    (first,) = await anext(groups)
    assert label(first) == "green"
    assert engine.in_use == 0
    hangs.set()
    (late,) = await anext(groups)
    assert label(late) == "red"
    assert engine.sizes == [1, 1]


async def test_a_batch_whose_fetches_all_hang_says_so_and_holds_no_slot(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    hangs = asyncio.Event()
    for index in range(2):
        batch.add(item(index, model.fetcher.put(hangs)))
    groups = batch.finish()
    assert await anext(groups) == []
    assert engine.in_use == 0
    assert batch.ready_at == 0.0
    monkeypatch.undo()
    hangs.set()
    assert [label(result) for result in await anext(groups)] == ["red", "red"]
    assert engine.sizes == [2]


async def test_an_expired_item_is_dropped_before_it_executes(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    hangs = asyncio.Event()
    batch.add(item(0, model.fetcher.put(hangs), timeout_us=1))
    answered = await results(batch)
    assert answered[0].code == Code.DEADLINE_EXCEEDED
    assert engine.sizes == []


async def test_a_batch_that_the_engine_refuses_runs_one_by_one(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    engine.poison = 127
    poison = encode(Image.new("L", (16, 16), 127))
    for index, picture in enumerate((RED, poison, GREEN)):
        batch.add(item(index, model.fetcher.put(picture)))
    answered = await results(batch)
    assert (label(answered[0]), label(answered[2])) == ("red", "green")
    assert answered[1].code == Code.INTERNAL
    assert engine.sizes == [3, 1, 1, 1]


async def test_an_overfull_batch_turns_the_rest_away(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    for index in range(7):
        batch.add(item(index, model.fetcher.put(RED)))
    answered = await results(batch)
    assert [answered[index].code for index in range(7)] == [Code.OK] * 6 + [Code.UNAVAILABLE]


async def test_an_engine_that_is_away_is_not_asked_again(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    async def refuse(*_: object) -> None:
        raise Unavailable("gone")

    engine.infer = refuse  # type: ignore[method-assign, assignment]
    for index in range(2):
        batch.add(item(index, model.fetcher.put(RED)))
    answered = await results(batch)
    assert [answered[index].code for index in range(2)] == [Code.UNAVAILABLE] * 2


async def test_an_abandoned_batch_gives_its_slot_back(model: PictureModel, engine: ScriptedModel) -> None:
    batch = PictureBatch(model)
    batch.add(item(0, model.fetcher.put(asyncio.Event())))
    await asyncio.sleep(0)
    batch.abandon()
    await asyncio.sleep(0)
    assert engine.in_use == 0


async def test_a_slot_that_a_thread_writes_to_is_kept_until_it_has(
    model: PictureModel, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def decode(_data: object, outs: list[Callable[[], object]], *_more: object) -> tuple[PictureSize, bool]:
        outs[0]()
        begun.set()
        go_on.wait()
        return PictureSize(16, 16), True

    batch = PictureBatch(model)
    batch.add(item(0, model.fetcher.put(RED)))
    monkeypatch.setattr(model.decoder, "decode_if_quick", decode)
    await asyncio.to_thread(begun.wait)
    given_back = asyncio.Event()
    engine.release = lambda _: given_back.set()  # type: ignore[method-assign]
    batch.abandon()
    await asyncio.sleep(0)
    assert not given_back.is_set()
    go_on.set()
    await given_back.wait()


def told(model: PictureModel, name: str) -> WorkerVisit:
    (visit,) = explain(model.admission.recent, name).worker
    assert SECRET not in visit.model_dump_json()
    assert sum(visit.stage_seconds.values()) == pytest.approx(visit.total_seconds)
    return visit


async def test_what_became_of_each_picture_is_told(model: PictureModel, batch: PictureBatch) -> None:
    names = [model.fetcher.put(picture) for picture in (RED, GREEN, NotFound("no image"))]
    for index, name in enumerate(names):
        batch.add(item(index, name, timeout_us=5_000_000))
    assert not told(model, names[0]).code
    answered = await results(batch)
    visit = told(model, names[0])
    timing = inference_pb2.ClassifyReply.FromString(answered[0].response).timing
    assert list(visit.stage_seconds) == [
        "fetch", "slot", "decode", "company", "mates", "instance", "compute", "reply", "send",
    ]  # fmt: skip
    assert (visit.code, visit.batch_size, visit.executions) == ("OK", timing.batch_size, 1)
    assert visit.stage_seconds["decode"] == pytest.approx(timing.decode_us / 1e6, abs=1e-5)
    assert (visit.key_id, visit.model, visit.model_version, visit.sent_as) == ("k", "colour", 3, (7, 5_000_000))
    missing = told(model, names[2])
    assert (missing.code, missing.message, missing.batch_size) == ("NOT_FOUND", "no image", 0)
    assert list(missing.stage_seconds) == ["fetch", "send"]


async def test_one_that_is_left_behind_is_told_so(
    model: PictureModel, batch: PictureBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    hangs = asyncio.Event()
    late, timely = model.fetcher.put(hangs), model.fetcher.put(GREEN)
    for index, name in enumerate((late, timely)):
        batch.add(item(index, name))
    groups = batch.finish()
    await anext(groups)
    assert not told(model, late).code
    assert list(told(model, late).stage_seconds) == ["fetch"]
    hangs.set()
    await anext(groups)
    visit = told(model, late)
    assert (visit.code, visit.left_behind, visit.batch_size) == ("OK", True, 1)
    assert visit.stage_seconds["company"] == 0.0
    assert not told(model, timely).left_behind


async def test_a_batch_that_ran_one_by_one_is_told_so(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    engine.poison = 127
    names = [model.fetcher.put(picture) for picture in (RED, encode(Image.new("L", (16, 16), 127)))]
    for index, name in enumerate(names):
        batch.add(item(index, name))
    await results(batch)
    assert [told(model, name).code for name in names] == ["OK", "INTERNAL"]
    assert [(told(model, name).executions, told(model, name).batch_size) for name in names] == [(2, 1), (2, 1)]


async def test_one_whose_stream_broke_is_told_as_cancelled(model: PictureModel) -> None:
    batch = PictureBatch(model)
    name = model.fetcher.put(asyncio.Event())
    batch.add(item(0, name))
    await asyncio.sleep(0)
    batch.abandon()
    assert told(model, name).code == "CANCELLED"
    assert list(told(model, name).stage_seconds) == ["fetch", "send"]


async def test_a_worker_forgets_too(model: PictureModel) -> None:
    small = replace(model, admission=replace(model.admission, recent=Recent(2)))
    batch = PictureBatch(small)
    names = [model.fetcher.put(RED) for _ in range(3)]
    for index, name in enumerate(names):
        batch.add(item(index, name))
    await results(batch)
    assert [len(explain(small.admission.recent, name).worker) for name in names] == [0, 1, 1]


SLOW = encode(Image.new("RGB", (16, 16), "red"), "PNG")
"""Goes to a process of its own."""


async def collected(batch: PictureBatch) -> list[int]:
    """The indices of all answers, as often as they came; no group but the first may be empty."""
    groups = [list(group) async for group in batch.finish()]
    assert all(groups[1:])
    return [result.index for group in groups for result in group]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("stragglers", range(4))
@pytest.mark.parametrize("executing_first", [False, True])
async def test_each_item_has_one_answer_whatever_hangs_and_in_whatever_order_it_ends(
    model: PictureModel,
    batch: PictureBatch,
    engine: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[int, ...],
    stragglers: int,
    executing_first: bool,
) -> None:
    """Answers that come while others are executed or sent are neither lost nor sent twice."""
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    executions = [asyncio.Event() for _ in range(4)]
    numbers, infer = itertools.count(), engine.infer

    async def infer_when_told(*given: Any) -> Any:
        await executions[next(numbers)].wait()
        return await infer(*given)

    engine.infer = infer_when_told  # type: ignore[method-assign]
    hang = [asyncio.Event() for _ in range(3)]
    for index in range(3):
        batch.add(item(index, model.fetcher.put(hang[index] if index < stragglers else GREEN)))
    batch.add(item(3, model.fetcher.put(BLUE)))
    answers = asyncio.create_task(collected(batch))
    arrivals = [hang[index].set for index in order]
    ends = [executions[index].set for index in (0, *(1 + each for each in order))]
    for step in (*arrivals, *ends) if executing_first else (ends[0], *arrivals, *ends[1:]):
        step()
        await asyncio.wait([answers], timeout=0.03)
    assert sorted(await answers) == [0, 1, 2, 3]


@pytest.mark.parametrize("here", range(4))
@pytest.mark.parametrize("slot_is_there", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_each_item_has_one_answer_whatever_comes_before_a_batch_that_all_hung_goes_on(
    model: PictureModel,
    batch: PictureBatch,
    engine: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
    here: int,
    slot_is_there: bool,
    fails: bool,
) -> None:
    """``here`` pictures come between the first group, which is empty, and when the next is asked for."""
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    asked, free, acquire = asyncio.Event(), asyncio.Event(), engine.acquire

    async def acquire_when_free(*_: object) -> Any:
        asked.set()
        await free.wait()
        if fails:
            raise Unavailable("gone")
        return await acquire()

    engine.acquire = acquire_when_free  # type: ignore[method-assign]
    hang = [asyncio.Event() for _ in range(3)]
    for index, each in enumerate(hang):
        batch.add(item(index, model.fetcher.put(each)))
    groups = batch.finish()
    assert await anext(groups) == []
    for each in hang[:here]:
        each.set()
    if here:
        await asked.wait()
    if slot_is_there:
        free.set()
    answers = asyncio.create_task(groups_from(groups))
    await asyncio.wait([answers], timeout=0.03)
    free.set()
    for each in hang[here:]:
        each.set()
    answered = await answers
    assert all(answered)
    assert sorted(result.index for group in answered for result in group) == [0, 1, 2]
    assert {result.code for group in answered for result in group} == {Code.UNAVAILABLE if fails else Code.OK}
    assert engine.in_use == 0


async def groups_from(
    groups: AsyncIterator[Sequence[batching_pb2.BatchItemResult]],
) -> list[Sequence[batching_pb2.BatchItemResult]]:
    return [group async for group in groups]


async def collected_from(groups: AsyncIterator[Sequence[batching_pb2.BatchItemResult]]) -> list[int]:
    return [result.index async for group in groups for result in group]


async def test_an_answer_that_comes_while_the_first_batch_executes_is_sent_once(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    fails = asyncio.Event()
    batch.add(item(0, model.fetcher.put(fails), timeout_us=60_000_000))
    batch.add(item(1, model.fetcher.put(GREEN)))
    engine.go.clear()
    answers = asyncio.create_task(collected(batch))
    await engine.asked.wait()
    batch.withdraw(0)
    engine.go.set()
    assert sorted(await answers) == [0, 1]


async def test_stragglers_that_are_ready_together_run_together(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    hangs = asyncio.Event()
    batch.add(item(0, model.fetcher.put(GREEN)))
    for index in range(1, 4):
        batch.add(item(index, model.fetcher.put(hangs)))
    groups = batch.finish()
    await anext(groups)
    assert engine.in_use == 0
    engine.acquire = slowly(engine.acquire)  # type: ignore[method-assign]
    hangs.set()
    assert len(await collected_from(groups)) == 3
    assert engine.sizes == [1, 3]


def slowly(acquire: Callable[[], Any]) -> Callable[[], Any]:
    async def acquired(*_: object) -> Any:
        await asyncio.sleep(0.05)
        return await acquire()

    return acquired


async def test_a_slow_picture_of_another_owner_holds_up_nobody_and_no_slot(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, pool: FakePool
) -> None:
    pool.go.clear()
    batch.add(item(0, model.fetcher.put(SLOW, "you"), client="other", api_key="o" * 24))
    batch.add(item(1, model.fetcher.put(GREEN)))
    groups = batch.finish()
    (quick,) = await anext(groups)
    assert label(quick) == "green"
    assert (pool.begun, engine.in_use) == (["you"], 0)
    pool.go.set()
    (slow,) = await anext(groups)
    assert label(slow) == "red"


async def test_slow_pictures_alone_say_so_and_hold_no_slot(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, pool: FakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    pool.go.clear()
    for index in range(2):
        batch.add(item(index, model.fetcher.put(SLOW)))
    groups = batch.finish()
    assert await anext(groups) == []
    assert engine.in_use == 0
    pool.go.set()
    assert sorted(await collected_from(groups)) == [0, 1]
    assert engine.sizes == [2]


async def test_pictures_decoded_apart_and_here_share_a_batch(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    for index, picture in enumerate((SLOW, b"broken", GREEN, SLOW, BLUE)):
        batch.add(item(index, model.fetcher.put(picture)))
    answered = await results(batch)
    assert [label(answered[index]) for index in (0, 2, 3, 4)] == ["red", "green", "red", "blue"]
    assert engine.sizes == [4]


@pytest.mark.parametrize("stage", ["fetch", "apart", "ready", "unknown"])
async def test_a_withdrawn_item_is_not_executed_and_has_one_answer(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, pool: FakePool, stage: str
) -> None:
    pool.go.clear()
    pictures = {"fetch": asyncio.Event(), "apart": SLOW, "ready": RED, "unknown": RED}
    batch.add(item(0, model.fetcher.put(pictures[stage])))
    batch.add(item(1, model.fetcher.put(GREEN)))
    await until(lambda: [picture for picture in batch._ready if picture.item.index == 1])
    if stage == "apart":
        await pool.asked.wait()
    for _ in range(2):
        batch.withdraw(7 if stage == "unknown" else 0)
    answered = [result async for group in batch.finish() for result in group]
    codes = {result.index: result.code for result in answered}
    assert len(answered) == 2
    assert codes == {0: Code.OK if stage == "unknown" else Code.CANCELLED, 1: Code.OK}
    assert engine.sizes == [2 if stage == "unknown" else 1]
    assert pool.left == (["me"] if stage == "apart" else [])
    batch.withdraw(1)


async def test_one_that_is_being_written_to_the_slot_is_withdrawn_when_it_has(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    decode = model.decoder.decode_if_quick

    def slow(data: Any, outs: list[Callable[[], Any]], regions: Any, _shelf: object) -> tuple[PictureSize, bool]:
        row = outs[0]()
        begun.set()
        go_on.wait()
        return decode(data, [lambda: row], regions)

    monkeypatch.setattr(model.decoder, "decode_if_quick", slow)
    batch.add(item(0, model.fetcher.put(RED)))
    await asyncio.to_thread(begun.wait)
    batch.withdraw(0)
    answers = asyncio.create_task(results(batch))
    await asyncio.wait([answers], timeout=0.05)
    assert not answers.done()
    go_on.set()
    assert {index: result.code for index, result in (await answers).items()} == {0: Code.CANCELLED}
    assert (engine.sizes, engine.in_use) == ([], 0)


async def test_a_deadline_ends_decoding(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, pool: FakePool
) -> None:
    pool.go.clear()
    batch.add(
        item(0, model.fetcher.put(SLOW), timeout_us=500_000)
    )  # long enough to come to the decoder on a busy machine
    answered = await results(batch)
    assert answered[0].code == Code.DEADLINE_EXCEEDED
    assert pool.left == ["me"]


async def test_fetched_bytes_are_let_go_when_they_are_decoded(model: PictureModel, batch: PictureBatch) -> None:
    for index, picture in enumerate((RED, SLOW, b"broken", NotFound("no"))):
        batch.add(item(index, model.fetcher.put(picture)))
    await results(batch)
    assert model.fetcher.budget.used == 0  # type: ignore[attr-defined]


async def test_a_model_that_is_unloaded_answers_its_stragglers(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    hangs = asyncio.Event()
    batch.add(item(0, model.fetcher.put(hangs)))
    batch.add(item(1, model.fetcher.put(GREEN)))
    groups = batch.finish()
    await anext(groups)

    async def refuse(*_: object) -> None:
        raise Unavailable("unloaded")

    engine.acquire = refuse  # type: ignore[method-assign, assignment]
    hangs.set()
    (late,) = await anext(groups)
    assert late.code == Code.UNAVAILABLE


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device"), Unavailable("unloaded")])
async def test_a_slot_that_cannot_be_made_fails_each_picture_that_needs_it_and_no_other(
    model: PictureModel,
    batch: PictureBatch,
    engine: ScriptedModel,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Be it for the first of the batch, for those that are decoded apart, or for stragglers."""
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    code = Code.UNAVAILABLE if isinstance(error, Unavailable) else Code.INTERNAL
    acquire = engine.acquire

    async def refuse(*_: object) -> Any:
        raise error

    engine.acquire = refuse  # type: ignore[method-assign]
    hangs, hangs_longer = asyncio.Event(), asyncio.Event()
    for index, picture in enumerate((SLOW, SLOW, RED, hangs, hangs_longer)):
        batch.add(item(index, model.fetcher.put(picture)))
    await until(lambda: all(picture.item.index >= 3 for picture in batch._preparing))
    groups = batch.finish()
    assert await anext(groups) == []  # nothing was executed
    answered = {result.index: result.code for result in await anext(groups)}
    assert answered == dict.fromkeys(range(3), code)
    hangs.set()
    assert [(result.index, result.code) for result in await anext(groups)] == [(3, code)]
    engine.acquire = acquire  # type: ignore[method-assign]
    hangs_longer.set()
    (last,) = await anext(groups)
    assert (last.index, label(last)) == (4, "red")
    assert engine.in_use == 0


async def test_a_fault_of_the_engines_fails_its_batch_alone(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel
) -> None:
    async def fail(*_: object) -> Any:
        raise MemoryError

    engine.infer = fail  # type: ignore[method-assign]
    for index in range(2):
        batch.add(item(index, model.fetcher.put(RED)))
    answered = {index: result.code for index, result in (await results(batch)).items()}
    assert answered == dict.fromkeys(range(2), Code.INTERNAL)
    assert engine.in_use == 0


async def test_the_tasks_of_an_abandoned_batch_are_owned_until_they_end(model: PictureModel, pool: FakePool) -> None:
    pool.go.clear()
    batch = PictureBatch(model)
    batch.add(item(0, model.fetcher.put(SLOW)))
    await pool.asked.wait()
    batch.abandon()
    assert len(model._tasks) == 1
    await asyncio.wait(model._tasks)
    await asyncio.sleep(0)
    assert not model._tasks


async def test_the_repr_of_a_picture_holds_no_secret(model: PictureModel) -> None:
    key = Key(id="k", key=SECRET, owner="me")
    sent = item(0, model.fetcher.put(RED))
    sent.identity = Identity.of(key).write()
    ((_, admitted),) = model.admission.admit([sent], 0.0)
    assert isinstance(admitted, list)
    (picture,) = admitted
    assert picture.request.api_key == SECRET
    assert picture.key in repr(picture)
    assert SECRET not in repr(picture)
    assert Identity.of(key).digest not in repr(picture)
    assert sent.identity not in repr(picture)


async def test_keys_of_one_owner_have_one_share_and_their_own_ids(
    model: PictureModel, batch: PictureBatch, pool: FakePool
) -> None:
    for index, key in enumerate((Key(id="one", key="1" * 24, owner="me"), Key(id="two", key="2" * 24, owner="me"))):
        sent = item(index, model.fetcher.put(SLOW), client=key.id, api_key=key.key)
        sent.identity = Identity.of(key).write()
        batch.add(sent)
    assert {answer.code for answer in (await results(batch)).values()} == {Code.OK}
    assert pool.begun == ["me", "me"]
    assert {stages.key_id for stages in model.admission.recent.newest_first()} == {"one", "two"}


INTERACTIVE, BULK = batching_pb2.PRIORITY_INTERACTIVE, batching_pb2.PRIORITY_BULK


def begun(model: PictureModel, *priorities: batching_pb2.Priority) -> asyncio.Task[list[int]]:
    """A batch of such items, and its answers."""
    urgent = Priority.INTERACTIVE if INTERACTIVE in priorities else Priority.BULK
    batch = PictureBatch(model, urgent)
    for index, priority in enumerate(priorities):
        batch.add(item(index, model.fetcher.put(RED), priority=priority))
    return asyncio.create_task(collected(batch))


async def test_a_batch_with_an_interactive_picture_is_run_before_bulk_alone(
    model: PictureModel, engine: ScriptedModel
) -> None:
    engine.go.clear()
    running = begun(model, BULK)
    await engine.asked.wait()
    bulk = begun(model, BULK, BULK)
    await until(lambda: model.turns.waiting(Priority.BULK))
    mixed = begun(model, BULK, INTERACTIVE, BULK)
    await until(lambda: len(engine.sizes) == 2)
    assert engine.sizes == [1, 3]
    engine.go.set()
    await asyncio.gather(running, bulk, mixed)
    assert engine.sizes == [1, 3, 2]


async def test_a_batch_whose_turn_does_not_come_in_time_is_answered(model: PictureModel, engine: ScriptedModel) -> None:
    engine.go.clear()
    running = begun(model, BULK)
    await engine.asked.wait()
    late = PictureBatch(model, Priority.BULK)
    late.add(item(0, model.fetcher.put(RED), timeout_us=200_000, priority=BULK))
    assert (await results(late))[0].code == Code.DEADLINE_EXCEEDED
    engine.go.set()
    await running
    assert engine.sizes == [1]
    await begun(model, BULK)


async def test_a_bulk_picture_that_has_no_row_is_asked_for_as_bulk_everywhere(
    model: PictureModel, engine: ScriptedModel, pool: FakePool
) -> None:
    names = [model.fetcher.put(SLOW) for _ in range(2)]
    batch = PictureBatch(model)
    for index, (name, priority) in enumerate(zip(names, (INTERACTIVE, BULK), strict=True)):
        batch.add(item(index, name, priority=priority))
    await results(batch)
    assert sorted(pool.priorities) == ["bulk", "interactive"]
    assert sorted(model.fetcher.priorities) == ["bulk", "interactive"]  # type: ignore[attr-defined]
    assert [told(model, name).priority for name in names] == ["interactive", "bulk"]
    assert engine.priorities == [Priority.INTERACTIVE]


async def test_answers_and_waits_are_counted_by_priority(model: PictureModel) -> None:
    def counted(name: str, **labels: str) -> list[float]:
        return [
            WORKER.get_sample_value(f"shoal_worker_{name}", {"model": "colour", "priority": each, **labels}) or 0.0
            for each in Priority
        ]

    def all_counts() -> list[float]:
        return [*counted("requests_total", code="OK"), *counted("queue_seconds_count")]

    before = all_counts()
    await begun(model, BULK, BULK)
    await begun(model, INTERACTIVE, BULK)
    assert [now - then for now, then in zip(all_counts(), before, strict=True)] == [1, 3, 1, 1]


async def test_an_older_batcher_says_no_priority_and_a_newer_one_may_say_another(model: PictureModel) -> None:
    for priority in (None, 7):
        sent = item(0, model.fetcher.put(RED))
        sent.ClearField("priority")
        if priority is not None:
            sent = batching_pb2.BatchItem.FromString(sent.SerializeToString() + bytes([7 << 3, priority]))
        ((_, admitted),) = model.admission.admit([sent], 0.0)
        assert isinstance(admitted, list)
        (picture,) = admitted
        assert picture.priority is Priority.INTERACTIVE


async def test_items_of_one_message_are_let_in_each_by_its_own_key(model: PictureModel, batch: PictureBatch) -> None:
    """What was granted for one is no word for the next, whose key, identity or caller is another."""
    names = [model.fetcher.put(RED) for _ in range(5)]
    wrong = item(2, names[2], api_key="wrong" * 5)
    others = item(3, names[3], client="other")
    batch.add(item(0, names[0]), item(1, names[1]), wrong, others, item(4, names[4]))
    codes = {index: result.code for index, result in (await results(batch)).items()}
    refused = dict.fromkeys((2, 3), Code.UNAUTHENTICATED)
    assert codes == dict.fromkeys(range(5), Code.OK) | refused
    assert sorted(model.fetcher.fetched) == sorted(f"me/{names[index]}.jpg" for index in (0, 1, 4))


def never(engine: ScriptedModel) -> asyncio.Event:
    """The engine has no slot; set once it is asked for one."""
    asked = asyncio.Event()

    async def wait(*_: object) -> Any:
        asked.set()
        await asyncio.Event().wait()

    engine.acquire = wait  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("leaves", ["deadline", "withdrawn", "abandoned"])
async def test_one_that_waits_for_a_slot_may_leave(
    model: PictureModel, batch: PictureBatch, engine: ScriptedModel, leaves: str
) -> None:
    asked = never(engine)
    batch.add(item(0, model.fetcher.put(RED), timeout_us=200_000 if leaves == "deadline" else 0))
    await asked.wait()
    if leaves == "abandoned":
        batch.abandon()
    else:
        if leaves == "withdrawn":
            batch.withdraw(0)
        code = Code.DEADLINE_EXCEEDED if leaves == "deadline" else Code.CANCELLED
        assert [result.code for result in (await results(batch)).values()] == [code]
    assert not batch._preparing
    assert model.fetcher.budget.used == 0  # type: ignore[attr-defined]


async def test_each_deadline_is_kept_also_one_that_comes_later_than_anothers(
    model: PictureModel, batch: PictureBatch, pool: FakePool
) -> None:
    pool.go.clear()
    for index, timeout_us in enumerate((900_000, 400_000)):
        batch.add(item(index, model.fetcher.put(SLOW), timeout_us=timeout_us))
    groups = batch.finish()
    assert await anext(groups) == []
    answered = [result async for group in groups for result in group]
    assert [(result.index, result.code) for result in answered] == [
        (1, Code.DEADLINE_EXCEEDED),
        (0, Code.DEADLINE_EXCEEDED),
    ]
    assert pool.left == ["me", "me"]


@pytest.mark.parametrize("ends", ["withdraw", "abandon"])
async def test_bytes_that_come_as_their_caller_leaves_are_let_go(
    model: PictureModel, batch: PictureBatch, ends: str
) -> None:
    """The fetch is done, and nobody has looked yet."""
    fetches: list[asyncio.Future[Fetched]] = []
    fetch = model.fetcher.fetch

    def noted(*given: Any) -> asyncio.Future[Fetched]:
        fetches.append(fetch(*given))
        return fetches[-1]

    model.fetcher.fetch = noted  # type: ignore[method-assign]
    batch.add(item(0, model.fetcher.put(RED)))
    while not fetches[0].done():
        await asyncio.sleep(0)
    batch.withdraw(0) if ends == "withdraw" else batch.abandon()
    await until(lambda: not batch._preparing)
    assert model.fetcher.budget.used == 0  # type: ignore[attr-defined]


async def test_work_that_somebody_cancels_is_answered(model: PictureModel, batch: PictureBatch, pool: FakePool) -> None:
    pool.go.clear()
    batch.add(item(0, model.fetcher.put(SLOW)))
    await pool.asked.wait()
    (picture,) = batch._preparing
    assert picture.step is not None
    picture.step.cancel()
    assert [result.code for result in (await results(batch)).values()] == [Code.INTERNAL]


@pytest.fixture
def caching(model: PictureModel) -> PictureModel:
    """The model, with a result cache."""
    cache = ResultCache(seconds=60, max_bytes=10**6, meter=ResultCacheMeter(model.name))
    return replace(model, cache=cache)


async def ask(model: PictureModel, *items: batching_pb2.BatchItem) -> list[list[batching_pb2.BatchItemResult]]:
    """The groups of a batch's results."""
    with closing_batch(PictureBatch(model)) as batch:
        batch.add(*items)
        return [list(group) async for group in batch.finish()]


@contextmanager
def closing_batch(batch: PictureBatch) -> Iterator[PictureBatch]:
    try:
        yield batch
    finally:
        batch.abandon()


async def test_the_same_content_is_answered_without_slot_and_engine(
    caching: PictureModel, engine: ScriptedModel
) -> None:
    first, second = (caching.fetcher.put(GREEN) for _ in range(2))
    await ask(caching, item(0, first))
    slots = len(engine.priorities)
    nothing, (answer,) = await ask(caching, item(1, second))
    assert nothing == []  # nothing was executed, and so nothing is learned of the engine
    assert label(answer) == "green"
    reply = inference_pb2.ClassifyReply.FromString(answer.response)
    assert (reply.image_uuid, reply.model_name, reply.model_version) == (second, "colour", 3)
    assert reply.timing.cached
    assert (reply.timing.batch_size, reply.timing.compute_us, reply.timing.decode_us) == (0, 0, 0)
    assert reply.timing.queue_us >= 7
    assert engine.sizes == [1]
    assert (len(engine.priorities), engine.in_use) == (slots, 0)
    visit = newest(caching, second)
    assert (visit.result_cache, visit.code, visit.batch_size, visit.decoded_by) == ("hit", "OK", 0, "")
    assert list(visit.stage_seconds) == ["fetch", "lookup", "reply", "send"]
    assert sum(visit.stage_seconds.values()) == pytest.approx(visit.total_seconds)
    assert newest(caching, first).result_cache == "miss"
    assert list(newest(caching, first).stage_seconds)[:3] == ["fetch", "lookup", "slot"]


def newest(model: PictureModel, image_uuid: str) -> WorkerVisit:
    return explain(model.admission.recent, image_uuid).worker[0]


async def test_without_a_cache_nothing_is_looked_up(model: PictureModel, engine: ScriptedModel) -> None:
    for index in range(2):
        await ask(model, item(index, name := model.fetcher.put(RED)))
        assert newest(model, name).result_cache == ""
        assert "lookup" not in newest(model, name).stage_seconds
    assert engine.sizes == [1, 1]


@pytest.mark.parametrize("known", [0, 1])
async def test_a_hit_leaves_no_gap_among_those_that_run(
    caching: PictureModel, engine: ScriptedModel, known: int
) -> None:
    await ask(caching, item(0, caching.fetcher.put(BLUE)))
    pictures = [RED, GREEN]
    pictures.insert(known, BLUE)
    groups = await ask(caching, *(item(index, caching.fetcher.put(each)) for index, each in enumerate(pictures)))
    answered = {result.index: result for group in groups for result in group}
    expected = ["red", "green"]
    expected.insert(known, "blue")
    assert [label(answered[index]) for index in range(3)] == expected
    assert engine.sizes == [1, 2]
    assert inference_pb2.ClassifyReply.FromString(answered[2].response).timing.batch_size == 2


async def test_a_batch_says_how_many_pictures_it_executed(
    caching: PictureModel, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what was known, nor what failed, nor a straggler is among them."""
    await ask(caching, item(0, caching.fetcher.put(BLUE)))
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    hangs = asyncio.Event()
    pictures = [BLUE, GREEN, b"text", GREEN, hangs]
    with closing_batch(PictureBatch(caching)) as batch:
        batch.add(*(item(index, caching.fetcher.put(each)) for index, each in enumerate(pictures)))
        assert batch.executed == 0
        async for _ in batch.finish():
            assert batch.executed == 2
            hangs.set()
    assert engine.sizes == [1, 2, 1]


async def test_two_equal_pictures_of_one_batch_both_run_and_leave_one_answer(
    caching: PictureModel, engine: ScriptedModel
) -> None:
    names = [caching.fetcher.put(RED) for _ in range(2)]
    (group,) = await ask(caching, *(item(index, name) for index, name in enumerate(names)))
    assert [label(result) for result in group] == ["red", "red"]
    assert engine.sizes == [2]
    assert caching.cache is not None
    assert len(caching.cache) == 1


async def test_other_owners_and_other_options_miss(caching: PictureModel, engine: ScriptedModel) -> None:
    await ask(caching, item(0, caching.fetcher.put(RED)))
    await ask(caching, item(1, caching.fetcher.put(RED, "you"), client="other", api_key="o" * 24))
    await ask(caching, item(2, caching.fetcher.put(RED), top_k=1))
    assert engine.sizes == [1, 1, 1]
    for top_k, classes in ((0, 3), (1, 1)):
        _, (again,) = await ask(caching, item(3, caching.fetcher.put(RED), top_k=top_k))
        assert len(inference_pb2.ClassifyReply.FromString(again.response).classes) == classes
    assert engine.sizes == [1, 1, 1]


async def test_errors_are_not_kept(caching: PictureModel, engine: ScriptedModel) -> None:
    broken = BLUE[:-200]
    for picture in (broken, NotFound("no image"), broken):
        nothing, (result,) = await ask(caching, item(0, caching.fetcher.put(picture)))
        assert nothing == []
        assert result.code in {Code.INVALID_ARGUMENT, Code.NOT_FOUND}
    engine.poison = 0
    ((failed,),) = await ask(caching, item(0, caching.fetcher.put(RED)))
    assert failed.code == Code.INTERNAL
    assert caching.cache is not None
    assert len(caching.cache) == 0
    engine.poison = None
    ((well,),) = await ask(caching, item(0, caching.fetcher.put(RED)))
    assert label(well) == "red"


async def test_an_answer_of_another_version_is_not_kept(caching: PictureModel, engine: ScriptedModel) -> None:
    """Triton changes versions without a word: what was asked for under one number isn't kept of another."""
    infer, versions = engine.infer, iter([4, 3, 0])

    async def of_version(*asked: Any) -> Any:
        return replace(await infer(*asked), version=next(versions))

    engine.infer = of_version  # type: ignore[method-assign]
    assert caching.cache is not None
    for kept in (0, 1):
        await ask(caching, item(0, caching.fetcher.put(RED)))
        assert len(caching.cache) == kept


async def test_a_straggler_may_hit_too(
    caching: PictureModel, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(caching, item(0, caching.fetcher.put(RED)))
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    hangs = asyncio.Event()  # then it is a red one
    with closing_batch(PictureBatch(caching)) as batch:
        batch.add(item(1, caching.fetcher.put(GREEN)), item(2, caching.fetcher.put(hangs)))
        groups = batch.finish()
        assert [label(result) for result in await anext(groups)] == ["green"]
        hangs.set()
        assert [label(result) for result in await anext(groups)] == ["red"]
    assert engine.sizes == [1, 1]
    assert engine.in_use == 0


async def test_a_caller_who_leaves_while_its_picture_is_looked_up_is_let_go(
    caching: PictureModel, engine: ScriptedModel
) -> None:
    """Its job waits for the only thread; it never begins."""
    async with occupied(caching.decoding.threads) as go_on:
        with closing_batch(PictureBatch(caching)) as batch:
            batch.add(item(0, caching.fetcher.put(RED)), item(1, caching.fetcher.put(RED)))
            await until(lambda: all(picture.at is LOOKUP for picture in batch._preparing))
            batch.withdraw(0)
            go_on()
            answered = await results(batch)
    assert (answered[0].code, label(answered[1])) == (Code.CANCELLED, "red")
    assert engine.sizes == [1]


async def test_a_deadline_that_passes_while_a_picture_waits_to_be_looked_up_is_kept(
    caching: PictureModel, engine: ScriptedModel
) -> None:
    async with occupied(caching.decoding.threads):
        with closing_batch(PictureBatch(caching)) as batch:
            batch.add(item(0, caching.fetcher.put(RED), timeout_us=20_000))
            answered = await results(batch)
    assert answered[0].code == Code.DEADLINE_EXCEEDED
    assert engine.sizes == []


async def test_what_is_known_before_the_batch_runs_is_told_at_once(
    caching: PictureModel, engine: ScriptedModel
) -> None:
    await ask(caching, item(0, caching.fetcher.put(RED)))
    engine.go.clear()
    told: list[list[int]] = []
    with closing_batch(PictureBatch(caching)) as batch:
        batch.tell_early(lambda results: told.append([result.index for result in results]))
        batch.add(item(1, "no uuid"), item(2, caching.fetcher.put(GREEN)))
        await until(lambda: told == [[1]])
        batch.add(*(item(index, caching.fetcher.put(RED)) for index in (3, 4)))
        await until(lambda: sorted(itertools.chain(*told[1:])) == [3, 4])
        batch.add(item(5, caching.fetcher.put(NotFound("no image"))))
        await until(lambda: told[-1] == [5])
        engine.go.set()
        assert [label(result) for result in (await results(batch)).values()] == ["green"]
    assert engine.sizes == [1, 1]


async def test_a_batch_whose_answers_were_all_known_has_nothing_left(caching: PictureModel) -> None:
    await ask(caching, item(0, caching.fetcher.put(RED)))
    told: list[int] = []
    with closing_batch(PictureBatch(caching)) as batch:
        batch.tell_early(lambda results: told.extend(result.index for result in results))
        batch.add(item(1, caching.fetcher.put(RED)))
        await until(lambda: told)
        assert [list(group) async for group in batch.finish()] == [[]]
        assert batch.ready_at == 0
    assert told == [1]


async def test_a_batch_waits_for_what_is_looked_up(
    caching: PictureModel, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    looks, is_worth_waiting = itertools.count(), PictureBatch._is_worth_waiting
    async with occupied(caching.decoding.threads) as go_on:

        def noted(*asked: Any) -> bool:
            if next(looks) == 3:
                go_on()
            return is_worth_waiting(*asked)

        monkeypatch.setattr(PictureBatch, "_is_worth_waiting", noted)
        with closing_batch(PictureBatch(caching)) as batch:
            batch.add(item(0, name := caching.fetcher.put(RED)))
            await until(lambda: all(picture.at is LOOKUP for picture in batch._preparing))
            assert label((await results(batch))[0]) == "red"
    assert not newest(caching, name).left_behind


async def test_who_is_ready_waits_no_longer_for_others_that_are_looked_up_than_for_their_decoding(
    caching: PictureModel, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STRAGGLER_SECONDS", "OTHERS_SECONDS", "QUEUED_SECONDS"):
        monkeypatch.setattr(batch_module, name, 0.001)
    with closing_batch(PictureBatch(caching)) as batch:
        batch.add(item(0, caching.fetcher.put(RED)))
        await until(lambda: batch._ready)
        async with occupied(caching.decoding.threads) as go_on:
            batch.add(item(1, caching.fetcher.put(GREEN, "you"), client="other", api_key="o" * 24))
            await until(lambda: all(picture.at is LOOKUP for picture in batch._preparing))
            groups = batch.finish()
            assert [label(result) for result in await anext(groups)] == ["red"]
            go_on()
            assert [label(result) for result in await anext(groups)] == ["green"]
    assert engine.sizes == [1, 1]


async def test_the_event_loop_hashes_nothing(caching: PictureModel, monkeypatch: pytest.MonkeyPatch) -> None:
    key, threads = Scope.key, []

    def noted(self: Scope, content: Any) -> bytes:
        threads.append(threading.current_thread())
        return key(self, content)

    monkeypatch.setattr(Scope, "key", noted)
    await ask(caching, item(0, caching.fetcher.put(RED)), item(1, caching.fetcher.put(SLOW)))
    assert len(threads) == 2
    assert threading.main_thread() not in threads
