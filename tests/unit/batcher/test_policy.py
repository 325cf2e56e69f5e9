from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.batcher.policy import MAX_ATTEMPTS, BatchingPolicy, Close, Reject, Send
from shoal.batcher.quarantine import Quarantine
from shoal.batching.fair_queue import Queued
from shoal.errors import DeadlineExceeded, Overloaded, Unavailable
from shoal.modelconfig.batching import BatchingSettings

SETTINGS = BatchingSettings(max_batch_size=8, preferred_batch_size=(4, 8), max_queue_delay_microseconds=10_000)


@dataclass
class Bench:
    """Drives a policy under virtual time and keeps what became of each request."""

    settings: BatchingSettings = SETTINGS
    now: float = 0.0
    batches: dict[str, list[Queued]] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    closed_at: dict[str, float] = field(default_factory=dict)
    rejected: list[Reject] = field(default_factory=list)
    withdrawn: set[int] = field(default_factory=set)
    answered: list[Queued] = field(default_factory=list)
    workers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy: BatchingPolicy[str, Queued] = BatchingPolicy(self.settings)

    def do(self, decisions: list) -> None:
        for decision in decisions:
            match decision:
                case Send(stream, requests):
                    assert stream not in self.closed
                    self.batches.setdefault(stream, []).extend(requests)
                case Close(stream, size, reason):
                    assert size == len(self.batches[stream])
                    self.closed[stream] = reason
                    self.closed_at[stream] = self.now
                case Reject():
                    self.rejected.append(decision)

    def arrive(self, count: int = 1, owner: str = "a", timeout: float = math.inf) -> list[Queued]:
        requests = [Queued(owner, self.now, self.now + timeout) for _ in range(count)]
        self.do(self.policy.arrived(self.now, requests))
        return requests

    def permit(self, stream: str, worker: str = "") -> None:
        self.do(self.policy.permitted(self.now, stream, worker))

    def lose(self, stream: str, *, begun: bool = True) -> None:
        waiting = [request for request in self.batches.pop(stream, []) if id(request) not in self.withdrawn]
        self.closed.pop(stream, None)
        self.do(self.policy.lost(self.now, stream, *((waiting, []) if begun else ([], waiting))))

    def settle(self, stream: str) -> None:
        """Everything on the stream is answered."""
        self.answered += self.batches.pop(stream)
        self.closed.pop(stream)
        self.policy.executed(self.now, stream)
        self.do(self.policy.settled(self.now, stream))

    def withdraw(self, request: Queued) -> None:
        self.withdrawn.add(id(request))
        self.do(self.policy.withdrawn(self.now, [request]))

    def execute(self, stream: str) -> None:
        self.policy.executed(self.now, stream)
        self.do(self.policy.lost(self.now, stream, []))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.policy.wake_at <= end:
            self.now = max(self.now, self.policy.wake_at)
            self.do(self.policy.tick(self.now))
        self.now = end


def test_a_batch_closes_at_the_first_preferred_size_that_arrivals_reach() -> None:
    bench = Bench()
    bench.permit("s")
    bench.arrive(3)
    assert "s" not in bench.closed
    bench.arrive(1)
    assert bench.closed == {"s": "preferred"}
    assert len(bench.batches["s"]) == 4


def test_a_backlog_goes_in_the_largest_preferred_size_that_fits() -> None:
    bench = Bench()
    bench.arrive(13)
    bench.permit("one")
    bench.permit("two")
    assert {name: len(batch) for name, batch in bench.batches.items()} == {"one": 8, "two": 4}
    assert bench.policy.queued == 1


def test_items_are_sent_as_they_arrive_and_the_oldest_closes_the_batch() -> None:
    bench = Bench()
    bench.permit("s")
    bench.arrive(1)
    assert len(bench.batches["s"]) == 1
    bench.pass_time(0.004)
    bench.arrive(1)
    assert bench.policy.wake_at == pytest.approx(0.010)
    bench.pass_time(0.007)
    assert bench.closed == {"s": "delay"}
    assert len(bench.batches["s"]) == 2


def test_without_a_delay_a_permit_takes_what_is_there() -> None:
    bench = Bench(BatchingSettings(max_batch_size=8))
    bench.permit("one")
    bench.arrive(1)
    assert bench.closed == {"one": "delay"}
    bench.arrive(3)
    bench.permit("two")
    assert len(bench.batches["two"]) == 3


def test_without_a_permit_the_queue_grows_past_the_delay_and_goes_at_once_with_one() -> None:
    bench = Bench()
    bench.arrive(2)
    bench.pass_time(5)
    assert bench.batches == {}
    bench.permit("s")
    assert bench.closed == {"s": "delay"}


