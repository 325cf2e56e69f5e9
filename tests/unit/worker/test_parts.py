from __future__ import annotations

import asyncio
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pytest
from obstore.store import MemoryStore
from PIL import Image

from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, Internal
from shoal.explain.recent import Recent
from shoal.observe.metrics import WORKER
from shoal.pictures.decode import Decoder
from shoal.runtime.threads import Threads
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.v1 import inference_pb2 as pb
from shoal.worker import batch as batch_module
from shoal.worker import parts as parts_module
from shoal.worker.access import Access
from shoal.worker.admission import Admission
from shoal.worker.batch import PictureBatch
from shoal.worker.decoding import Decoding
from shoal.worker.fetch_picture import Fetcher
from shoal.worker.heads.head import make_head
from shoal.worker.meter import Meter
from shoal.worker.picture_cache import PictureCache
from shoal.worker.picture_model import PictureModel
from support.pictures import encode
from support.scripted_engine import ScriptedModel
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from obstore import GetResult

    from shoal.engine import Inference

SECRET = "s" * 24
KEY = Key(id="k", key=SECRET, owner="me")
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

    def put(self, picture: bytes) -> str:
        name = str(uuid.uuid4())
        obstore.put(self.objects, f"me/{name}.jpg", picture)
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
        access = Access(KeyRing([KEY]))
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


def item(index: int, image_uuid: str, regions: Sequence[pb.PictureRegion] = (), **more: Any) -> batching_pb2.BatchItem:
    request = pb.ImageRequest(
        api_key=SECRET, image_uuid=image_uuid, model_name="colour", top_k=1, regions=regions, **more
    )
    return batching_pb2.BatchItem(index=index, request=request.SerializeToString(), owner="k", queued_us=7)


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
    ours = Identity.of(KEY)
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


async def test_a_region_that_the_engine_refuses_fails_alone(
    store: CountingStore, engine: ScriptedModel, batch: PictureBatch
) -> None:
    infer = engine.infer

    async def refuse_green(slot: Any, size: int, timeout_microseconds: int = 0) -> Inference:
        if (slot.input[:size, :, :, 1] > 200).any():
            raise Internal("poisoned")
        return await infer(slot, size, timeout_microseconds)

    engine.infer = refuse_green  # type: ignore[method-assign]
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
