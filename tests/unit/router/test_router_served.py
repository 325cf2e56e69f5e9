from __future__ import annotations

from shoal.router.served import PATIENCE_SECONDS, ServedModels, Unserved, served
from shoal.runtime.endpoint import Endpoint
from shoal.service.spec import Pool, Service

SERVICE = Service(pools={"a": Pool(models=["yolo*"]), "b": Pool(models=["*"])})
MODELS = ("yolo-1", "yolo-2", "resnet")
HERE, THERE = Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)


def after(*answers: dict[str, frozenset[str] | None], step: float = PATIENCE_SECONDS) -> frozenset[str]:
    """What is refused at the last of some answers, ``step`` apart."""
    unserved = Unserved()
    for number, answer in enumerate(answers):
        unserved.update(SERVICE, MODELS, answer, now=number * step)
    return unserved.names((len(answers) - 1) * step)


def test_what_no_ready_worker_of_its_pool_serves_is_refused_after_a_while() -> None:
    answer = {"a": frozenset({"yolo-1"}), "b": frozenset({"yolo-2", "resnet"})}
    assert after(answer) == frozenset()
    assert after(answer, answer, step=PATIENCE_SECONDS / 2) == frozenset()
    assert after(answer, answer) == {"yolo-2"}, "another pool's workers don't count"


def test_what_nobody_knows_is_routed() -> None:
    assert after({"a": None, "b": None}, {"a": None, "b": None}) == frozenset()
    assert after({}, {}) == frozenset()


def test_once_served_the_patience_begins_anew() -> None:
    without, having = {"a": frozenset({"yolo-1"})}, {"a": frozenset({"yolo-1", "yolo-2"})}
    assert after(without, without, having) == frozenset()
    assert after(without, without, having, without) == frozenset()
    assert after(without, without, {"a": None}, without) == frozenset()


async def test_one_worker_of_a_pool_that_serves_it_is_enough() -> None:
    replies = {HERE: frozenset({"yolo-1"}), THERE: frozenset({"yolo-2"})}

    async def ask(host: Endpoint) -> frozenset[str] | None:
        return replies.get(host)

    elsewhere = Endpoint("127.0.0.1", 3)
    answers = await served({"a": [HERE, THERE, elsewhere], "b": [elsewhere], "c": []}, ask)
    assert answers == {"a": {"yolo-1", "yolo-2"}, "b": None, "c": None}


def shown(*listed: str, **answers: frozenset[str] | None) -> ServedModels:
    known = ServedModels()
    known.list(listed)
    known.update(answers)
    return known


def test_what_workers_serve_is_known_though_it_is_not_listed() -> None:
    known = shown("resnet", a=frozenset({"yolo-1"}), b=frozenset({"unet", "yolo-3"}), gone=frozenset({"vgg"}))
    assert known.models(SERVICE) == {"yolo-1", "unet"}, "a model is of one pool, and that of a pool that is there"
    assert not known.update({"a": None, "b": None}), "where nobody answers it stays"
    assert known.update({"a": frozenset()})
    assert known.models(SERVICE) == {"unet"}
    assert known.adopt(SERVICE) == SERVICE


def test_what_was_listed_and_is_no_more_was_taken_out() -> None:
    known = shown("yolo-1", a=frozenset({"yolo-1"}))
    known.list(())
    assert known.models(SERVICE) == set()
    known.list(("yolo-1",))
    assert known.models(SERVICE) == {"yolo-1"}


def test_what_fits_no_pattern_is_of_the_pool_whose_workers_serve_it() -> None:
    mistyped = Service(pools={"a": Pool(models=["yolo*"]), "b": Pool(models=["resnte*"])})
    known = shown("yolo-1", "resnet", a=frozenset({"yolo-1"}), b=frozenset({"resnet", "two words"}))
    adopted = known.adopt(mistyped)
    assert (adopted.pool_of("resnet"), adopted.pool_of("yolo-1"), adopted.pool_of("two words")) == ("b", "a", None)
    assert known.models(mistyped) == {"yolo-1", "resnet"}
    assert mistyped.pool_of("resnet") is None
