from __future__ import annotations

import asyncio
import io
import os
import resource
import select
import signal
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hostile_pictures import png, png_chunks, raw_png
from PIL import Image

from shoal.errors import InvalidRequest, Unavailable
from shoal.pictures.decode import Decoder
from shoal.worker.decoders import decoder_pool, decoder_process, decoder_starter
from shoal.worker.decoders.decoder_pool import DecoderPool, Limits
from support.harmful_decoder import HarmfulDecoder
from support.pictures import config, encode, quadrants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMITS = Limits(cpu_seconds=1.5, memory_bytes=256 * 2**20)
PNG = encode(quadrants(), "PNG")


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders find the harmful one."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture
def harmful() -> HarmfulDecoder:
    return HarmfulDecoder(config(), max_pixels=10**8, max_scans=64)


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    made = DecoderPool(2, LIMITS)
    made.start()
    yield made
    await made.close()


async def decoded(pool: DecoderPool, decoder: Decoder, data: bytes, owner: str = "me") -> np.ndarray:
    rows, _ = await pool.decode(owner, decoder, data)
    return rows[0]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
async def test_the_pixels_are_those_of_decoding_here(pool: DecoderPool, form: str, dtype: str) -> None:
    settings = config(40, 56)
    settings = replace(settings, input=replace(settings.input, dtype=dtype), labels=("x",) * 10_000)
    decoder = Decoder(settings, max_pixels=10**8, max_scans=64)
    data = encode(quadrants(300, 200), form, orientation=6)
    here = np.zeros(settings.input.shape, dtype)
    decoder.decode(data, here)
    np.testing.assert_array_equal(await decoded(pool, decoder, data), here)


async def test_a_large_file_is_handed_over_too(pool: DecoderPool) -> None:
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    small = encode(quadrants(), "PNG")
    np.testing.assert_array_equal(
        await decoded(pool, decoder, small + bytes(3 * 2**20)), await decoded(pool, decoder, small)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", "its decoder crashed \\(SIGSEGV\\)"),
        ("abort", "its decoder crashed \\(SIGABRT\\)"),
        ("outgrow", "its decoder crashed \\(SIGXFSZ\\)"),
        ("spin", "more than 0.2 s of CPU time"),
        ("fill", "more than 268,435,456 bytes of memory"),
    ],
)
async def test_what_a_picture_does_harms_it_alone(
    harmful: HarmfulDecoder, capfd: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    pool = DecoderPool(1, replace(LIMITS, cpu_seconds=0.2))
    pool.start()
    try:
        with pytest.raises(InvalidRequest, match=message):
            await pool.decode("me", harmful, name.encode())
        decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
        await pool.decode("you", decoder, PNG)
    finally:
        await pool.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["fault", "exit"])
async def test_a_fault_of_ours_is_not_the_callers(pool: DecoderPool, harmful: HarmfulDecoder, name: str) -> None:
    with pytest.raises(decoder_pool.Internal):
        await pool.decode("me", harmful, name.encode())


async def test_a_decoder_that_stands_still_is_killed(harmful: HarmfulDecoder) -> None:
    pool = DecoderPool(1, replace(LIMITS, wall_seconds=1))
    pool.start()
    try:
        with pytest.raises(Unavailable, match="no CPU time"):
            await pool.decode("me", harmful, b"stop")
    finally:
        await pool.close()


