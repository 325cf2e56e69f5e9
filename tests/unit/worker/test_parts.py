from __future__ import annotations

import asyncio
import gc
import tracemalloc
import uuid
from contextlib import closing
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pytest
from obstore.store import MemoryStore
from PIL import Image

from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, Internal
from shoal.explain.recent import Recent
from shoal.explain.views import RegionView, WorkerVisit
from shoal.observe.metrics import WORKER
from shoal.pictures.decode import Decoder
from shoal.runtime.threads import Threads
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.v1 import inference_pb2 as pb
from shoal.worker import batch as batch_module
from shoal.worker import parts as parts_module
from shoal.worker.access import Access
from shoal.worker.admission import REGION_BYTES, Admission
from shoal.worker.batch import PictureBatch
from shoal.worker.decoding import Decoding
from shoal.worker.fetch_picture import Fetcher
from shoal.worker.heads.head import make_head
from shoal.worker.meter import Meter
from shoal.worker.picture import LOOKUP, Picture
from shoal.worker.picture_cache import PictureCache
from shoal.worker.picture_model import PictureModel
from shoal.worker.result_cache import ResultCache
from shoal.worker.result_cache_meter import ResultCacheMeter
from shoal.worker.stages import Stages, explain
from support.kept_spans import SAMPLED, KeptSpans
from support.occupied import occupied
from support.pictures import encode
from support.scripted_engine import ScriptedModel
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from obstore import GetResult
    from opentelemetry.sdk.trace import ReadableSpan

    from shoal.engine import Inference

SECRET = "s" * 24
KEYS = {owner: Key(id=owner, key=SECRET[:-1] + owner[0], owner=owner) for owner in ("me", "you")}
BANDS = 16
COLOURS = ("red", "lime", "blue")
LABELS = ("red", "green", "blue")


def bands(form: str = "PNG") -> bytes:
    """Sixteen columns of 10 pixels: red, green, blue, red …"""
    picture = Image.new("RGB", (10 * BANDS, 20))
    for band in range(BANDS):
        picture.paste(COLOURS[band % 3], (10 * band, 0, 10 * band + 10, 20))
    return encode(picture, form, subsampling=0) if form == "JPEG" else encode(picture, form)


def band(number: int) -> pb.PictureRegion:
    return pb.PictureRegion(x=(number + 0.2) / BANDS, y=0, width=0.6 / BANDS, height=1)


class CountingStore:
    """An object store that says how often it was asked."""

    def __init__(self) -> None:
        self.objects = MemoryStore()
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get_async(self, path: str, *, options: Any = None) -> GetResult:
        self.asked.append(path)
        await self.gate.wait()
        return await obstore.get_async(self.objects, path, options=options)

    def put(self, picture: bytes, owner: str = "me") -> str:
        name = str(uuid.uuid4())
        obstore.put(self.objects, f"{owner}/{name}.jpg", picture)
        return name


class CountingDecoder(Decoder):
    """Says how often it decoded."""

    decoded = headers = 0

    def read_header(self, data: Any) -> Any:
        self.headers += 1
        return super().read_header(data)

    def read_pixels(self, *of: Any) -> Any:
        self.decoded += 1
        return super().read_pixels(*of)


class HerePool:
    """Decodes as the processes do, in this one."""

    async def decode(
        self, _owner: str, decoder: Decoder, data: Any, _priority: object, regions: Sequence[Any]
    ) -> tuple[Any, float]:
        row = np.empty(decoder.input.shape, decoder.input.dtype)
        return np.stack([row.copy() for _ in decoder.decode_parts(data, row, regions)]), 0.001


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def engine() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def model(engine: ScriptedModel, store: CountingStore) -> Iterator[PictureModel]:
    with closing(Threads(2, "decode")) as threads:
        head, cache = make_head(engine.config), PictureCache(10**6)
        access = Access(KeyRing(KEYS.values()))
        yield PictureModel(
            loaded=engine,
            admission=Admission(engine.config, head, access, Recent(100)),
            decoder=CountingDecoder(engine.config, max_pixels=10**6, max_scans=10),
            head=head,
            fetcher=Fetcher(store, concurrency=4, max_bytes=10**6, budget_bytes=10**6, timeout_seconds=30, cache=cache),
            decoding=Decoding(threads, HerePool(), cache),  # type: ignore[arg-type]
            meter=Meter("colour"),
        )