def test_a_full_queue_refuses_the_newcomer_of_its_only_owner() -> None:
    bench = Bench(BatchingSettings(max_queue_size=2))
    requests = bench.arrive(3)
    assert [rejection.request for rejection in bench.rejected] == [requests[2]]
    assert isinstance(bench.rejected[0].error, Overloaded)


def test_a_full_queue_makes_room_at_the_cost_of_whoever_has_most_in_it() -> None:
    bench = Bench(BatchingSettings(max_queue_size=3))
    heavy = bench.arrive(3, owner="heavy")
    bench.arrive(1, owner="light")
    assert [rejection.request for rejection in bench.rejected] == [heavy[2]]


def test_owners_take_turns_in_a_batch() -> None:
    bench = Bench()
    bench.arrive(20, owner="heavy")
    bench.arrive(2, owner="light")
    bench.permit("s")
    assert Counter(request.owner for request in bench.batches["s"]) == {"heavy": 6, "light": 2}


def test_an_expired_entry_is_refused_before_it_costs_anything() -> None:
    bench = Bench()
    late, *_ = bench.arrive(1, timeout=0.001)
    bench.pass_time(0.002)
    bench.arrive(1)
    bench.permit("s")
    assert [(r.request, type(r.error)) for r in bench.rejected] == [(late, DeadlineExceeded)]
    assert len(bench.batches["s"]) == 1


def test_what_no_worker_began_goes_to_the_head_of_the_queue_and_travels_in_company() -> None:
    bench = Bench()
    first = bench.arrive(4)
    bench.permit("s")
    bench.arrive(4)
    bench.lose("s", begun=False)
    bench.permit("t")
    assert bench.batches["t"][:4] == first
    assert len(bench.batches["t"]) == 8
    assert all(request.attempts == 0 for request in first)


def test_mates_of_a_request_that_kills_workers_pay_once_and_it_alone_is_given_up() -> None:
    bench = Bench()
    bench.permit("s")
    requests = bench.arrive(4)
    poison = requests[2]
    bench.lose("s")
    for n in range(4):
        bench.permit(f"alone{n}")
        (request,) = bench.batches[f"alone{n}"]
        assert bench.closed[f"alone{n}"] == "alone"
        (bench.lose if request is poison else bench.settle)(f"alone{n}")
    assert bench.answered == [request for request in requests if request is not poison]
    assert [(r.request, type(r.error)) for r in bench.rejected] == [(poison, Unavailable)]
    assert "tried again alone" in str(bench.rejected[0].error)
    assert bench.policy.queued == 0


def test_one_suspect_a_worker_so_that_none_pays_for_another() -> None:
    bench = Bench()
    bench.permit("s", "one")
    first, second, third, fourth = bench.arrive(4)
    bench.lose("s")
    for stream, worker in (("a", "one"), ("b", "one"), ("c", "two"), ("d", "two")):
        bench.permit(stream, worker)
    assert bench.batches == {"a": [first], "c": [second]}
    bench.settle("a")
    assert bench.batches == {"b": [third], "c": [second]}
    bench.lose("c")
    assert bench.batches == {"b": [third], "d": [fourth]}
    assert [rejection.request for rejection in bench.rejected] == [second]


def test_queues_that_lead_to_the_same_workers_share_a_quarantine() -> None:
    freed: list[None] = []
    quarantine = Quarantine(lambda: freed.append(None))
    one, other = Bench(), Bench()
    one.policy, other.policy = (BatchingPolicy(SETTINGS, quarantine) for _ in range(2))
    for bench, name in ((one, "one"), (other, "other")):
        bench.permit(f"{name}-broken", "w")
        bench.arrive(1)
        bench.lose(f"{name}-broken")
    one.permit("one-alone", "w")
    other.permit("other-alone", "w")
    assert (list(one.batches), list(other.batches)) == (["one-alone"], [])
    freed.clear()
    one.settle("one-alone")
    assert len(freed) == 1
    other.do(other.policy.tick(other.now))
    assert list(other.batches) == ["other-alone"]


def test_suspects_and_full_batches_take_turns_where_permits_are_scarce() -> None:
    bench = Bench(BatchingSettings(max_batch_size=4))
    bench.permit("s")
    bench.arrive(1)
    bench.arrive(3)
    bench.permit("broken")
    suspects = [*bench.batches["s"], *bench.batches["broken"]]
    bench.lose("s")
    bench.lose("broken")
    bench.arrive(16)
    sizes = []
    for n in range(8):
        bench.permit(f"t{n}")
        sizes.append(len(bench.batches[f"t{n}"]))
        bench.settle(f"t{n}")
    assert sizes == [1, 4] * 4
    assert [request for request in bench.answered if request.attempts] == suspects


def test_nobody_joins_a_suspect() -> None:
    bench = Bench()
    bench.permit("s")
    bench.arrive(1)
    bench.lose("s")
    bench.permit("alone")
    bench.arrive(3)
    assert len(bench.batches["alone"]) == 1
    assert bench.policy.queued == 3


