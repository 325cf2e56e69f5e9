from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from shoal.client import AsyncClient, Client
from shoal.client.blocking import Options
from shoal.errors import Cancelled, InvalidRequest, NotFound
from support.fake_service import API_KEY, KNOWN, MISSING, FakeService, serving_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> Iterator[FakeService]:
    with serving_in_thread() as running:
        yield running


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client(service.target, api_key=API_KEY, timeout_seconds=60) as one:
        yield one


def test_calls_wait_for_their_answers(client: Client, service: FakeService) -> None:
    uuid = client.upload(b"jpeg")
    assert client.classify(uuid, "cats", top_k=2).image_uuid == uuid
    assert client.detect(uuid, "texts").boxes[0].label == "text"
    assert len(client.upload_many([b"a", b"b"])) == 2
    with pytest.raises(NotFound):
        client.classify(MISSING, "cats")


def test_futures(client: Client) -> None:
    futures = [client.submit_classify(KNOWN, "cats") for _ in range(50)]
    assert {future.result().image_uuid for future in futures} == {KNOWN}
    assert client.sent["alone"] == 50  # this service is an older one
    assert isinstance(client.submit_upload(b"jpeg"), Future)


def test_map(client: Client) -> None:
    outcomes = list(client.map([KNOWN, MISSING], "cats", ordered=True))
    assert [outcome.error is None for outcome in outcomes] == [True, False]
    with pytest.raises(InvalidRequest):
        next(client.map([KNOWN], "cats", concurrency=0))


def test_map_analyze(client: Client, service: FakeService) -> None:
    outcomes = list(client.map_analyze([KNOWN, MISSING], "street", ordered=True))
    assert [outcome.error is None for outcome in outcomes] == [True, False]
    assert outcomes[0].unwrap().findings[0].box.label == "bird"
    for outcome in client.map_analyze([KNOWN] * 1000, "street", concurrency=2):
        assert outcome.error is None
        break
    gc.collect()
    assert service.calls["Analyze"] < 1000


def test_map_left_early_cancels_the_rest(client: Client, service: FakeService) -> None:
    for outcome in client.map([KNOWN] * 1000, "cats", concurrency=2):
        assert outcome.error is None
        break
    gc.collect()
    assert service.calls["Classify"] < 1000


def test_one_client_serves_many_threads(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.classify(KNOWN, "cats").image_uuid, range(100)))
    assert answers == [KNOWN] * 100


def test_a_closed_client_says_so(service: FakeService) -> None:
    client = Client(service.target, api_key=API_KEY)
    outcomes = client.map([KNOWN] * 10, "cats")
    next(outcomes)
    client.close()
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        client.classify(KNOWN, "cats")
    outcomes.close()


def test_a_cancelled_future_cancels_its_call(client: Client, service: FakeService) -> None:
    service.gate = asyncio.Event()  # an answer that came first could not be cancelled
    future = client.submit_classify(KNOWN, "cats")
    future.cancel()
    with pytest.raises(CancelledError):
        future.result()


def test_a_forgotten_client_leaves_no_thread(service: FakeService) -> None:
    client = Client(service.target, api_key=API_KEY)
    client.classify(KNOWN, "cats")
    thread = client._loop._thread
    del client
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
    assert "shoal-client" not in {one.name for one in threading.enumerate()}


def test_the_key_is_not_in_the_repr(client: Client) -> None:
    assert repr(client).startswith("Client(")
    assert API_KEY not in repr(client)


def test_the_constructors_take_the_same_options() -> None:
    parameters = set(inspect.signature(AsyncClient).parameters) - {"target"}
    assert parameters == set(inspect.get_annotations(Options))