@pytest.fixture
async def batch(model: PictureModel) -> AsyncIterator[PictureBatch]:
    made = PictureBatch(model)
    yield made
    made.abandon()


def item(
    index: int, image_uuid: str, regions: Sequence[pb.PictureRegion] = (), owner: str = "me", **more: Any
) -> batching_pb2.BatchItem:
    key = KEYS[owner].key
    request = pb.ImageRequest(api_key=key, image_uuid=image_uuid, model_name="colour", top_k=1, regions=regions, **more)
    return batching_pb2.BatchItem(index=index, request=request.SerializeToString(), owner=owner, queued_us=7)


async def results(batch: PictureBatch) -> dict[int, batching_pb2.BatchItemResult]:
    return {result.index: result async for group in batch.finish() for result in group}


def labels(result: batching_pb2.BatchItemResult) -> list[str]:
    assert result.code == Code.OK, result.message
    reply = pb.ClassifyReply.FromString(result.response)
    assert not reply.classes
    return [each.reply.classes[0].label if not each.code else Code(each.code).name for each in reply.region_replies]


def expected(count: int) -> list[str]:
    return [LABELS[number % 3] for number in range(count)]


def counted(code: str) -> float:
    labels = {"model": "colour", "code": code, "priority": "interactive"}
    return WORKER.get_sample_value("shoal_worker_requests_total", labels) or 0.0


async def test_a_request_counts_once_however_many_regions_it_has(store: CountingStore, batch: PictureBatch) -> None:
    before = counted("OK"), counted("NOT_FOUND")
    batch.add(item(0, store.put(bands()), [band(number) for number in range(9)]))
    batch.add(item(1, str(uuid.uuid4()), [band(0), band(1)]))
    await results(batch)
    assert (counted("OK"), counted("NOT_FOUND")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("count", [1, 4, 6])
async def test_regions_are_fetched_and_decoded_once_and_answered_in_their_order(
    model: PictureModel, store: CountingStore, engine: ScriptedModel, batch: PictureBatch, form: str, count: int
) -> None:
    name = store.put(bands(form))
    batch.add(item(3, name, [band(number) for number in range(count)]))
    (result,) = (await results(batch)).values()
    assert labels(result) == expected(count)
    reply = pb.ClassifyReply.FromString(result.response)
    assert (result.index, reply.image_uuid, reply.model_name, reply.model_version) == (3, name, "colour", 3)
    assert reply.timing.batch_size == count
    assert reply.region_replies[0].reply.region.x == pytest.approx(0.0125)
    assert len(store.asked) == 1
    assert isinstance(model.decoder, CountingDecoder)
    assert model.decoder.decoded == 1
    assert engine.sizes == [count]
    assert model.fetcher.held_bytes == 0


async def test_a_region_that_is_asked_for_later_is_cut_from_the_pixels_that_are_there(
    model: PictureModel, store: CountingStore
) -> None:
    name = store.put(bands("JPEG"))
    assert isinstance(model.decoder, CountingDecoder)
    for number in range(3):
        batch = PictureBatch(model)
        batch.add(item(0, name, region=band(number)))
        (result,) = (await results(batch)).values()
        assert pb.ClassifyReply.FromString(result.response).classes[0].label == LABELS[number]
        batch.abandon()
    assert (model.decoder.decoded, model.decoder.headers) == (1, 1)
    obstore.put(store.objects, f"me/{name}.jpg", encode(Image.new("RGB", (16, 16), "blue")))
    batch = PictureBatch(model)
    batch.add(item(0, name, region=band(0)))
    (result,) = (await results(batch)).values()
    assert pb.ClassifyReply.FromString(result.response).classes[0].label == "blue"
    assert (model.decoder.decoded, model.decoder.headers) == (2, 2)
    batch.abandon()


async def test_a_region_that_a_pipeline_asks_for_is_cut_from_the_pixels_of_its_first_step(
    model: PictureModel, store: CountingStore
) -> None:
    ours = Identity.of(KEYS["me"])
    assert isinstance(model.decoder, CountingDecoder)
    for identity, decoded in ((ours.by_pipeline("look", "me/", ""), 1), (ours, 3)):
        name = store.put(bands("JPEG"))
        for region in (None, band(1)):
            batch, asked = PictureBatch(model), item(0, name, region=region)
            asked.identity = identity.write()
            batch.add(asked)
            (result,) = (await results(batch)).values()
            assert result.code == Code.OK
            batch.abandon()
        assert model.decoder.decoded == decoded


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
async def test_what_there_is_no_row_for_runs_in_further_executions(
    model: PictureModel,
    store: CountingStore,
    engine: ScriptedModel,
    batch: PictureBatch,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_module, "OTHERS_SECONDS", 30.0)
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 30.0)
    whole = store.put(encode(Image.new("RGB", (16, 16), "blue"), form))
    batch.add(item(0, store.put(bands(form)), [band(number) for number in range(16)]))
    batch.add(item(1, whole))
    batch.add(item(2, whole, [band(number) for number in range(3)]))
    answered = await results(batch)
    assert labels(answered[0]) == expected(16)
    assert labels(answered[2]) == ["blue"] * 3
    assert pb.ClassifyReply.FromString(answered[1].response).classes[0].label == "blue"
    assert engine.sizes == [6, 6, 6, 2]
    assert len(store.asked) == 3  # one each
    assert model.fetcher.held_bytes == 0
    assert engine.in_use == 0


