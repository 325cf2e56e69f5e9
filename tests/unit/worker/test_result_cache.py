from __future__ import annotations

import gc
import sys
import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest

from shoal.observe.metrics import WORKER
from shoal.service.spec import ModelOverride
from shoal.v1 import inference_pb2 as pb
from shoal.worker.result_cache import ENTRY_BYTES, ResultCache, Scope, completed, content_digest, lasting
from shoal.worker.result_cache_meter import ResultCacheMeter

PICTURE = b"the bytes of a picture"


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def cache(max_bytes: int = 10**6, seconds: float = 10.0, clock: Clock | None = None, model: str = "m") -> ResultCache:
    return ResultCache(seconds=seconds, max_bytes=max_bytes, meter=ResultCacheMeter(model), clock=clock or Clock())


def key(version: int = 1, owner: str = "me", content: bytes = PICTURE, **options: Any) -> bytes:
    return Scope.of(pb.ImageRequest(**options), version, owner).key(content_digest(content))


def counted(name: str, model: str, **labels: str) -> float:
    return WORKER.get_sample_value(f"shoal_worker_result_cache_{name}", {"model": model, **labels}) or 0.0


@pytest.mark.parametrize(
    "other",
    [
        {"content": PICTURE + b" "},
        {"content": b""},
        {"version": 2},
        {"owner": "you"},
        {"owner": ""},
        {"top_k": 1},
        {"score_threshold": 0.0},  # said, though it is 0
        {"score_threshold": 0.5},
        {"mask_form": pb.MASK_FORM_RUNS},
        {"mask_size": pb.MASK_SIZE_PICTURE},
        {"region": pb.PictureRegion()},
        {"region": pb.PictureRegion(width=0.5)},
        {"region": pb.PictureRegion(width=0.5, square=True)},
        {"regions": [pb.PictureRegion()]},
        {"regions": [pb.PictureRegion(), pb.PictureRegion()]},
    ],
)
def test_whatever_an_answer_depends_on_makes_another_key(other: dict[str, Any]) -> None:
    assert key(**other) != key()


@pytest.mark.parametrize(
    "same",
    [
        {"api_key": "secret"},
        {"image_uuid": "6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
        {"model_name": "m"},
        {"max_age_us": 1},
        {"model_version": 1},  # named or not, the version that answers is the one that counts
    ],
)
def test_what_it_does_not_depend_on_makes_none(same: dict[str, Any]) -> None:
    assert key(**same) == key()


def test_no_part_of_a_key_can_be_taken_for_another() -> None:
    assert key(owner="ab", content=b"c") != key(owner="a", content=b"bc")
    options = pb.ImageRequest(top_k=3).SerializeToString()
    assert key(owner="", content=options + PICTURE) != key(owner="", top_k=3)


def test_a_field_that_only_newer_callers_know_counts() -> None:
    newer = pb.ImageRequest.FromString(b"\xf8\x07\x01")  # the varint field 127
    assert Scope.of(newer, 1, "me").key(content_digest(PICTURE)) != key()


def test_owners_share_where_they_are_told_to() -> None:
    request, meter = pb.ImageRequest(), ResultCacheMeter("m")
    for shared in (True, False):
        made = ResultCache(seconds=1, max_bytes=10**6, meter=meter, shared=shared)
        assert (made.scope(request, 1, "me") == made.scope(request, 1, "you")) is shared


def test_an_answer_is_given_until_its_time_is_over() -> None:
    clock = Clock()
    made = cache(clock=clock, model="time")
    made.put(b"1", b"one")
    clock.now += 9.99
    assert made.get(b"1") == b"one"  # being asked for makes it last no longer
    clock.now += 0.02
    assert made.get(b"1") is None
    assert (len(made), made.held_bytes) == (0, 0)
    assert counted("lookups_total", "time", outcome="hit") == 1
    assert counted("lookups_total", "time", outcome="miss") == 1
    assert counted("evictions_total", "time", reason="expired") == 1


def test_a_newer_answer_begins_anew() -> None:
    clock = Clock()
    made = cache(clock=clock)
    for answer in (b"one", b"a longer one"):
        made.put(b"1", answer)
        clock.now += 6
    assert made.get(b"1") == b"a longer one"
    assert made.held_bytes == ENTRY_BYTES + 12


def test_what_nobody_asked_for_longest_makes_room() -> None:
    clock = Clock()
    made = cache(3 * (ENTRY_BYTES + 1), clock=clock, model="room")
    for number in (b"1", b"2", b"3"):
        made.put(number, number)
    assert made.get(b"1")
    made.put(b"4", b"4")
    assert [made.get(number) for number in (b"1", b"2", b"3", b"4")] == [b"1", None, b"3", b"4"]
    assert counted("evictions_total", "room", reason="room") == 1
    clock.now += 11
    made.put(b"5", b"5")
    assert counted("evictions_total", "room", reason="expired") == 1


def test_one_large_answer_takes_the_room_of_many_and_none_is_larger_than_the_cache() -> None:
    made = cache(4 * (ENTRY_BYTES + 1))
    for number in (b"1", b"2", b"3", b"4"):
        made.put(number, number)
    made.put(b"too large", bytes(made.held_bytes))
    assert len(made) == 4
    made.put(b"large", bytes(2 * ENTRY_BYTES))
    assert [bool(made.get(number)) for number in (b"1", b"2", b"3", b"4", b"large")] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert made.held_bytes <= 4 * (ENTRY_BYTES + 1)


@pytest.mark.parametrize("answer_bytes", [1, 300])
def test_its_memory_is_no_more_than_it_says(answer_bytes: int) -> None:
    limit = 2 * 2**20
    made = cache(limit)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(3 * limit // (ENTRY_BYTES + answer_bytes)):
            made.put(number.to_bytes(32, "big"), bytes([number % 256]) * answer_bytes)
            assert made.held_bytes <= limit
        taken, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.held_bytes > limit - 2 * (ENTRY_BYTES + answer_bytes)
    assert taken <= made.held_bytes
    assert most <= limit
    assert sys.getsizeof(made._answers) < made.held_bytes


@pytest.mark.parametrize("kind", [pb.ClassifyReply, pb.DetectReply, pb.SegmentReply])
def test_an_answer_is_given_with_another_requests_uuid_and_times(kind: Any) -> None:
    reply = kind(image_uuid="first", model_name="m", model_version=2, timing=pb.Timing(fetch_us=5, decode_us=6))
    again = kind.FromString(completed(lasting(reply), kind(image_uuid="second", timing=pb.Timing(cached=True))))
    assert (again.image_uuid, again.model_name, again.model_version) == ("second", "m", 2)
    assert again.timing == pb.Timing(cached=True)


def test_the_service_file_says_which_model_has_one() -> None:
    meter = ResultCacheMeter("file")
    assert ResultCache.of(ModelOverride(), 1, meter) is None
    made = ResultCache.of(ModelOverride(cache_seconds=5, cache_max_bytes=100_000), 2, meter)
    assert made is not None
    made.put(b"1", bytes(49_000))
    made.put(b"2", bytes(49_000))  # two processes have half of it each
    assert len(made) == 1
    assert counted("bytes", "file") == 49_000 + ENTRY_BYTES
    del made
    assert counted("bytes", "file") == 0  # its model is no longer served
