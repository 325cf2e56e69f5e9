from __future__ import annotations

from dataclasses import dataclass
from threading import Thread

from shoal.explain.recent import Recent


@dataclass
class Record:
    arrived: float


def test_the_newest_come_first_and_the_oldest_are_forgotten() -> None:
    recent: Recent[Record] = Recent(3)
    records = [Record(n) for n in range(5)]
    for record in records:
        recent.add(record)
    assert recent.newest_first() == [records[4], records[3], records[2]]


def test_bytes_are_bounded_too() -> None:
    recent: Recent[Record] = Recent(100, max_bytes=10)
    for n, size in enumerate((4, 4, 4, 1)):
        recent.add(Record(n), size)
    assert [record.arrived for record in recent.newest_first()] == [3, 2, 1]
    recent.add(Record(9), 11)
    assert recent.newest_first() == []
    recent.add(Record(10), 10)
    assert [record.arrived for record in recent.newest_first()] == [10]


def test_it_says_how_far_back_it_goes() -> None:
    recent: Recent[Record] = Recent(2)
    assert recent.memory(5.0).model_dump() == {"requests": 0, "limit": 2, "seconds": None}
    for n in range(3):
        recent.add(Record(n))
    assert recent.memory(5.0).model_dump() == {"requests": 2, "limit": 2, "seconds": 4.0}


def test_a_limit_of_none_keeps_none() -> None:
    recent: Recent[Record] = Recent(0)
    recent.add(Record(1.0), 5)
    assert recent.newest_first() == []


def test_another_thread_may_look_while_records_come() -> None:
    recent: Recent[Record] = Recent(500)
    over = False
    looks: list[int] = []

    def look() -> None:
        while not over:
            found = [record.arrived for record in recent.newest_first()]
            assert found == sorted(found, reverse=True)
            looks.append(len(found))

    thread = Thread(target=look)
    thread.start()
    n = 0
    while len(looks) < 20 or n < 10_000:
        recent.add(Record(n := n + 1))
    over = True
    thread.join()
    assert max(looks) <= 501
