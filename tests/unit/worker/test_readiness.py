"""The rule of readiness, case by case, and the report that a worker leaves."""

from __future__ import annotations

import pytest

from shoal.batching.peers import Seen
from shoal.service.spec import parse
from shoal.worker.readiness import Available, Others, missing, origin, others, unserved

REFUSED = {"a": "no such backend", "b": "it is\nfor a newer server"}
PLACE = "/models"


def judged(
    served: str = "",
    *,
    names: str = "",
    troubles: str = "",
    proven: str | None = None,
    differing: str = "",
    empty: bool = False,
) -> list[str]:
    """The models, or the place, that the reasons name."""
    found = Available(PLACE, empty, {name: REFUSED[name] for name in troubles})
    known = None if proven is None else Others(frozenset(proven), frozenset(proven), frozenset(differing))
    lines = missing(served=frozenset(served), named=frozenset(names), found=found, others=known)
    return [line.split(":")[0].removeprefix("model ").split()[0] for line in lines]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # Named models have to be served, whoever else serves them.
        ({"served": "a", "names": "a"}, []),
        ({"served": "ab", "names": "a"}, []),
        ({"served": "a", "names": "ab"}, ["b"]),
        ({"served": "a", "names": "ab", "troubles": "b", "proven": ""}, ["b"]),
        ({"served": "", "names": "ab", "empty": True}, ["a", "b"]),
        # With nobody to ask, whatever is there has to be.
        ({"served": "a", "troubles": "b"}, ["b"]),
        ({"served": "", "troubles": "ab"}, ["a", "b"]),
        # Others of the pool show what can be served, and what can't.
        ({"served": "a", "troubles": "b", "proven": "ab"}, ["b"]),
        ({"served": "a", "troubles": "b", "proven": "a"}, []),
        ({"served": "", "troubles": "ab", "proven": "a"}, ["a"]),
        # Who serves nothing though something is there isn't ready, whatever others do.
        ({"served": "", "troubles": "ab", "proven": ""}, ["a", "b"]),
        # A model that others have and that was taken out of the store is wanted by nobody.
        ({"served": "a", "proven": "ab"}, []),
        # Unless it is another store, or another pattern, that lacks it: nobody took it out there.
        ({"served": "a", "proven": "ab", "differing": "ab"}, ["b"]),
        ({"served": "a", "proven": "abc", "differing": "c"}, ["c"]),
        ({"served": "ab", "proven": "ab", "differing": "ab"}, []),
        # All of them are never taken out, of whatever store.
        ({"served": "", "proven": "ab"}, ["a", "b"]),
        ({"served": "", "proven": ""}, []),
        # Nothing at all: hardly the right place. Nothing for this pool: a matter of patterns.
        ({"served": "", "empty": True}, [PLACE]),
        ({"served": "", "empty": False}, []),
        # A version that can't be loaded leaves the one that is served.
        ({"served": "a", "troubles": "a"}, []),
    ],
)
def test_what_keeps_a_worker_from_being_ready(case: dict[str, str], expected: list[str]) -> None:
    assert judged(**case) == expected  # type: ignore[arg-type]


def test_a_reason_is_one_line_with_model_and_cause() -> None:
    found = Available(PLACE, troubles=REFUSED)
    assert unserved(found, {"a"}) == ("model b: it is for a newer server",)
    (line,) = missing(served=set(), named={"c"}, found=Available(PLACE), others=None)
    assert line == "model c: the service file names it, and it isn't in /models"
    shown = Others(frozenset("d"), frozenset("d"))
    (line,) = missing(served=set(), named=set(), found=Available(PLACE), others=shown)
    assert line == "model d: ready workers of the pool serve it, and here it fits no pattern or isn't in /models"


ONE = "pools: {one: {models: ['yolo*', unet]}}"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("pools: {one: {models: [unet, 'yolo*'], replicas: 3}}\nmodel_store: {poll_seconds: 5}", True),
        ("pools: {one: {models: ['yolo*', unet]}, two: {models: ['*']}}", True),
        ("pools: {one: {models: ['yolo*']}}", False),
        (f"{ONE}\nmodel_store: {{url: 's3://other'}}", False),
        (f"{ONE}\nmodel_store: {{url: 's3://models', endpoint: 'http://other:9000'}}", False),
        (f"{ONE}\nmodel_store: {{path: /other}}", False),
        ("pools: {one: {models: ['yolo*', unet], engine: triton, triton_url: 'other:8001'}}", False),
    ],
)
def test_an_origin_is_where_models_come_from_and_what_they_are_called(text: str, same: bool) -> None:
    assert (origin(parse(text, "s"), "one") == origin(parse(ONE, "s"), "one")) is same


def test_what_another_pool_is_to_serve_is_missed_by_nobody() -> None:
    service = parse("pools: {one: {models: ['yolo*']}, two: {models: ['resnet*']}}", "s")
    seen = [Seen(frozenset({"yolo-1", "resnet-50", "unet"}), "before")]
    known = others(seen, None, service, "one")
    assert known == Others(*3 * [frozenset({"yolo-1", "unet"})])


def test_what_was_shown_stays_shown_and_what_is_taken_out_is_served_no_more() -> None:
    service = parse(ONE, "s")
    own = origin(service, "one")
    first = others(
        [Seen(frozenset("ab"), "before"), Seen(frozenset("c"), own), Seen(frozenset("d"), "")], None, service, "one"
    )
    assert first == Others(frozenset("abcd"), frozenset("abcd"), frozenset("ab"))
    then = others([Seen(frozenset("a"), own)], first, service, "one")
    assert then == Others(frozenset("abcd"), frozenset("a"), frozenset())
    assert others([], then, service, "one") == then
    assert others([], None, service, "one") is None
