from __future__ import annotations

from functools import partial

import pytest

from shoal.simulate.device import Device, OwnDevices, Work
from shoal.simulate.events import Events


def alone(_: int) -> float:
    return 1.0


def test_batches_that_share_a_device_go_on_at_equal_parts_of_its_speed() -> None:
    events, ends = Events(), {}
    device = Device(events)

    def begin(name: str, seconds: float) -> None:
        device.begin(Work(seconds, lambda k: 1.0 if k == 1 else 1.5, lambda: ends.setdefault(name, events.time)))

    begin("a", 4.0)
    events.at(2.0, begin, "b", 1.5)
    events.until(100.0)
    # Each goes on at 0.75 from 2 s on: b is through at 4 s, when a needs 0.5 s yet.
    assert ends == pytest.approx({"b": 4.0, "a": 4.5})
    assert device.busy() == pytest.approx(4.5)


def test_own_devices_never_meet() -> None:
    events, ends = Events(), []
    devices = OwnDevices(events)
    for seconds in (3.0, 1.0):
        devices.begin(Work(seconds, alone, partial(ends.append, seconds)))
    events.until(2.0)
    assert (ends, events.time, devices.busy()) == ([1.0], 1.0, pytest.approx(2.0))
    events.until(9.0)
    assert devices.busy() == pytest.approx(4.0)


@pytest.mark.parametrize("kind", [Device, OwnDevices])
def test_what_executes_on_a_device_that_is_gone_never_ends(kind: type[Device | OwnDevices]) -> None:
    events, ends = Events(), []
    device = kind(events)
    device.begin(Work(3.0, alone, partial(ends.append, 1)))
    events.at(1.0, device.stop)
    events.until(9.0)
    assert (ends, device.busy()) == ([], pytest.approx(1.0))


def test_events_of_one_time_happen_in_order_and_timers_may_be_taken_back() -> None:
    events, seen = Events(), []
    events.at(1.0, seen.append, "a")
    events.at(1.0, seen.append, "b")
    events.call_later(0.5, seen.append, "never").cancel()
    events.call_at(float("inf"), seen.append, "never")
    events.until(float("inf"))
    assert seen == ["a", "b"]