async def test_whole_pictures_that_there_is_no_row_for_are_each_answered_for_themselves(
    model: PictureModel, store: CountingStore, batch: PictureBatch
) -> None:
    batch.add(item(0, store.put(bands()), [band(number) for number in range(8)]))
    for index, colour in enumerate(COLOURS, 1):
        batch.add(item(index, store.put(encode(Image.new("RGB", (16, 16), colour), "PNG"))))
    answered = await results(batch)
    told = [pb.ClassifyReply.FromString(answered[index].response).classes[0].label for index in (1, 2, 3)]
    assert told == list(LABELS)
    assert labels(answered[0]) == expected(8)
    assert model.fetcher.held_bytes == 0


async def test_each_region_counts_in_what_is_executed(store: CountingStore, batch: PictureBatch) -> None:
    batch.add(item(0, store.put(bands()), some(0, 1, 2)), item(1, store.put(bands())))
    await results(batch)
    assert (batch.executed, batch.put_off) == (4, 0)


async def test_a_batch_says_what_it_had_no_rows_for(store: CountingStore, batch: PictureBatch) -> None:
    batch.add(item(0, store.put(bands()), some(0, 1, 2)), item(1, store.put(bands()), some(*range(8))))
    await results(batch)
    assert (batch.executed, batch.put_off) == (6, 5)


async def test_a_batch_of_nothing_but_more_regions_than_rows_grants_its_permit_after_the_first_execution(
    store: CountingStore, engine: ScriptedModel, batch: PictureBatch
) -> None:
    batch.add(item(0, store.put(bands()), [band(number) for number in range(13)]))
    groups = batch.finish()
    assert await anext(groups) == []
    assert engine.sizes == [6]
    (result,) = await anext(groups)
    assert labels(result) == expected(13)
    assert engine.sizes == [6, 6, 1]


async def test_what_befalls_all_regions_is_the_calls_own_failure(
    model: PictureModel, store: CountingStore, batch: PictureBatch
) -> None:
    batch.add(item(0, str(uuid.uuid4()), [band(number) for number in range(9)]))
    batch.add(item(1, store.put(b"\xff\xd8\xff no picture"), [band(0), band(1)]))
    answered = await results(batch)
    assert (answered[0].code, answered[1].code) == (Code.NOT_FOUND, Code.INVALID_ARGUMENT)
    assert len(store.asked) == 2
    assert model.fetcher.held_bytes == 0


