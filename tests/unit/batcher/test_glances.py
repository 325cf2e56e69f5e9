"""Which remembered requests are told of: whose, in what order, and never a key."""

from __future__ import annotations

import uuid
from time import monotonic

from shoal.batcher.glances import MOST, glances
from shoal.batcher.request import Request
from shoal.errors import NotFound
from shoal.explain.recent import Recent
from shoal.runtime.priority import Priority
from shoal.service.api_keys import Key
from shoal.service.identity import CallerId, Identity

NAME = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
NOW = monotonic()


def request(key_id: str = "key-1", *, seconds: float = 0.0, message: str = NAME, identity: str = "") -> Request:
    """Answered after ``seconds``; 0: not yet."""
    made = Request(
        owner="o",
        arrived=NOW - 10,
        deadline=NOW + 10,
        priority=Priority.INTERACTIVE,
        message=message.encode(),
        caller=CallerId(key_id, identity),
        reply=lambda *_: None,
        called=("/S/M", "m"),
    )
    if seconds:
        made.answer(NOW - 10 + seconds, b"")
    return made


def failed(seconds: float = 1.0, key_id: str = "key-1") -> Request:
    made = request(key_id)
    made.fail(NOW - 10 + seconds, NotFound("no image"))
    return made


def remembered(*requests: Request) -> Recent[Request]:
    recent: Recent[Request] = Recent(1000)
    for each in requests:
        recent.add(each)
    return recent


def test_failed_ones_come_newest_first_and_the_others_slowest_first() -> None:
    told = glances(remembered(request(seconds=1), failed(2), request(seconds=3), failed(4)), {"key-1"})
    assert [round(each.total_seconds) for each in told.failed] == [4, 2]
    assert [round(each.total_seconds) for each in told.slow] == [3, 1]
    assert (told.failed[0].code, told.failed[0].message, told.failed[0].image_uuid) == ("NOT_FOUND", "no image", NAME)
    assert (told.slow[0].code, told.slow[0].model) == ("OK", "m")


def test_one_without_an_answer_may_be_the_slowest() -> None:
    told = glances(remembered(request(), request(seconds=3)), {"key-1"})
    assert [each.code for each in told.slow] == ["", "OK"]


def test_those_of_other_keys_are_not_told() -> None:
    recent = remembered(failed(key_id="key-2"), request("key-2", seconds=1))
    assert glances(recent, {"key-1"}).model_dump() == {"failed": (), "slow": ()}
    assert glances(recent, set()).model_dump() == {"failed": (), "slow": ()}


def test_a_list_is_bounded_and_the_batcher_has_its_turn_meanwhile() -> None:
    pauses: list[float] = []
    told = glances(remembered(*(failed() for _ in range(600))), {"key-1"}, pauses.append)
    assert len(told.failed) == MOST
    assert len(pauses) == 2


def test_a_key_that_looks_like_a_uuid_is_not_taken_for_the_pictures() -> None:
    secret = str(uuid.uuid4()).upper()
    identity = Identity.of(Key(id="key-1", key=secret, owner="o")).write()
    recent = remembered(request(seconds=1, message=f"\n${secret}\x12${NAME.upper()}", identity=identity))
    (told,) = glances(recent, {"key-1"}).slow
    assert told.image_uuid == NAME
    (none,) = glances(remembered(request(seconds=1, message=secret, identity=identity)), {"key-1"}).slow
    assert none.image_uuid == ""
