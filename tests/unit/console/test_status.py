"""What a caller may see, from what parts told: whose models, whose requests, and which words."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.console.figures import Figures
from shoal.console.parts import Address, News
from shoal.console.status import NOT_VOUCHED_FOR, Caller, Known, ModelView, StatusView, status
from shoal.explain.views import Glances
from shoal.runtime.endpoint import Endpoint
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.service.pipelines import Detector, Pipeline, Step
from shoal.service.spec import Pool, Router, Service
from shoal.service.tokens import TokenIssuer
from shoal.service.topology import Topology
from shoal.service.worker_report import ServedModel, WorkerReport

HOST = Endpoint("127.0.0.1", 1)
ALICE = Key(id="alice-1", key="a-secret-of-some-length", owner="alice")
ALICES_OTHER = Key(id="alice-2", key="another-secret-of-some-length", owner="alice")
BOB = Key(id="bob-1", key="bobs-secret-of-some-length", owner="bob", models=("resnet*",))
SERVICE = Service(pools={"default": Pool(models=["resnet*", "yolo", "new"]), "other": Pool(models=["o"])})
TOPOLOGY = Topology(public=HOST, balancer=HOST, batchers={"shared": [HOST]}, pools={"default": [HOST]})
TROUBLE = "/var/lib/shoal/models/yolo/1/model.onnx: not a model"


def worker(name: str = "worker-default-1", **report: Any) -> News:
    return News(Address(name, "worker", "default", HOST), report=WorkerReport(**report))


def batcher(**figures: Figures) -> News:
    return News(Address("batcher-shared-1", "batcher", "shared", HOST), figures=figures)


def seen(
    *news: News,
    caller: Key = ALICE,
    models: tuple[str, ...] = ("resnet-50", "yolo", "new"),
    unserved: tuple[str, ...] = (),
    refused: dict[str, int] | None = None,
) -> StatusView:
    known = Known(SERVICE, TOPOLOGY, KeyRing([ALICE, ALICES_OTHER, BOB]), models, frozenset(unserved))
    return status(Caller.of(Identity.of(caller), None, known), known, news, Glances(), refused or {})


def named(view: StatusView, name: str) -> ModelView:
    return next(model for model in view.models if model.name == name)


def test_models_are_those_that_the_key_may_call() -> None:
    assert [model.name for model in seen(worker()).models] == ["new", "resnet-50", "yolo"]
    assert [model.name for model in seen(worker(), caller=BOB).models] == ["resnet-50"]


def test_a_key_that_was_revoked_meanwhile_sees_no_model() -> None:
    stranger = Key(id="gone", key="a-gone-secret-of-some-length", owner="gone")
    assert seen(worker(models=("resnet-50",)), caller=stranger).models == ()


def test_requests_are_those_of_the_owners_keys() -> None:
    known = Known(SERVICE, TOPOLOGY, KeyRing([ALICE, ALICES_OTHER, BOB]), (), frozenset())
    assert Caller.of(Identity.of(ALICE), None, known).key_ids == {"alice-1", "alice-2"}
    assert Caller.of(Identity.of(BOB), None, known).key_ids == {"bob-1"}


def test_keys_and_tokens_of_an_owner_see_each_others_requests() -> None:
    issuers = {name: TokenIssuer(issuer=name, audiences=["shoal"], jwks_file="k") for name in ("company", "partner")}
    service = SERVICE.model_copy(update={"router": Router(tokens=issuers)})
    known = Known(service, TOPOLOGY, KeyRing([ALICE, BOB]), (), frozenset())
    token = Identity("token:company:alice", "alice", "alice/", "digest")
    expected = {"alice-1", "token:company:alice", "token:partner:alice"}
    assert Caller.of(token, None, known).key_ids == Caller.of(Identity.of(ALICE), None, known).key_ids == expected


@pytest.mark.parametrize(
    ("claimed", "models"),
    [
        (None, ["new", "resnet-50", "yolo"]),
        ("*", ["new", "resnet-50", "yolo"]),
        ("", []),
        ("resnet* new", ["new", "resnet-50"]),
        ("yol ?olo [y]olo YOLO", []),
    ],
)
def test_models_are_those_of_a_tokens_claim(claimed: str | None, models: list[str]) -> None:
    known = Known(SERVICE, TOPOLOGY, KeyRing([ALICE]), ("resnet-50", "yolo", "new"), frozenset())
    caller = Caller.of(Identity("token:company:alice", "alice", "alice/", "digest"), claimed, known)
    assert [model.name for model in status(caller, known, (), Glances(), {}).models] == models


def test_a_key_is_told_nothing_by_a_header_of_its_own() -> None:
    known = Known(SERVICE, TOPOLOGY, KeyRing([BOB]), (), frozenset())
    assert not Caller.of(Identity.of(BOB), "*", known).may_call("yolo")


def test_a_model_is_served_refused_or_waits() -> None:
    served = worker(
        models=("resnet-50",),
        served={"resnet-50": ServedModel(version=3, task="detection")},
        troubles={"yolo": TROUBLE},
    )
    view = seen(served, worker("worker-default-2", ready=False, models=("resnet-50",)))
    resnet = named(view, "resnet-50")
    assert (resnet.state, resnet.task, resnet.versions) == ("served", "detection", (3,))
    assert (resnet.replicas_ready, resnet.replicas) == (1, 2)
    assert (named(view, "yolo").state, named(view, "yolo").reasons) == ("refused", ("…/model.onnx: not a model",))
    assert named(view, "new").state == "waiting"
    assert named(seen(served, unserved=("new",)), "new").state == "refused"


def test_a_model_of_no_pool_is_refused_for_that() -> None:
    strange = named(seen(worker(), models=("strange",)), "strange")
    assert (strange.pool, strange.state) == ("", "refused")
    assert "no pool" in strange.reasons[0]


def test_while_workers_change_over_both_versions_are_told() -> None:
    old, new = (
        worker(f"w-{v}", models=("yolo",), served={"yolo": ServedModel(version=v, task="detection")}) for v in (1, 2)
    )
    assert named(seen(old, new), "yolo").versions == (1, 2)


def test_a_batcher_that_saw_none_of_its_requests_counts_from_zero() -> None:
    assert named(seen(batcher()), "yolo").batchers == {"batcher-shared-1": Figures()}
    counted = Figures(answered={"OK": 2})
    assert named(seen(batcher(yolo=counted)), "yolo").batchers == {"batcher-shared-1": counted}
    silent = News(Address("batcher-shared-1", "batcher", "shared", HOST), silent="no answer within 2 s")
    assert named(seen(silent), "yolo").batchers == {}, "what isn't known is no zero"


def test_parts_say_how_they_are() -> None:
    view = seen(
        worker(models=("yolo",), reasons=("model new: no",)),
        worker("w-2", ready=False, reasons=("models are being loaded",)),
        News(Address("w-3", "worker", "default", HOST), silent="Connection refused"),
        News(Address("w-4", "worker", "default", HOST)),
        batcher(),
    )
    assert {part.name: (part.state, part.reason) for part in view.parts} == {
        "router": ("ready", ""),
        "worker-default-1": ("ready", ""),
        "w-2": ("not ready", "models are being loaded"),
        "w-3": ("silent", "Connection refused"),
        "w-4": ("ready", ""),  # an older one, which tells nothing
        "batcher-shared-1": ("ready", ""),
    }


def test_what_nobody_vouched_for_is_counted_apart() -> None:
    news = batcher(**{NOT_VOUCHED_FOR: Figures(answered={"NOT_FOUND": 2})})
    view = seen(news, refused={"the API key's rate limit": 3})
    assert view.unknown == {"NOT_FOUND": 2}
    assert view.refused == {"the API key's rate limit": 3}
    assert NOT_VOUCHED_FOR not in {model.name for model in view.models}


def test_a_pipeline_is_no_model_without_a_pool() -> None:
    pipeline = Pipeline(detect=Detector(model="yolo"), then=[Step(model="resnet-50")])
    known = Known(
        SERVICE.model_copy(update={"pipelines": {"street": pipeline}}),
        TOPOLOGY,
        KeyRing([ALICE]),
        ("resnet-50", "street", "yolo"),
        frozenset(),
    )
    caller = Caller.of(Identity.of(ALICE), None, known)
    street = named(status(caller, known, [worker()], Glances(), {}), "street")
    assert (street.state, street.task, street.reasons) == ("served", "pipeline", ())