def refuse_green(engine: ScriptedModel) -> None:
    """From now on a batch with green in it fails as a whole."""
    infer = engine.infer

    async def refusing(slot: Any, size: int, timeout_microseconds: int = 0) -> Inference:
        if (slot.input[:size, :, :, 1] > 200).any():
            raise Internal("poisoned")
        return await infer(slot, size, timeout_microseconds)

    engine.infer = refusing  # type: ignore[method-assign]


async def test_a_region_that_the_engine_refuses_fails_alone(
    store: CountingStore, engine: ScriptedModel, batch: PictureBatch
) -> None:
    refuse_green(engine)
    batch.add(item(0, store.put(bands()), [band(number) for number in range(3)]))
    (result,) = (await results(batch)).values()
    assert labels(result) == ["red", "INTERNAL", "blue"]


async def test_a_caller_that_leaves_takes_all_its_regions_along(
    model: PictureModel, store: CountingStore, engine: ScriptedModel, batch: PictureBatch
) -> None:
    store.gate.clear()
    batch.add(item(0, store.put(bands()), [band(number) for number in range(14)]))
    await until(lambda: bool(store.asked))
    batch.withdraw(0)
    (result,) = (await results(batch)).values()
    assert result.code == Code.CANCELLED
    assert engine.sizes == []
    assert model.fetcher.held_bytes == 0


