from __future__ import annotations

import pytest

from shoal.runtime.priority import Priority
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import MAX_LENGTH, Identity

SECRET = "a-secret-of-some-length"
KEY = Key(id="key-1", key=SECRET, owner="alice", prefix="pictures/of-alice/")


def test_what_is_written_is_read_and_fits_a_header() -> None:
    identity = Identity.of(KEY)
    text = identity.write()
    assert Identity.parse(text) == identity
    assert (identity.key_id, identity.owner, identity.prefix) == ("key-1", "alice", "pictures/of-alice/")
    assert text.isascii()
    assert not any(letter.isspace() for letter in text)
    assert text.partition("?")[0] == "key-1"


def test_it_knows_its_key_and_shows_nothing_of_it() -> None:
    identity = Identity.of(KEY)
    assert identity.is_of(SECRET)
    assert not any(identity.is_of(other) for other in ("", SECRET + "x", identity.digest, "ä" * 20))
    assert SECRET not in identity.write()
    assert identity.digest not in repr(identity)


TOKEN = "token:company:alice?v=1&owner=alice&prefix=alice%2F&sha256={}&rps=5.0&priority=bulk&exp=1700000000&json=1"


def test_what_the_router_writes_of_a_token_is_read() -> None:
    found = Identity.parse(TOKEN.format("proof"))
    assert found
    assert (found.key_id, found.owner, found.prefix) == ("token:company:alice", "alice", "alice/")
    assert (found.expires, found.json, found.priority) == (1_700_000_000, True, Priority.BULK)
    assert found.is_of_token()
    assert not Identity.of(KEY).is_of_token()
    assert len(TOKEN.partition("?")[2].split("&")) <= 8, "an older reader takes no more fields"


def test_who_knows_all_keys_has_written_it() -> None:
    ring = KeyRing([KEY])
    found = Identity.parse(TOKEN.format(ring.proof))
    assert found
    assert found.is_proven(ring.proof)
    assert not found.is_proven(KeyRing([KEY, KEY.model_copy(update={"id": "b", "key": "b" * 20})]).proof)
    assert not found.is_proven("")
    assert not Identity("key-1", "alice", "", ring.proof).is_proven(ring.proof), "it is a key's"


def test_without_keys_there_is_no_proof_since_anybody_could_make_it() -> None:
    found = Identity.parse(TOKEN.format("-"))
    assert found
    assert not found.is_proven(KeyRing().proof)


def test_an_empty_prefix_stays_empty() -> None:
    key = KEY.model_copy(update={"prefix": ""})
    assert Identity.parse(Identity.of(key).write()) == Identity.of(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key-1",
        SECRET,
        "key-1?",
        "?v=1&owner=a&sha256=b",
        "key-1?v=2&owner=a&prefix=&sha256=b",
        "key-1?v=1&prefix=a%2F&sha256=b",
        "key-1?v=1&owner=a&prefix=",
        "key-1?v=1&owner=&sha256=b",
        "key-1?owner",
        "key-1?" + "&".join(f"f{n}=1" for n in range(100)),
        "key-1?v=1&owner=a&sha256=" + "b" * MAX_LENGTH,
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert Identity.parse(text) is None


def test_what_a_later_router_adds_is_read_past() -> None:
    assert Identity.parse(Identity.of(KEY).write() + "&more=1") == Identity.of(KEY)


@pytest.mark.parametrize("rate", [0.0, 0.001, 50.0, 1 / 3, 1_000_000.0])
def test_a_keys_rate_comes_along_as_it_is(rate: float) -> None:
    found = Identity.parse(Identity.of(KEY.model_copy(update={"requests_per_second": rate})).write())
    assert found is not None
    assert found.requests_per_second == rate


def test_an_older_router_says_no_rate_and_what_is_none_makes_no_identity() -> None:
    text = "key-1?v=1&owner=a&prefix=&sha256=b"
    found = Identity.parse(text)
    assert found is not None
    assert found.requests_per_second is None
    for rate in ("", "-1", "nan", "inf", "many"):
        assert Identity.parse(f"{text}&rps={rate}") is None


def test_a_bulk_keys_priority_comes_along_and_the_usual_one_goes_without_saying() -> None:
    bulk = Identity.of(KEY.model_copy(update={"priority": Priority.BULK}))
    assert Identity.parse(bulk.write()) == bulk
    assert "priority" not in Identity.of(KEY).write()


@pytest.mark.parametrize("word", ["", "BULK", "interactive", "urgent", "bulk2"])
def test_a_level_that_is_unknown_here_is_the_usual_one(word: str) -> None:
    found = Identity.parse(f"key-1?v=1&owner=a&prefix=&sha256=b&priority={word}")
    assert found is not None
    assert found.priority is Priority.INTERACTIVE


def test_a_pipelines_form_says_whom_it_calls_for_and_holds_no_key() -> None:
    ring = KeyRing((KEY,))
    limited = Identity.of(KEY.model_copy(update={"requests_per_second": 5.0, "priority": Priority.BULK}))
    found = Identity.parse(limited.by_pipeline("street", "elsewhere/", ring.proof).write())
    assert found
    assert (found.key_id, found.owner, found.prefix, found.pipeline) == ("key-1", "alice", "elsewhere/", "street")
    assert (found.requests_per_second, found.json, found.priority) == (0.0, True, Priority.BULK)
    assert found.is_proven(ring.proof)
    assert not found.is_of(SECRET)
    assert not found.is_proven("")


def test_only_a_token_or_a_pipeline_is_proven_by_the_proof() -> None:
    proof = KeyRing((KEY,)).proof
    assert not Identity("key-1", "alice", "", proof).is_proven(proof)
    assert Identity("key-1", "alice", "", proof, pipeline="street").is_proven(proof)
    assert not Identity("key-1", "alice", "", "guess", pipeline="street").is_proven(proof)


def test_a_pipeline_that_knows_no_keys_still_says_whom_it_calls_for() -> None:
    found = Identity.of(KEY).by_pipeline("street", "", "")
    assert Identity.parse(found.write()) == found