async def test_a_picture_writes_to_no_log_and_sees_no_secret(
    harmful: HarmfulDecoder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    pool = DecoderPool(1, LIMITS)
    pool.start()
    try:
        with pytest.raises(InvalidRequest, match="written"):
            await pool.decode("me", harmful, b"write")
        with pytest.raises(InvalidRequest) as caught:
            await pool.decode("me", harmful, b"look")
    finally:
        await pool.close()
    assert capfd.readouterr() == ("", "")
    assert "AWS" not in str(caught.value)
    assert int(str(caught.value).split()[0]) == 7, "three of /dev/null, the picture twice, its pixels, the answer"


async def test_a_picture_whose_caller_leaves_is_killed(pool: DecoderPool, harmful: HarmfulDecoder) -> None:
    stuck = [asyncio.create_task(pool.decode("slow", harmful, b"spin")) for _ in range(2)]
    await asyncio.wait(stuck, timeout=0.05)
    for task in stuck:
        task.cancel()
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    await pool.decode("quick", decoder, PNG)
    assert pool.latest is not None
    assert pool.latest.said == decoder_process.DONE
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_one_that_was_not_begun_never_is(harmful: HarmfulDecoder) -> None:
    pool = DecoderPool(1, LIMITS)  # not started: nothing is begun
    waiting = asyncio.create_task(pool.decode("me", harmful, b"crash"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    pool.start()
    try:
        await pool.decode("me", Decoder(config(), max_pixels=10**8, max_scans=64), PNG)
        assert pool.latest is not None
        assert pool.latest.job == 1
    finally:
        await pool.close()


async def test_any_number_that_leave_at_once_end_nothing() -> None:
    pool = DecoderPool(1, LIMITS)  # not started: nothing is begun
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    waiting = [asyncio.create_task(pool.decode("me", decoder, PNG)) for _ in range(decoder_pool._MAX_WAITING)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    pool.start()  # before any of them has noticed
    try:
        await pool.decode("me", decoder, PNG)
    finally:
        await pool.close()
    assert all(task.cancelled() for task in waiting)


async def test_many_slow_pictures_of_one_owner_delay_another_by_one_at_most(harmful: HarmfulDecoder) -> None:
    pool = DecoderPool(1, replace(LIMITS, cpu_seconds=0.1))
    pool.start()
    ends: list[str] = []
    try:
        slow = [asyncio.create_task(pool.decode("slow", harmful, b"spin")) for _ in range(6)]
        for task in slow:
            task.add_done_callback(lambda _: ends.append("slow"))
        await asyncio.sleep(0)
        await pool.decode("quick", Decoder(config(), max_pixels=10**8, max_scans=64), PNG)
        assert ends.count("slow") <= 2
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    finally:
        await pool.close()


async def test_a_starter_that_dies_is_started_again_and_its_picture_tried_again(
    pool: DecoderPool, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    await pool.decode("me", decoder, PNG)
    assert pool._starter is not None
    pool._next_start = 0.0
    first = asyncio.create_task(pool.decode("me", decoder, PNG))
    await asyncio.sleep(0)
    os.kill(pool._starter._process.pid, signal.SIGKILL)
    await first
    await pool.decode("me", decoder, PNG)
    assert "starting it again" in caplog.text


async def test_a_closed_pool_turns_away(harmful: HarmfulDecoder) -> None:
    pool = DecoderPool(1, LIMITS)
    pool.start()
    assert pool._starter is not None
    process = pool._starter._process
    stuck = asyncio.create_task(pool.decode("me", harmful, b"spin"))
    await asyncio.wait([stuck], timeout=0.3)
    await pool.close()
    with pytest.raises(Unavailable):
        await stuck
    with pytest.raises(Unavailable):
        await pool.decode("me", harmful, PNG)
    assert process.returncode is not None


async def test_a_closed_pool_turns_away_who_waits_for_it_to_start() -> None:
    pool = DecoderPool(1, LIMITS)  # not started, or not again yet
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    leaves, *stay = [asyncio.create_task(pool.decode("me", decoder, PNG)) for _ in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    leaves.cancel()  # and one whose caller leaves just then
    await closing
    for each in stay:
        with pytest.raises(Unavailable, match="stopping"):
            await each
    await asyncio.wait([leaves])
    assert leaves.cancelled()
    assert pool._free == 1


async def test_a_closed_pool_turns_away_who_waits_for_a_place(pool: DecoderPool, harmful: HarmfulDecoder) -> None:
    tasks = [asyncio.create_task(pool.decode("me", harmful, b"spin")) for _ in range(5)]
    await asyncio.sleep(0)
    await pool.close()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in answers] == [Unavailable] * 5


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
async def test_a_decoder_that_cannot_be_started_harms_no_other(
    harmful: HarmfulDecoder, caplog: pytest.LogCaptureFixture, spare: int
) -> None:
    """``spare`` descriptors are left to who starts it: the picture has two, and its answer takes two more."""
    pool = DecoderPool(3, LIMITS)
    pool.start()
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    try:
        process = started_by(pool)
        other = asyncio.create_task(pool.decode("you", harmful, b"stop"))
        await asyncio.sleep(0)
        await pool.decode("me", decoder, PNG)  # so the other one is begun
        limits = leave_descriptors(process, spare)
        for _ in range(3):
            with pytest.raises(Unavailable, match="no decoder could be started for the picture: Too many open files"):
                await pool.decode("me", decoder, PNG)
        assert caplog.text.count("a decoder couldn't be started") == 1
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        assert not other.done()
        held = descriptors(process)
        await pool.decode("me", decoder, PNG)
        assert descriptors(process) == held
        assert (started_by(pool), pool._free) == (process, 2)
        assert not other.done()
        other.cancel()
        await asyncio.wait([other])
    finally:
        await pool.close()


def started_by(pool: DecoderPool) -> int:
    assert pool._starter is not None
    return pool._starter._process.pid


def descriptors(process: int) -> set[int]:
    return {int(each.name) for each in Path(f"/proc/{process}/fd").iterdir()}


def leave_descriptors(process: int, spare: int) -> tuple[int, int]:
    """Limits a process to those that it has and ``spare`` more; what limited it before."""
    held = descriptors(process)
    free = [number for number in range(len(held) + spare + 1) if number not in held]
    limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (free[spare], limits[1]))
    return limits


def fill_socket(pool: DecoderPool) -> None:
    """Stops who starts decoders, and writes until no more can be."""
    assert pool._starter is not None
    os.kill(started_by(pool), signal.SIGSTOP)
    os.waitpid(started_by(pool), os.WUNTRACED)
    nobody = decoder_process.DecodeRequest(decoder_process.KILL, 10**6)
    while pool._starter.send(nobody, ()):
        pass


async def test_a_picture_that_cannot_be_sent_keeps_no_place(caplog: pytest.LogCaptureFixture) -> None:
    pool = DecoderPool(1, LIMITS)
    pool.start()
    assert pool._starter is not None
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    try:
        fill_socket(pool)
        for _ in range(3):
            with pytest.raises(Unavailable, match="couldn't be handed to a decoder"):
                await pool.decode("me", decoder, PNG)
        assert caplog.text.count("couldn't be handed") == 1
        os.kill(started_by(pool), signal.SIGCONT)
        await asyncio.to_thread(select.select, (), (pool._starter._socket,), ())
        await pool.decode("me", decoder, PNG)
    finally:
        await pool.close()


async def test_a_picture_that_cannot_be_ended_yet_is_ended_later(
    harmful: HarmfulDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "_KILL_AGAIN_SECONDS", 0.001)
    pool = DecoderPool(1, LIMITS)
    pool.start()
    try:
        stuck = asyncio.create_task(pool.decode("me", harmful, b"stop"))
        await asyncio.sleep(0)
        fill_socket(pool)
        stuck.cancel()
        await asyncio.wait([stuck])
        os.kill(started_by(pool), signal.SIGCONT)
        await pool.decode("me", Decoder(config(), max_pixels=10**8, max_scans=64), PNG)
    finally:
        await pool.close()


def with_sizes(data: bytes, width: int, height: int) -> bytes:
    chunks = png_chunks(data)
    chunks[0] = b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:]
    return png(chunks)


def two_headers() -> bytes:
    chunks = png_chunks(PNG)
    return png([chunks[0], (b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 16, 6, 0, 0, 0)), *chunks[1:]])


def hollow_animation() -> bytes:
    """A second frame that is larger than the picture, without the data of a first one."""
    chunks = png_chunks(PNG)
    frame = struct.pack(">IIIIIHHBB", 0, 9000, 9000, 0, 0, 1, 10, 0, 0)
    return png([chunks[0], (b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", frame), *chunks[1:]])


def big_webp() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP", lossless=True)
    bits = struct.unpack_from("<I", file.getvalue(), 21)[0]
    size = 9999 | 9999 << 14 | (bits & 0xF0000000)
    return file.getvalue()[:21] + struct.pack("<I", size) + file.getvalue()[25:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (two_headers(), "two headers"),
        (with_sizes(PNG, 4000, 4000), "too few for 4000 x 4000 pixels"),
        (with_sizes(PNG, 121, 80), "damaged"),
        (PNG[:8] + b"\xff\xff\xff\xf0" + PNG[12:], "no header"),
        (PNG[: len(PNG) // 2], "truncated or damaged|too few"),
        (raw_png(10_000, 10_000, (1, 0, 1), 0, None), "bytes of memory"),
        (big_webp(), "bytes of memory"),
    ],
)
async def test_hostile_pictures_are_refused_with_a_reason(pool: DecoderPool, data: bytes, message: str) -> None:
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    with pytest.raises(InvalidRequest, match=message):
        await pool.decode("me", decoder, data)
    assert pool.latest is None or pool.latest.memory_bytes < 500_000_000


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(0.05, 256 * 2**20), "more than 0.05 s of CPU time"),
        (Limits(5, 16 * 2**20), "more than 16,777,216 bytes of memory"),
    ],
)
async def test_what_a_legal_picture_costs_is_bounded(limits: Limits, message: str) -> None:
    pool = DecoderPool(1, limits)
    pool.start()
    data = raw_png(2000, 1900, (16, 6, 4), 1, None)
    try:
        with pytest.raises(InvalidRequest, match=message):
            await pool.decode("me", Decoder(config(), max_pixels=10**8, max_scans=64), data)
    finally:
        await pool.close()


async def test_an_animation_is_its_first_picture(pool: DecoderPool) -> None:
    decoder = Decoder(config(), max_pixels=10**8, max_scans=64)
    np.testing.assert_array_equal(await decoded(pool, decoder, hollow_animation()), await decoded(pool, decoder, PNG))


async def test_a_starter_that_cannot_be_is_tried_again_ever_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = DecoderPool(1, LIMITS)
    with monkeypatch.context() as patch:
        patch.setattr(decoder_starter.sys, "executable", "/no/such/python")
        for _ in range(8):
            pool.start()
    assert "No such file" in caplog.text
    assert pool._again_seconds == decoder_pool._MOST_AGAIN_SECONDS
    pool.start()
    try:
        await pool.decode("me", Decoder(config(), max_pixels=10**8, max_scans=64), PNG)
        assert pool._again_seconds == decoder_pool._AGAIN_SECONDS
    finally:
        await pool.close()