def test_a_suspect_whose_deadline_passes_or_whose_caller_leaves_is_not_sent_again() -> None:
    bench = Bench()
    bench.permit("s")
    (late,), (gone,), (stays,) = (bench.arrive(1, timeout=timeout) for timeout in (0.005, 1, 1))
    bench.lose("s")
    bench.withdraw(gone)
    bench.pass_time(0.006)
    bench.permit("t")
    assert bench.batches["t"] == [stays]
    assert [(r.request, type(r.error)) for r in bench.rejected] == [(late, DeadlineExceeded)]


def test_owners_of_suspects_take_turns() -> None:
    bench = Bench()
    bench.arrive(7, owner="heavy")
    bench.arrive(1, owner="light")
    bench.permit("s")
    bench.lose("s")
    for n in range(2):
        bench.permit(f"t{n}")
        bench.settle(f"t{n}")
    assert [request.owner for request in bench.answered] == ["heavy", "light"]


def test_a_suspect_that_no_worker_began_is_tried_again() -> None:
    bench = Bench()
    bench.permit("s")
    (request,) = bench.arrive(1)
    bench.lose("s")
    for n in range(5):
        bench.permit(f"t{n}")
        bench.lose(f"t{n}", begun=False)
    bench.permit("u")
    assert bench.batches["u"] == [request]
    assert bench.rejected == []


def test_losing_an_open_batch_opens_the_next_on_another_permit() -> None:
    bench = Bench()
    bench.permit("s")
    bench.permit("t")
    requests = bench.arrive(2)
    bench.lose("s", begun=False)
    assert bench.batches == {"t": requests}


def test_a_withdrawn_entry_is_never_sent() -> None:
    bench = Bench()
    gone, stays = bench.arrive(2)
    bench.withdraw(gone)
    bench.pass_time(1)
    bench.permit("s")
    assert bench.batches["s"] == [stays]


def test_draining_closes_the_open_batch_and_waits_for_no_company() -> None:
    bench = Bench()
    bench.permit("s")
    bench.permit("t")
    bench.arrive(1)
    bench.do(bench.policy.drain(bench.now))
    bench.arrive(1)
    assert bench.closed == {"s": "drain", "t": "drain"}


def test_new_settings_hold_from_the_next_decision_on() -> None:
    bench = Bench(BatchingSettings())
    bench.policy.configure(SETTINGS)
    bench.permit("s")
    bench.arrive(3)
    assert bench.closed == {}


def learned(seconds: float, bench: Bench | None = None) -> Bench:
    """A bench whose batches took ``seconds``, whatever their size."""
    bench = bench or Bench()
    for turn in range(5):
        bench.permit(f"learn{turn}")
        bench.arrive(4)
        bench.pass_time(seconds)
        bench.execute(f"learn{turn}")
    return bench


def test_a_batch_closes_early_when_waiting_would_miss_its_tightest_deadline() -> None:
    bench = learned(0.050)
    bench.permit("s")
    start = bench.now
    bench.arrive(1, timeout=0.055)
    assert "s" not in bench.closed
    bench.pass_time(1)
    assert bench.closed["s"] == "deadline"
    assert bench.closed_at["s"] == pytest.approx(start + 0.005)


def test_a_deadline_that_is_far_away_closes_nothing_early() -> None:
    bench = learned(0.050)
    bench.permit("s")
    start = bench.now
    bench.arrive(1, timeout=1)
    bench.pass_time(1)
    assert (bench.closed["s"], bench.closed_at["s"]) == ("delay", pytest.approx(start + 0.010))


def test_what_can_not_be_served_in_time_is_refused_at_once_and_told_when_to_come_again() -> None:
    bench = learned(0.100)
    bench.permit("busy")
    bench.arrive(4)
    bench.arrive(8)
    (request,) = bench.arrive(1, timeout=0.250)
    (rejection,) = bench.rejected
    assert rejection.request is request
    assert isinstance(rejection.error, Overloaded)
    assert rejection.error.retry_after_seconds == pytest.approx(0.05 + 0.200 + 0.100, rel=0.01), "8 cost twice as much"
    assert bench.policy.queued == 8
    bench.arrive(1, timeout=0.350)
    assert bench.policy.queued == 9


def test_a_light_owner_is_not_refused_for_a_heavy_ones_backlog() -> None:
    bench = learned(0.100)
    bench.permit("busy")
    bench.arrive(4, owner="heavy")
    bench.arrive(40, owner="heavy")
    bench.arrive(1, owner="light", timeout=0.250)
    assert bench.rejected == []


