"""Who is served: what the router verified decides, whatever copy of the keys the worker has."""

from __future__ import annotations

import pytest

from shoal.errors import PermissionDenied, Unauthenticated
from shoal.identity import Identity
from shoal.keys import Key, KeyRing
from shoal.worker.access import Access, Grant

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
