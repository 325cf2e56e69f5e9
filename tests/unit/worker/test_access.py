"""Who is served: what the router verified decides, whatever copy of the keys the worker has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import PermissionDenied, Unauthenticated
from shoal.service import api_keys
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.worker.access import Access, Grant, NewestKeys

if TYPE_CHECKING:
    from pathlib import Path

OLD = Key(id="old", key="o" * 24, owner="alice")
NEW = Key(id="new", key="n" * 24, owner="alice", prefix="elsewhere/", models=("resnet*",))
BOB = Key(id="bob", key="b" * 24, owner="bob")
RINGS = {"before": (OLD, BOB), "both": (OLD, NEW, BOB), "after": (NEW, BOB), "none": ()}


def identity(key: Key) -> str:
    return Identity.of(key).write()


@pytest.mark.parametrize("known", RINGS.values(), ids=RINGS)
@pytest.mark.parametrize("key", [OLD, NEW], ids=lambda key: key.id)
def test_what_the_router_verified_is_served_whatever_the_worker_knows(key: Key, known: tuple[Key, ...]) -> None:
    grant = Access(KeyRing(known)).grant(key.id, identity(key), key.key, "resnet-50")
    assert grant == Grant("alice", key.prefix)


@pytest.mark.parametrize("reads_the_keys", [False, True], ids=["believes", "looks up"])
def test_a_message_of_json_needs_no_key(reads_the_keys: bool) -> None:
    access = Access(KeyRing(RINGS["both"]), (lambda: None) if reads_the_keys else None)
    assert access.grant(NEW.id, f"{identity(NEW)}&json=1", "", "resnet-50") == Grant("alice", "elsewhere/")
    for other in ("", "&json=-", "&json=0"):
        with pytest.raises(Unauthenticated):
            access.grant(NEW.id, identity(NEW) + other, "", "resnet-50")


@pytest.mark.parametrize(
    "claim",
    [
        "",
        "old",
        Identity("old", "alice", "alice/", Identity.of(BOB).digest).write(),
        identity(Key(id="gone", key="g" * 24, owner="alice")),
    ],
    ids=["none", "id", "digest of another", "unknown"],
)
def test_where_no_identity_is_believed_it_has_to_show_the_keys_digest(claim: str) -> None:
    with pytest.raises(Unauthenticated):
        Access(KeyRing(RINGS["both"]), lambda: None).grant("old", f"{claim}&json=1", "")


def token(ring: KeyRing, owner: str = "alice") -> str:
    """As the router writes it."""
    return Identity(f"token:company:{owner}", owner, f"{owner}/", ring.proof or "-", 7.0).write() + "&exp=2e9&json=1"


@pytest.mark.parametrize("reads_the_keys", [False, True], ids=["believes", "looks up"])
def test_a_caller_with_a_token_needs_no_key(reads_the_keys: bool) -> None:
    ring = KeyRing(RINGS["both"])
    access = Access(ring, (lambda: None) if reads_the_keys else None)
    assert access.grant("token:company:carol", token(ring, "carol"), "", "any") == Grant("carol", "carol/")
    assert access.grant("token:company:alice", token(ring), OLD.key, "any") == Grant("alice", "alice/")
    assert access.rate("token:company:carol", token(ring, "carol")) == 7.0
    with pytest.raises(Unauthenticated, match="different owners"):
        access.grant("token:company:alice", token(ring), BOB.key, "any")


@pytest.mark.parametrize("keys", ["before", "none"])
def test_where_no_identity_is_believed_the_router_alone_can_have_written_a_tokens(keys: str) -> None:
    written = token(KeyRing(RINGS[keys]))
    with pytest.raises(Unauthenticated):
        Access(KeyRing(RINGS["both" if keys == "before" else keys]), lambda: None).grant("token:c:alice", written, "")


def test_a_router_that_learns_of_a_key_sooner_or_later_is_still_the_router() -> None:
    before, after = KeyRing(RINGS["before"]), KeyRing(RINGS["both"])
    access = Access(before, lambda: after)
    assert access.grant("token:company:alice", token(after), "") == Grant("alice", "alice/")
    assert access.ring == after
    assert access.grant("token:company:alice", token(before), "") == Grant("alice", "alice/")
    access.ring = KeyRing(RINGS["after"])
    with pytest.raises(Unauthenticated):
        Access(access.ring, lambda: None).grant("token:company:alice", token(before), "")


def test_another_key_of_the_same_owner_is_looked_up() -> None:
    access = Access(KeyRing(RINGS["both"]))
    assert access.grant(OLD.id, identity(OLD), NEW.key, "resnet-50") == Grant("alice", "elsewhere/")
    assert access.grant(OLD.id, identity(OLD), NEW.key) == Grant("alice", "elsewhere/")
    with pytest.raises(PermissionDenied, match="'yolo'"):
        access.grant(OLD.id, identity(OLD), NEW.key, "yolo")


@pytest.mark.parametrize("api_key", [BOB.key, "", "x" * 24, identity(OLD)])
def test_any_other_key_is_refused(api_key: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Access(KeyRing(RINGS["both"])).grant(OLD.id, identity(OLD), api_key)
    assert not api_key or api_key not in str(caught.value)


def test_an_owner_can_not_be_claimed_without_the_keys_own_digest() -> None:
    claim = Identity("old", "bob", "bob/", Identity.of(BOB).digest).write()
    with pytest.raises(Unauthenticated):
        Access(KeyRing(RINGS["both"])).grant(OLD.id, claim, OLD.key)


@pytest.mark.parametrize("text", ["", "old", "old?v=9&owner=alice&prefix=&sha256=x"], ids=["none", "id", "later"])
def test_without_an_identity_both_keys_are_looked_up(text: str) -> None:
    access = Access(KeyRing(RINGS["both"]))
    assert access.grant("old", text, OLD.key, "yolo") == Grant("alice", "alice/")
    with pytest.raises(PermissionDenied):
        access.grant("old", text, NEW.key, "yolo")
    for client, api_key in (("gone", OLD.key), ("bob", OLD.key), ("", OLD.key), ("old", "x" * 24)):
        with pytest.raises(Unauthenticated):
            access.grant(client, text, api_key, "yolo")


def verifying(*known: Key) -> Access:
    return Access(KeyRing(known), lambda: None)


def test_a_forged_identity_is_worth_nothing_where_others_reach_the_worker() -> None:
    invented = Key(id="old", key="f" * 24, owner="alice")
    for forged in (invented, invented.model_copy(update={"id": "invented"})):
        with pytest.raises(Unauthenticated):
            verifying(OLD, BOB).grant(forged.id, identity(forged), forged.key, "yolo")
    assert Access(KeyRing([OLD, BOB])).grant("old", identity(invented), invented.key) == Grant("alice", "alice/")


def test_a_real_key_gets_there_no_more_than_is_its_own() -> None:
    access = verifying(OLD, NEW, BOB)
    claim = Identity("bob", "alice", "alice/", Identity.of(BOB).digest, 0.0).write()
    assert access.grant("bob", claim, BOB.key, "yolo") == Grant("bob", "bob/")
    with pytest.raises(Unauthenticated):
        access.grant("old", claim, BOB.key, "yolo")
    with pytest.raises(PermissionDenied):
        access.grant("new", identity(NEW), NEW.key, "yolo")


def test_what_the_router_may_know_already_is_read_before_anybody_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old = api_keys.create(file, "alice")
    access = Access(api_keys.load_keys(file), NewestKeys(file))
    new = api_keys.create(file, "alice", models=["resnet*"])
    assert access.grant(new.id, identity(new), new.key, "resnet-50") == Grant("alice", "alice/")
    api_keys.revoke(file, old.id)
    with pytest.raises(PermissionDenied):
        access.grant(new.id, identity(new), new.key, "yolo")
    assert access.ring == api_keys.load_keys(file)
    with pytest.raises(Unauthenticated):
        access.grant(old.id, identity(old), old.key)


def test_keys_are_read_again_only_from_another_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    newest = NewestKeys(file)
    assert newest() is None
    key = api_keys.create(file, "alice")
    assert newest() == KeyRing([key])
    assert newest() is None
    file.write_text("broken")
    assert newest() is None


def test_the_rate_is_the_routers_and_else_the_keys_own() -> None:
    slow = OLD.model_copy(update={"requests_per_second": 2.0})
    assert Access(KeyRing()).rate("old", identity(slow)) == 2.0
    assert Access(KeyRing([slow])).rate("old", identity(OLD)) == 0.0
    assert Access(KeyRing([slow])).rate("old", "old") == 2.0
    assert verifying(slow).rate("old", identity(OLD)) == 2.0