def test_a_batch_of_stragglers_is_no_work_ahead_and_teaches_nothing() -> None:
    bench = Bench()
    bench.permit("s")
    bench.arrive(4)
    bench.policy.stalled(bench.now, "s")
    bench.pass_time(5.0)
    bench.execute("s")
    bench.permit("t")
    bench.arrive(4)
    bench.arrive(1, timeout=1.0)
    assert bench.rejected == []


def test_an_idle_service_refuses_nothing_however_slow_it_was() -> None:
    bench = learned(10.0)
    bench.permit("s")
    bench.arrive(1, timeout=0.001)
    assert bench.rejected == []
    assert bench.closed["s"] == "deadline"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from("abc"), st.one_of(st.just(math.inf), st.floats(0.001, 0.1))),
        st.tuples(st.just("permit"), st.sampled_from(["", "w1", "w2"])),
        st.tuples(st.sampled_from(["lose", "refuse"]), st.integers(0, 5)),
        st.tuples(st.just("execute"), st.integers(0, 5)),
        st.tuples(st.just("withdraw"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.floats(0.0001, 0.02)),
    ),
    max_size=120,
)


def play(bench: Bench, events: list[tuple[Any, ...]]) -> tuple[list[Queued], int]:
    """Runs the events; returns the requests and the number of streams."""
    requests: list[Queued] = []
    streams = 0
    for event in events:
        match event:
            case ("arrive", owner, timeout):
                requests += bench.arrive(1, owner, timeout)
            case ("permit", worker):
                bench.workers[f"s{streams}"] = worker
                bench.permit(f"s{streams}", worker)
                streams += 1
            case ("refuse", index) if index < streams:
                bench.lose(f"s{streams - 1 - index}", begun=False)
            case ("lose", index) if index < streams:
                bench.lose(f"s{streams - 1 - index}")
            case ("execute", index) if f"s{streams - 1 - index}" in bench.closed:
                bench.settle(f"s{streams - 1 - index}")
            case ("withdraw", index) if index < len(requests):
                bench.withdraw(requests[index])
            case ("wait", seconds):
                bench.pass_time(seconds)
    return requests, streams


ANY_SETTINGS = st.builds(
    BatchingSettings,
    max_batch_size=st.just(8),
    preferred_batch_size=st.sampled_from([(), (4,), (4, 8), (2, 3)]),
    max_queue_delay_microseconds=st.sampled_from([0, 1_000, 10_000]),
    max_queue_size=st.just(20),
)


@given(EVENTS, ANY_SETTINGS)
@settings(max_examples=150)
def test_no_entry_is_lost_or_doubled(events: list[tuple[Any, ...]], chosen: BatchingSettings) -> None:
    bench = Bench(chosen)
    requests, streams = play(bench, events)
    sent = Counter(id(request) for batch in (*bench.batches.values(), bench.answered) for request in batch)
    rejected = Counter(id(rejection.request) for rejection in bench.rejected)
    assert all(count == 1 for count in (sent + rejected).values())
    out = set(sent) | set(rejected) | bench.withdrawn
    assert sum(id(request) not in out for request in requests) == bench.policy.queued
    assert bench.policy.queued <= 20 + 8 * streams
    assert not (bench.policy.idle_permits and bench.policy.queued > bench.policy.suspects)


@given(EVENTS, ANY_SETTINGS)
@settings(max_examples=150)
def test_suspects_travel_alone_one_a_worker_and_break_no_third_stream(
    events: list[tuple[Any, ...]], chosen: BatchingSettings
) -> None:
    bench = Bench(chosen)
    requests, _ = play(bench, events)
    at = Counter()
    for stream, batch in bench.batches.items():
        if any(request.attempts for request in batch):
            assert len(batch) == 1
            assert bench.closed[stream] == "alone"
            at[bench.workers[stream]] += 1
    assert all(count == 1 for count in at.values())
    assert all(request.attempts <= MAX_ATTEMPTS for request in requests)
    given_up = [r.request for r in bench.rejected if isinstance(r.error, Unavailable)]
    assert {id(request) for request in given_up} == {
        id(request) for request in requests if request.attempts == MAX_ATTEMPTS
    }


@given(EVENTS, ANY_SETTINGS)
@settings(max_examples=150)
def test_size_and_delay_hold_in_any_order_of_events(events: list[tuple[Any, ...]], chosen: BatchingSettings) -> None:
    bench = Bench(chosen)
    play(bench, events)
    delay = chosen.max_queue_delay_microseconds / 1e6
    for stream, batch in bench.batches.items():
        assert 1 <= len(batch) <= 8
        if bench.closed.get(stream) == "alone":
            continue
        if stream not in bench.closed:
            assert bench.now < min(request.arrived for request in batch) + delay
        elif bench.closed[stream] == "preferred":
            assert len(batch) in (chosen.preferred_batch_size or (8,))
