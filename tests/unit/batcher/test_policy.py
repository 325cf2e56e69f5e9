from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.batcher.policy import MAX_ATTEMPTS, BatchingPolicy, Close, Reject, Send
from shoal.batcher.queue import Entry
from shoal.batching.settings import BatchingSettings
from shoal.errors import DeadlineExceeded, Overloaded, Unavailable

SETTINGS = BatchingSettings(max_batch_size=8, preferred_batch_size=(4, 8), max_queue_delay_microseconds=10_000)


@dataclass
class Bench:
    """Drives a policy under virtual time and keeps what became of each entry."""

    settings: BatchingSettings = SETTINGS
    now: float = 0.0
    batches: dict[str, list[Entry]] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    closed_at: dict[str, float] = field(default_factory=dict)
    rejected: list[Reject] = field(default_factory=list)
    withdrawn: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.policy: BatchingPolicy[str, Entry] = BatchingPolicy(self.settings)

    def do(self, decisions: list) -> None:
        for decision in decisions:
            match decision:
                case Send(stream, entries):
                    assert stream not in self.closed
                    self.batches.setdefault(stream, []).extend(entries)
                case Close(stream, size, reason):
                    assert size == len(self.batches[stream])
                    self.closed[stream] = reason
                    self.closed_at[stream] = self.now
                case Reject():
                    self.rejected.append(decision)

    def arrive(self, count: int = 1, owner: str = "a", timeout: float = math.inf) -> list[Entry]:
        entries = [Entry(owner, self.now, self.now + timeout) for _ in range(count)]
        for entry in entries:
            self.do(self.policy.arrived(self.now, entry))
        return entries

    def permit(self, stream: str) -> None:
        self.do(self.policy.permitted(self.now, stream))

    def lose(self, stream: str) -> None:
        waiting = [entry for entry in self.batches.pop(stream, []) if id(entry) not in self.withdrawn]
        self.do(self.policy.lost(self.now, stream, waiting))
        self.closed.pop(stream, None)

    def withdraw(self, entry: Entry) -> None:
        self.withdrawn.add(id(entry))
        self.do(self.policy.withdrawn(self.now, entry))

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
    entries = bench.arrive(3)
    assert [rejection.entry for rejection in bench.rejected] == [entries[2]]
    assert isinstance(bench.rejected[0].error, Overloaded)


def test_a_full_queue_makes_room_at_the_cost_of_whoever_has_most_in_it() -> None:
    bench = Bench(BatchingSettings(max_queue_size=3))
    heavy = bench.arrive(3, owner="heavy")
    bench.arrive(1, owner="light")
    assert [rejection.entry for rejection in bench.rejected] == [heavy[2]]


def test_owners_take_turns_in_a_batch() -> None:
    bench = Bench()
    bench.arrive(20, owner="heavy")
    bench.arrive(2, owner="light")
    bench.permit("s")
    assert Counter(entry.owner for entry in bench.batches["s"]) == {"heavy": 6, "light": 2}


def test_an_expired_entry_is_refused_before_it_costs_anything() -> None:
    bench = Bench()
    late, *_ = bench.arrive(1, timeout=0.001)
    bench.pass_time(0.002)
    bench.arrive(1)
    bench.permit("s")
    assert [(r.entry, type(r.error)) for r in bench.rejected] == [(late, DeadlineExceeded)]
    assert len(bench.batches["s"]) == 1


def test_a_lost_stream_gives_its_entries_back_in_order_and_they_go_first() -> None:
    bench = Bench()
    first = bench.arrive(4)
    bench.permit("s")
    bench.arrive(4)
    bench.lose("s")
    bench.permit("t")
    assert bench.batches["t"][:4] == first
    assert all(entry.attempts == 1 for entry in first)


def test_an_entry_that_kills_its_streams_is_given_up() -> None:
    bench = Bench(BatchingSettings())
    entry, *_ = bench.arrive(1)
    for attempt in range(MAX_ATTEMPTS):
        bench.permit(f"s{attempt}")
        bench.lose(f"s{attempt}")
    assert [(r.entry, type(r.error)) for r in bench.rejected] == [(entry, Unavailable)]
    assert bench.policy.queued == 0


def test_losing_an_open_batch_opens_the_next_on_another_permit() -> None:
    bench = Bench()
    bench.permit("s")
    bench.permit("t")
    entries = bench.arrive(2)
    bench.lose("s")
    assert bench.batches == {"t": entries}


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
    (entry,) = bench.arrive(1, timeout=0.250)
    (rejection,) = bench.rejected
    assert rejection.entry is entry
    assert isinstance(rejection.error, Overloaded)
    assert rejection.error.retry_after_seconds == pytest.approx(0.300, rel=0.01)
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
    bench.policy.set_aside("s")
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
        st.tuples(st.just("permit")),
        st.tuples(st.just("lose"), st.integers(0, 5)),
        st.tuples(st.just("execute"), st.integers(0, 5)),
        st.tuples(st.just("withdraw"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.floats(0.0001, 0.02)),
    ),
    max_size=120,
)


def play(bench: Bench, events: list[tuple[Any, ...]]) -> tuple[list[Entry], int]:
    """Runs the events; returns the entries and the number of streams."""
    entries: list[Entry] = []
    streams = 0
    for event in events:
        match event:
            case ("arrive", owner, timeout):
                entries += bench.arrive(1, owner, timeout)
            case ("permit",):
                bench.permit(f"s{streams}")
                streams += 1
            case ("lose", index) if index < streams:
                bench.lose(f"s{streams - 1 - index}")
            case ("execute", index) if f"s{streams - 1 - index}" in bench.closed:
                bench.execute(f"s{streams - 1 - index}")
            case ("withdraw", index) if index < len(entries):
                bench.withdraw(entries[index])
            case ("wait", seconds):
                bench.pass_time(seconds)
    return entries, streams


ANY_SETTINGS = st.builds(
    BatchingSettings,
    max_batch_size=st.just(8),
    preferred_batch_size=st.sampled_from([(), (4,), (4, 8), (2, 3)]),
    max_queue_delay_microseconds=st.sampled_from([0, 1_000, 10_000]),
    max_queue_size=st.just(20),
)


@given(EVENTS, ANY_SETTINGS)
@settings(max_examples=150, deadline=None)
def test_no_entry_is_lost_or_doubled(events: list[tuple[Any, ...]], chosen: BatchingSettings) -> None:
    bench = Bench(chosen)
    entries, streams = play(bench, events)
    sent = Counter(id(entry) for batch in bench.batches.values() for entry in batch)
    rejected = Counter(id(rejection.entry) for rejection in bench.rejected)
    assert all(count == 1 for count in (sent + rejected).values())
    out = set(sent) | set(rejected) | bench.withdrawn
    assert sum(id(entry) not in out for entry in entries) == bench.policy.queued
    assert bench.policy.queued <= 20 + 8 * streams
    assert not (bench.policy.idle_permits and bench.policy.queued)


@given(EVENTS, ANY_SETTINGS)
@settings(max_examples=150, deadline=None)
def test_size_and_delay_hold_in_any_order_of_events(events: list[tuple[Any, ...]], chosen: BatchingSettings) -> None:
    bench = Bench(chosen)
    play(bench, events)
    delay = chosen.max_queue_delay_microseconds / 1e6
    for stream, batch in bench.batches.items():
        assert 1 <= len(batch) <= 8
        if stream not in bench.closed:
            assert bench.now < min(entry.arrived for entry in batch) + delay
        elif bench.closed[stream] == "preferred":
            assert len(batch) in (chosen.preferred_batch_size or (8,))
