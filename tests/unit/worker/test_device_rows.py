"""Batches of a model that decodes JPEGs itself: what goes to it as it came, and what becomes of what it gives back."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from test_worker_batch import SECRET, FakeFetcher, FakePool, item, label, results
from tritonclient.grpc import service_pb2 as v2

from shoal.batching.v1 import batching_pb2
from shoal.engine import BrokenOff, Inference
from shoal.engine.triton import encoded_rows
from shoal.engine.triton.encoded_slot import EncodedSlot
from shoal.errors import Code, Internal, InvalidRequest
from shoal.explain.recent import Recent
from shoal.modelconfig.model import Resize
from shoal.observe.metrics import WORKER
from shoal.pictures.decode import Decoder
from shoal.runtime.priority import Priority
from shoal.runtime.threads import Threads
from shoal.service.api_keys import Key, KeyRing
from shoal.service.spec import Pool
from shoal.v1 import inference_pb2
from shoal.worker.access import Access
from shoal.worker.admission import Admission
from shoal.worker.batch import PictureBatch
from shoal.worker.decode_choice import REFUSED_SECONDS, DecodeChoice
from shoal.worker.decoding import Decoding
from shoal.worker.device_rows import decodes_itself
from shoal.worker.heads.head import make_head
from shoal.worker.meter import Meter
from shoal.worker.picture import Picture
from shoal.worker.picture_model import PictureModel
from shoal.worker.stages import Stages, explain
from support import decoding_rows
from support.pictures import encode, quadrants
from support.scripted_engine import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.service.spec import Decode

DECODES = replace(CONFIG, encoded=True, resize=Resize.LETTERBOX)
RED, GREEN, BLUE = (encode(Image.new("RGB", (40, 40), colour)) for colour in ("red", "lime", "blue"))
PROGRESSIVE = encode(Image.new("RGB", (40, 40), "lime"), progressive=True)
PNG = encode(Image.new("RGB", (40, 40), "blue"), "PNG")
REFUSED = encode(Image.new("RGB", (40, 40), "blue"), comment=decoding_rows.REFUSED)
JPEG, PIXELS = encoded_rows.JPEG, encoded_rows.PIXELS


@dataclass(eq=False)
class DecodingModel:
    """Takes rows as a runner does, and says which channel is brightest."""

    config: Any = DECODES
    batches: list[list[int]] = field(default_factory=list)
    """The kinds of the rows of each."""
    pictures: list[np.ndarray] = field(default_factory=list)
    """As the model saw them, a batch each."""
    poison: Callable[[np.ndarray], bool] = lambda pictures: False
    breaks: int = 0
    fails_on_files: bool = False
    """So many more batches with JPEGs end it."""
    status: int | None = None
    """Of all rows, whatever they are."""
    jpegs: int | None = None
    """The status of JPEGs."""
    in_use: int = 0
    trouble: str = ""

    async def acquire(self, priority: Priority = Priority.INTERACTIVE) -> EncodedSlot:
        self.in_use += 1
        return EncodedSlot(self.config, SimpleNamespace(region=lambda size, reserved: None))  # type: ignore[arg-type]

    def release(self, slot: EncodedSlot) -> None:
        self.in_use -= 1

    async def infer(self, slot: EncodedSlot, size: int, timeout_microseconds: int = 0) -> Inference:
        request = v2.ModelInferRequest()
        slot.ask_for(request, size)
        content = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(request.inputs[0].shape)
        self.batches.append(encoded_rows.table(content, size)["kind"].tolist())
        pictures, statuses = decoding_rows.decode(content, self.config.input.shape, "uint8")
        self.pictures.append(pictures)
        if self.breaks and slot.has_files(size):
            self.breaks -= 1
            raise BrokenOff("gone")
        if self.fails_on_files and slot.has_files(size):
            raise Internal("no memory left")
        if self.poison(pictures):
            raise Internal("poisoned")
        if self.jpegs is not None:
            statuses[np.array(self.batches[-1]) == JPEG] = self.jpegs
        logits = pictures.astype(np.float32).mean(axis=(1, 2)) / 16
        logits[statuses != 0] = np.nan
        reports = np.array([[status, 50, 2000, 3000] for status in statuses], np.int32)
        if self.status is not None:
            reports[:, 0] = self.status
        return Inference({"logits": logits}, 0.01, reports=reports)

    async def close(self) -> None: ...


@pytest.fixture
def engine() -> DecodingModel:
    return DecodingModel()


def put_together(engine: DecodingModel, threads: Threads, decode: Decode = "gpu", **decoder: Any) -> PictureModel:
    head = make_head(engine.config)
    access = Access(KeyRing([Key(id="k", key=SECRET, owner="me")]))
    return PictureModel(
        loaded=engine,
        admission=Admission(engine.config, head, access, Recent(100)),
        decoder=Decoder(engine.config, **{"max_pixels": 10**6, "max_scans": 10} | decoder),
        head=head,
        fetcher=FakeFetcher(),  # type: ignore[arg-type]
        decoding=Decoding(threads, FakePool()),  # type: ignore[arg-type]
        meter=Meter("colour"),
        choice=DecodeChoice(decode, 1),
    )


@pytest.fixture
def threads() -> Iterator[Threads]:
    with closing(Threads(1, "decode")) as made:
        yield made


@pytest.fixture
def model(engine: DecodingModel, threads: Threads) -> PictureModel:
    return put_together(engine, threads)


async def run(model: PictureModel, *pictures: bytes | Exception | asyncio.Event) -> dict[int, Any]:
    batch = PictureBatch(model)
    for index, picture in enumerate(pictures):
        batch.add(item(index, model.fetcher.put(picture)))  # type: ignore[attr-defined]
    answered = await results(batch)
    batch.abandon()
    assert model.loaded.in_use == 0
    return answered


def labels(answered: dict[int, Any]) -> list[str]:
    return [label(answered[index]) for index in sorted(answered)]


def decodes(way: str) -> float:
    return WORKER.get_sample_value("shoal_worker_decodes_total", {"model": "colour", "way": way}) or 0.0


async def test_jpegs_go_as_they_came_and_the_others_as_pixels_beside_them(
    model: PictureModel, engine: DecodingModel
) -> None:
    before = decodes("device"), decodes("cpu")
    answered = await run(model, RED, PROGRESSIVE, BLUE, PNG)
    assert labels(answered) == ["red", "green", "blue", "blue"]
    assert engine.batches == [[JPEG, PIXELS, JPEG, PIXELS]]
    assert (decodes("device") - before[0], decodes("cpu") - before[1]) == (2, 2)
    assert model.fetcher.budget.used == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", list(Resize))
async def test_the_model_sees_what_the_worker_would_have_decoded(
    engine: DecodingModel, threads: Threads, orientation: int, resize: Resize
) -> None:
    engine.config = replace(DECODES, resize=resize, resize_shorter_side=9 if resize is Resize.CROP else 0)
    picture = encode(quadrants(30, 22), orientation=orientation, quality=95)
    for decode in ("gpu", "cpu"):
        await run(put_together(engine, threads, decode), picture)
    assert engine.batches == [[JPEG], [PIXELS]]
    there, here = engine.pictures
    assert np.abs(there.astype(int) - here.astype(int)).max() <= 2


async def test_what_the_device_gives_back_is_decoded_here_and_runs_later(
    model: PictureModel, engine: DecodingModel
) -> None:
    answered = await run(model, RED, REFUSED, GREEN, REFUSED)
    assert labels(answered) == ["red", "blue", "green", "blue"]
    assert engine.batches[0] == [JPEG] * 4
    assert list(chain(*engine.batches[1:])) == [PIXELS] * 2  # together, if they were decoded at the same time
    sizes = [inference_pb2.ClassifyReply.FromString(answered[index].response).timing.batch_size for index in range(4)]
    assert sizes[::2] == [4, 4]
    assert set(sizes[1::2]) <= {1, 2}


async def test_what_a_device_fails_on_is_decoded_here(model: PictureModel, engine: DecodingModel) -> None:
    engine.fails_on_files = True
    assert labels(await run(model, RED, BLUE)) == ["red", "blue"]
    assert engine.batches[0] == [JPEG] * 2
    assert [PIXELS] in engine.batches[1:] or [PIXELS] * 2 in engine.batches[1:]


async def test_a_batch_that_is_given_back_as_a_whole(model: PictureModel, engine: DecodingModel) -> None:
    assert labels(await run(model, REFUSED, REFUSED)) == ["blue", "blue"]
    assert engine.batches[0] == [JPEG] * 2
    assert list(chain(*engine.batches[1:])) == [PIXELS] * 2


@pytest.mark.parametrize("decode", ["gpu", "auto"])
async def test_a_device_that_decodes_nothing_now_is_left_alone_for_a_while(
    engine: DecodingModel, threads: Threads, monkeypatch: pytest.MonkeyPatch, decode: Decode
) -> None:
    now = 0.0
    monkeypatch.setattr("shoal.worker.device_rows.monotonic", lambda: now)
    model = put_together(engine, threads, decode)
    engine.jpegs = encoded_rows.NOT_NOW
    assert labels(await run(model, RED, GREEN)) == ["red", "green"]
    assert engine.batches[0] == [JPEG] * 2
    engine.jpegs = None
    engine.batches.clear()
    assert labels(await run(model, RED, GREEN)) == ["red", "green"]
    assert set(chain(*engine.batches)) == {PIXELS}
    now += REFUSED_SECONDS
    engine.batches.clear()
    assert labels(await run(model, RED, GREEN)) == ["red", "green"]
    assert engine.batches == [[JPEG] * 2]


async def test_broken_pictures_fail_alone(model: PictureModel, engine: DecodingModel) -> None:
    answered = await run(model, RED[:-200], RED, b"text", REFUSED[:200] + REFUSED[-20:], GREEN)
    assert (label(answered[1]), label(answered[4])) == ("red", "green")
    assert [answered[index].code for index in (0, 2, 3)] == [Code.INVALID_ARGUMENT] * 3
    assert engine.batches[0].count(JPEG) >= 2


async def test_too_large_a_picture_is_refused_whichever_way(engine: DecodingModel, threads: Threads) -> None:
    answered = await run(put_together(engine, threads, max_pixels=1599), RED, RED)
    assert [answered[index].code for index in range(2)] == [Code.INVALID_ARGUMENT] * 2
    assert "the limit is 1,599 in all" in answered[0].message
    assert not engine.batches


async def test_with_strict_nothing_goes_there(engine: DecodingModel, threads: Threads) -> None:
    await run(put_together(engine, threads, jpeg_strictness="strict"), RED, BLUE)
    assert engine.batches == [[PIXELS, PIXELS]]


async def test_a_jpeg_that_has_no_room_goes_as_pixels(engine: DecodingModel, threads: Threads) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), np.uint8)
    large = encode(Image.fromarray(noise), quality=100)
    assert len(large) > 1.5e6
    answered = await run(put_together(engine, threads), large, RED)
    assert [answered[index].code for index in range(2)] == [Code.OK] * 2
    assert engine.batches == [[PIXELS, JPEG]]


async def test_a_straggler_is_decoded_here(model: PictureModel, engine: DecodingModel) -> None:
    late = asyncio.Event()
    batch = PictureBatch(model)
    for index, picture in enumerate((late, GREEN)):
        batch.add(item(index, model.fetcher.put(picture)))  # type: ignore[attr-defined, arg-type]
    groups = batch.finish()
    (first,) = await anext(groups)
    assert label(first) == "green"
    late.set()  # a red one
    rest = [result async for group in groups for result in group]
    assert [label(result) for result in rest] == ["red"]
    assert engine.batches == [[JPEG], [PIXELS]]


async def test_a_batch_that_fails_runs_row_by_row(model: PictureModel, engine: DecodingModel) -> None:
    engine.poison = lambda pictures: bool((pictures.mean(axis=(1, 2)).argmax(axis=1) == 1).any())
    answered = await run(model, RED, GREEN, PROGRESSIVE, BLUE, REFUSED)
    assert {index: answered[index].code for index in answered if answered[index].code} == {
        1: Code.INTERNAL,
        2: Code.INTERNAL,
    }
    assert [label(answered[index]) for index in (0, 3, 4)] == ["red", "blue", "blue"]
    assert engine.batches[:6] == [[1, 1, 0, 1, 1], [1], [1], [0], [1], [1]]
    assert set(chain(*engine.batches[6:])) == {PIXELS}, "what failed as a file, and what was given back, once more"


async def test_what_ended_the_engine_is_decoded_here(model: PictureModel, engine: DecodingModel) -> None:
    """One of the files may be why, so none of them goes there again."""
    engine.breaks = 1
    answered = await run(model, RED, PROGRESSIVE, REFUSED, RED[:-300], PNG)
    assert [label(answered[index]) for index in (0, 1, 2, 4)] == ["red", "green", "blue", "blue"]
    assert answered[3].code == Code.INVALID_ARGUMENT
    assert JPEG in engine.batches[0]
    assert sorted(row for batch in engine.batches[1:] for row in batch) == [PIXELS] * 4
    assert model.choice is not None
    assert (model.choice._on_device, model.choice._cpu_seconds) == (0, 0)


async def test_a_runner_that_gives_pixels_back_is_at_fault(engine: DecodingModel, threads: Threads) -> None:
    engine.status = 1
    answered = await run(put_together(engine, threads), PROGRESSIVE)
    assert answered[0].code == Code.INTERNAL


async def test_times_are_those_that_the_runner_tells(model: PictureModel) -> None:
    answered = await run(model, RED, PROGRESSIVE)
    there, here = (inference_pb2.ClassifyReply.FromString(answered[index].response).timing for index in range(2))
    assert (there.decode_us, there.compute_us, here.compute_us) == (2000, 3000, 3000)
    assert here.decode_us != 2000


def test_what_an_execution_takes_beside_decoding_and_computing_is_a_wait() -> None:
    stages = Stages("u", "k", "m", 1, Priority.INTERACTIVE, (0, 0), arrived=1.0, size=3)
    item = batching_pb2.BatchItem(queued_us=7)
    picture = Picture(item, "me", 1.0, 9.0, inference_pb2.ImageRequest(), "key", Priority.INTERACTIVE, stages)
    picture.fetch_seconds, picture.decode_seconds = 0.25, 0.125
    timing = inference_pb2.Timing()
    picture.tell_times(timing, 1.5, 1_000_000, None)  # decoded here, by an engine that tells nothing
    assert (timing.queue_us, timing.fetch_us, timing.decode_us, timing.compute_us) == (125_007, 250_000, 125_000, 10**6)
    picture.tell_times(timing, 1.5, 1_000_000, 500_000)  # 0.625 s before and in it, whoever decoded
    assert (timing.queue_us, timing.decode_us, timing.compute_us) == (625_007, 125_000, 500_000)
    assert timing.batch_size == 3


async def test_explain_tells_the_way(model: PictureModel) -> None:
    recent = model.admission.recent
    pictures = RED, PROGRESSIVE, REFUSED, b"text"
    await run(model, *pictures)
    names = [key.removeprefix("me/").removesuffix(".jpg") for key in model.fetcher.pictures]  # type: ignore[attr-defined]
    told = [explain(recent, name).worker[0] for name in names]
    assert [visit.decoded_by for visit in told] == ["device", "cpu", "cpu", ""]
    assert [visit.device_refused for visit in told] == [False, False, True, False]


async def test_what_was_counted_is_let_go_of_whatever_comes(model: PictureModel, engine: DecodingModel) -> None:
    choice = model.choice
    assert choice is not None
    for pictures in ([RED, PROGRESSIVE], [REFUSED], [RED[:-300]], [InvalidRequest("gone")], [RED, REFUSED, PNG]):
        await run(model, *pictures)
    engine.poison = lambda pictures: True
    await run(model, RED, GREEN)
    batch = PictureBatch(model)
    batch.add(item(0, model.fetcher.put(RED)))  # type: ignore[attr-defined]
    await asyncio.sleep(0.02)
    batch.abandon()
    assert (choice._on_device, choice._cpu_seconds) == (0, 0)


async def test_cores_take_a_share_until_the_device_is_known(engine: DecodingModel, threads: Threads) -> None:
    model = put_together(engine, threads, "auto")
    assert labels(await run(model, *[RED] * 6)) == ["red"] * 6
    assert sorted(engine.batches[0]) == [PIXELS] * 2 + [JPEG] * 4
    assert model.choice is not None
    assert model.choice.knows_device
    assert (model.choice._on_device, model.choice._cpu_seconds) == (0, 0)


def test_a_pool_that_asks_for_what_a_model_can_not_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    triton = Pool(engine="triton")
    assert decodes_itself(DECODES, triton)
    assert not decodes_itself(CONFIG, triton)
    assert not decodes_itself(DECODES, triton.model_copy(update={"decode": "cpu"}))
    assert not decodes_itself(DECODES, Pool())
    assert not caplog.text
    assert not decodes_itself(CONFIG, triton.model_copy(update={"decode": "gpu"}))
    assert "model colour: its pictures are decoded in the worker: the model takes no encoded_rows" in caplog.text
    assert not decodes_itself(DECODES, triton.model_copy(update={"jpeg_strictness": "strict"}))
    assert "doesn't notice what jpeg_strictness: strict forbids" in caplog.text