async def test_the_bytes_of_regions_that_wait_are_let_go_with_their_batch(
    model: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    engine.go.clear()
    batch = PictureBatch(model)
    batch.add(item(0, store.put(bands()), [band(number) for number in range(14)]))
    running = asyncio.ensure_future(results(batch))
    await engine.asked.wait()
    assert model.fetcher.held_bytes > 0
    running.cancel()
    await asyncio.wait([running])
    batch.abandon()
    assert model.fetcher.held_bytes == 0


async def test_regions_whose_picture_hangs_are_left_behind(
    store: CountingStore, engine: ScriptedModel, batch: PictureBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    store.gate.clear()
    batch.add(item(0, store.put(bands()), [band(number) for number in range(8)]))
    groups = batch.finish()
    assert await anext(groups) == []
    assert engine.in_use == 0
    monkeypatch.undo()
    store.gate.set()
    (result,) = await anext(groups)
    assert labels(result) == expected(8)


async def test_answers_that_are_too_large_together_say_so_one_by_one(
    store: CountingStore, batch: PictureBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "REPLY_BYTES", 3 * 64 + 250)
    batch.add(item(0, store.put(bands()), [band(number) for number in range(3)]))
    (result,) = (await results(batch)).values()
    assert labels(result) == ["red", "green", "INVALID_ARGUMENT"]
    assert "ask for fewer at a time" in pb.ClassifyReply.FromString(result.response).region_replies[2].message


@pytest.mark.parametrize(
    ("request_fields", "text"),
    [
        ({"regions": [band(0)] * 65}, "regions: there are 65; the limit is 64 a request"),
        ({"regions": [band(0)], "region": band(0)}, "region and regions: a request has one of them"),
        ({"regions": [band(0), pb.PictureRegion(x=2)]}, "regions[1].x 2 is not in [0, 1)"),
        ({"region": pb.PictureRegion(width=float("nan"), height=1)}, "region.width nan is not above 0"),
    ],
)
async def test_requests_that_make_no_sense_cost_no_fetch(
    store: CountingStore, batch: PictureBatch, request_fields: dict[str, Any], text: str
) -> None:
    batch.add(item(0, store.put(bands()), **request_fields))
    (result,) = (await results(batch)).values()
    assert result.code == Code.INVALID_ARGUMENT
    assert text in result.message
    assert store.asked == []


@pytest.fixture
def caching(model: PictureModel) -> PictureModel:
    """The model, with a result cache."""
    cache = ResultCache(seconds=60, max_bytes=10**6, meter=ResultCacheMeter(model.name))
    return replace(model, cache=cache)


async def ask(model: PictureModel, *items: batching_pb2.BatchItem) -> dict[int, pb.ClassifyReply]:
    """The answers of a batch, by index."""
    batch = PictureBatch(model)
    try:
        batch.add(*items)
        return {index: pb.ClassifyReply.FromString(each.response) for index, each in (await results(batch)).items()}
    finally:
        batch.abandon()


def seen(reply: pb.ClassifyReply) -> list[tuple[str, bool]]:
    """Of each region what it shows, or its code, and whether that was known."""
    told = [(each.reply.classes[0].label if not each.code else Code(each.code).name) for each in reply.region_replies]
    return [(what, each.reply.timing.cached) for what, each in zip(told, reply.region_replies, strict=True)]


def some(*numbers: int) -> list[pb.PictureRegion]:
    return [band(number) for number in numbers]


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
async def test_each_region_has_an_answer_of_its_own_that_is_given_again(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel, form: str
) -> None:
    """Asked alone or with others, and under another uuid."""
    known, again = store.put(bands(form)), store.put(bands(form))
    first = await ask(caching, item(0, known, some(0, 3)), item(1, known, region=band(1)))
    assert not first[0].timing.cached
    rows = WORKER.get_sample_value("shoal_worker_tensor_bytes_total", {"model": "colour"}) or 0.0
    reply = (await ask(caching, item(0, again, some(0, 2, 1, 4, 3))))[0]
    assert seen(reply) == [("red", True), ("blue", False), ("green", True), ("green", False), ("red", True)]
    assert engine.sizes == [3, 2]
    made = WORKER.get_sample_value("shoal_worker_tensor_bytes_total", {"model": "colour"}) or 0.0
    assert made - rows == 2 * caching.row_bytes  # nothing is cut for what is known
    assert not reply.timing.cached
    assert reply.timing.batch_size == 2
    assert {each.reply.image_uuid for each in reply.region_replies} == {reply.image_uuid} == {again}
    assert [round(each.reply.region.x * 160) for each in reply.region_replies] == [2, 22, 12, 42, 32]
    alone = (await ask(caching, item(0, again, region=band(4))))[0]
    assert (alone.classes[0].label, alone.timing.cached) == ("green", True)
    assert engine.sizes == [3, 2]
    assert caching.fetcher.held_bytes == 0


async def test_a_request_whose_regions_are_all_known_takes_no_slot_and_waits_for_nobody(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    name = store.put(bands())
    await ask(caching, item(0, name, some(*range(16))))
    slots, early = len(engine.priorities), asyncio.Queue[Any]()
    batch = PictureBatch(caching)
    batch.tell_early(early.put_nowait)
    batch.add(item(1, name, some(*range(16))))
    (result,) = await early.get()  # the batch is open
    reply = pb.ClassifyReply.FromString(result.response)
    assert [what for what, _ in seen(reply)] == expected(16)
    assert reply.timing.cached
    assert batch.executed == 0
    assert (reply.timing.batch_size, reply.timing.compute_us, reply.timing.decode_us) == (0, 0, 0)
    assert [list(group) async for group in batch.finish()] == [[]]
    batch.abandon()
    assert len(engine.priorities) == slots
    assert caching.fetcher.held_bytes == 0


@pytest.mark.parametrize(
    ("known", "sizes"), [(range(12), [4]), (range(4, 16), [4]), (range(0, 16, 2), [6, 2]), (range(2), [6, 6, 2])]
)
async def test_only_regions_that_are_not_known_take_rows(
    caching: PictureModel,
    store: CountingStore,
    engine: ScriptedModel,
    known: Sequence[int],
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_module, "OTHERS_SECONDS", 30.0)
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 30.0)
    name = store.put(bands())
    for number in known:
        await ask(caching, item(0, name, region=band(number)))
    before = len(engine.sizes)
    assert isinstance(caching.decoder, CountingDecoder)
    reply = (await ask(caching, item(0, name, some(*range(16)))))[0]
    assert seen(reply) == [(what, number in known) for number, what in enumerate(expected(16))]
    assert engine.sizes[before:] == sizes
    assert len(engine.sizes) == before + len(sizes)
    assert engine.in_use == 0


async def test_regions_of_a_request_that_fail_are_asked_for_again_and_the_others_known(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    infer = engine.infer
    name = store.put(bands())
    await ask(caching, item(0, name, some(0)))
    refuse_green(engine)
    reply = (await ask(caching, item(0, name, some(0, 1, 2))))[0]
    assert seen(reply) == [("red", True), ("INTERNAL", False), ("blue", False)]
    assert not reply.timing.cached
    reply = (await ask(caching, item(0, name, some(0, 1, 2))))[0]
    assert seen(reply) == [("red", True), ("INTERNAL", False), ("blue", True)]
    assert not reply.timing.cached
    engine.infer = infer  # type: ignore[method-assign]
    reply = (await ask(caching, item(0, name, some(0, 1, 2))))[0]
    assert seen(reply) == [("red", True), ("green", False), ("blue", True)]


async def test_equal_regions_of_a_request_leave_one_answer(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    """As equal pictures, those that are on their way at once are both computed."""
    name = store.put(bands())
    first = (await ask(caching, item(0, name, some(1, 1, 2))))[0]
    assert seen(first) == [("green", False), ("green", False), ("blue", False)]
    assert caching.cache is not None
    assert len(caching.cache) == 2
    second = (await ask(caching, item(0, name, some(1, 1, 2))))[0]
    assert seen(second) == [("green", True), ("green", True), ("blue", True)]
    assert engine.sizes == [3]


async def test_another_owner_gets_no_region_of_mine(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    mine, yours = store.put(bands()), store.put(bands(), owner="you")
    await ask(caching, item(0, mine, some(0, 1)))
    reply = (await ask(caching, item(0, yours, some(0, 1), owner="you")))[0]
    assert seen(reply) == [("red", False), ("green", False)]
    assert engine.sizes == [2, 2]


async def test_regions_that_another_version_answered_midway_are_not_kept(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    infer, versions = engine.infer, iter([3, 4, 3])

    async def of_version(*asked: Any) -> Any:
        return replace(await infer(*asked), version=next(versions))

    engine.infer = of_version  # type: ignore[method-assign]
    name = store.put(bands())
    reply = (await ask(caching, item(0, name, some(*range(8)))))[0]
    assert [each.reply.model_version for each in reply.region_replies] == [3] * 6 + [4] * 2
    reply = (await ask(caching, item(0, name, some(*range(8)))))[0]
    assert seen(reply) == [(what, number < 6) for number, what in enumerate(expected(8))]
    assert [each.reply.model_version for each in reply.region_replies] == [3] * 8


async def test_regions_whose_picture_hangs_are_looked_up_once_it_is_there(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = store.put(bands())
    await ask(caching, item(0, name, some(0, 1)))
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    store.gate.clear()
    batch = PictureBatch(caching)
    batch.add(item(0, name, some(*range(10))), item(1, name, some(0, 1)))
    groups = batch.finish()
    assert await anext(groups) == []
    monkeypatch.undo()
    store.gate.set()
    answered = {result.index: result async for group in groups for result in group}
    assert labels(answered[0]) == expected(10)
    assert labels(answered[1]) == expected(2)
    assert engine.sizes == [2, 6, 2]
    assert engine.in_use == 0
    batch.abandon()
    assert caching.fetcher.held_bytes == 0


async def test_regions_that_find_no_row_when_they_were_looked_up_late_run_nevertheless(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "STRAGGLER_SECONDS", 0.001)
    name, hangs = store.put(bands()), store.put(bands())
    batch = PictureBatch(caching)
    batch.add(item(0, name, some(*range(8))))
    await until(lambda: not batch._preparing)
    store.gate.clear()
    batch.add(item(1, hangs, some(9, 10)))
    groups = batch.finish()
    assert await anext(groups) == []
    following = asyncio.ensure_future(anext(groups))
    await until(lambda: batch._one_prepared is not None)
    store.gate.set()
    answered = {result.index: result for result in await following} | {
        result.index: result async for group in groups for result in group
    }
    assert labels(answered[0]) == expected(8)
    assert labels(answered[1]) == ["red", "green"]
    assert engine.sizes == [6, 4]
    batch.abandon()
    assert caching.fetcher.held_bytes == 0


def remembered(model: PictureModel, image_uuid: str) -> WorkerVisit:
    return explain(model.admission.recent, image_uuid).worker[0]


async def test_what_became_of_each_region_is_remembered(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    refuse_green(engine)
    name = store.put(bands())
    await ask(caching, item(0, name, region=band(3)))
    assert remembered(caching, name).region == RegionView(**band_fields(3))
    assert remembered(caching, name).regions == ()
    await ask(caching, item(0, name, some(3, 4, 0, 2, 5, 6, 8, 9)))
    visit = remembered(caching, name)
    told = [(way.region.x if way.region else 0, way.result_cache, way.code, way.put_off) for way in visit.regions]
    assert told == [
        (pytest.approx((number + 0.2) / BANDS), *way)
        for number, *way in (
            (3, "hit", "OK", False),
            (4, "miss", "INTERNAL", False),
            (0, "miss", "OK", False),
            (2, "miss", "OK", False),
            (5, "miss", "OK", False),
            (6, "miss", "OK", False),
            (8, "miss", "OK", False),
            (9, "miss", "OK", True),
        )
    ]
    assert (visit.code, visit.message, visit.region) == ("OK", "", None)
    assert visit.total_seconds == max(way.total_seconds for way in visit.regions)
    for way in visit.regions:
        assert sum(way.stage_seconds.values()) == pytest.approx(way.total_seconds)


async def test_a_traced_request_tells_of_all_its_regions(
    model: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    kept = KeptSpans()
    traced = replace(model, admission=replace(model.admission, tracing=kept.tracing))
    name, batch = store.put(bands()), PictureBatch(traced)
    asked = [item(0, name, some(*range(8))), item(1, name, some(0)), item(2, str(uuid.uuid4()), some(0, 1))]
    for one in asked:
        one.traceparent = SAMPLED
    batch.add(*asked)
    assert labels((await results(batch))[0]) == expected(8)
    batch.abandon()
    assert engine.sizes == [6, 3]
    many, one, missing = sorted(kept.named("worker"), key=lambda span: -len(children(kept, span)))
    assert children(kept, many) == {
        "fetch": [8],
        "decode": [6, 2],
        "engine": [6, 2],
    }
    assert children(kept, one) == {"fetch": [None], "decode": [None], "engine": [None]}
    assert children(kept, missing) == {}
    assert missing.status.description is not None
    assert missing.status.description.startswith("NOT_FOUND: ")
    batches = kept.named("batch")
    assert [(batch.attributes or {})["shoal.batch.size"] for batch in batches] == [6, 3]
    leading = [{link.context.span_id for link in batch.links} for batch in batches]
    assert many.context is not None
    assert one.context is not None
    assert leading == [{many.context.span_id}, {many.context.span_id, one.context.span_id}]


def children(kept: KeptSpans, above: ReadableSpan) -> dict[str, list[Any]]:
    """The spans below one, by name: how many regions each was for."""
    found: dict[str, list[Any]] = {}
    for span in kept.all:
        if span.parent is not None and above.context is not None and span.parent.span_id == above.context.span_id:
            found.setdefault(span.name, []).append((span.attributes or {}).get("shoal.regions"))
    return found


async def test_a_request_whose_stream_breaks_while_its_regions_run_is_told_of(
    model: PictureModel, store: CountingStore, engine: ScriptedModel
) -> None:
    kept = KeptSpans()
    batch = PictureBatch(replace(model, admission=replace(model.admission, tracing=kept.tracing)))
    engine.go.clear()
    asked = item(0, store.put(bands()), some(*range(8)))
    asked.traceparent = SAMPLED
    batch.add(asked)
    running = asyncio.ensure_future(results(batch))
    await engine.asked.wait()
    running.cancel()
    await asyncio.wait([running])
    batch.abandon()
    (whole,) = kept.named("worker")
    assert whole.status.description == "CANCELLED: the batch's stream ended"
    assert children(kept, whole) == {"fetch": [6], "decode": [6]}  # the others waited for a row


def band_fields(number: int) -> dict[str, Any]:
    region = band(number)
    return {name: getattr(region, name) for name in ("x", "y", "width", "height", "padding", "square")}


async def test_a_request_whose_regions_wait_has_no_code_yet_and_one_whose_regions_all_fail_has_theirs(
    model: PictureModel, store: CountingStore, engine: ScriptedModel, batch: PictureBatch
) -> None:
    name, missing = store.put(bands()), str(uuid.uuid4())
    engine.go.clear()
    batch.add(item(0, missing, some(0, 1)), item(1, name, some(0, 1)))
    running = asyncio.ensure_future(results(batch))
    await engine.asked.wait()
    assert [way.code for way in remembered(model, name).regions] == ["", ""]
    assert remembered(model, name).code == ""
    assert [way.code for way in remembered(model, missing).regions] == ["NOT_FOUND"] * 2
    assert remembered(model, missing).code == "NOT_FOUND"
    assert remembered(model, missing).message
    engine.go.set()
    await running


async def test_regions_that_are_remembered_count_in_what_is_kept(model: PictureModel, store: CountingStore) -> None:
    recent: Recent[Stages] = Recent(100, max_bytes=64 * REGION_BYTES)
    admission = replace(model.admission, recent=recent)
    many, few = item(0, store.put(bands()), some(*[0] * 64)), item(1, store.put(bands()), some(0, 1))
    admitted = list(admission.admit([many, few], 0.0))
    assert [len(stages.others) for stages in recent.newest_first()] == [1, 63]
    admitted += admission.admit([few], 0.0)
    assert [len(stages.others) for stages in recent.newest_first()] == [1, 1]


def test_a_region_that_is_remembered_takes_no_more_than_it_says(model: PictureModel, store: CountingStore) -> None:
    many, held = item(0, store.put(bands()), 4 * some(*range(16))), []
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(20):
            ((_, pictures),) = model.admission.admit([many], monotonic())
            assert isinstance(pictures, list)
            for picture in pictures:
                stages = picture.stages
                stages.fetched, stages.looked_up, stages.decoding, stages.decoded, stages.closed, stages.asked = (
                    monotonic() for _ in range(6)
                )
                stages.started, stages.computed, stages.ended, stages.left = (monotonic() for _ in range(4))
            held.append(pictures[0].stages.others)
            del pictures, picture
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.5 < taken / (20 * 64 * REGION_BYTES) < 1


@pytest.mark.parametrize("leaves", [True, False])
async def test_regions_whose_caller_leaves_or_whose_batch_ends_while_they_are_looked_up_are_let_go(
    caching: PictureModel, store: CountingStore, engine: ScriptedModel, leaves: bool
) -> None:
    async with occupied(caching.decoding.threads, 2):
        batch = PictureBatch(caching)
        batch.add(item(0, store.put(bands()), some(*range(9))))
        await until(lambda: all(picture.at is LOOKUP for picture in batch._preparing))
        if leaves:
            batch.withdraw(0)
            assert [result.code for result in (await results(batch)).values()] == [Code.CANCELLED]
        batch.abandon()
        await until(lambda: not batch._preparing)
    assert engine.sizes == []
    assert caching.fetcher.held_bytes == 0


async def test_a_batch_that_is_through_leaves_nothing_to_the_garbage_collector(
    model: PictureModel, store: CountingStore
) -> None:
    """Else it and its pictures stay until 20,000 objects have come together, which then cost 15 ms at once."""
    gc.collect()
    gc.disable()
    try:
        batch = PictureBatch(model)
        batch.add(item(0, store.put(bands("JPEG")), some(*range(4))), item(1, store.put(bands("JPEG"))))
        assert [result.code for result in (await results(batch)).values()] == [Code.OK, Code.OK]
        batch.abandon()
        del batch
        await until(lambda: not any(type(each) in {PictureBatch, Picture} for each in gc.get_objects()))
    finally:
        gc.enable()
