from __future__ import annotations

import pytest

from shoal.client.load.generator import LoadSettings
from shoal.client.load.processes import busy_generator, processes_for
from shoal.client.load.tally import LoadResult


@pytest.mark.parametrize(
    ("load", "streams", "upload", "cores", "expected"),
    [
        ({"concurrency": 32}, True, False, 16, 1),
        ({"concurrency": 512}, True, False, 16, 8),
        ({"concurrency": 512}, True, False, 2, 1),  # the service has to live on this machine, too
        ({"concurrency": 512}, True, False, 1, 1),
        ({"concurrency": 64}, False, False, 16, 5),
        ({"concurrency": 2}, True, True, 64, 1),
        ({"concurrency": 2}, False, True, 64, 1),
        ({"concurrency": 3}, False, True, 64, 1),
        ({"rate": 40.0}, True, False, 16, 1),
        ({"rate": 12_000.0}, True, False, 16, 3),
        ({"rate": 12_000.0}, False, False, 16, 8),
        ({"rate": 500.0}, True, True, 16, 2),
    ],
)
def test_as_many_processes_as_the_load_needs_and_the_machine_has(
    load: dict[str, float], streams: bool, upload: bool, cores: int, expected: int
) -> None:
    settings = LoadSettings(**load)
    assert processes_for(settings, streams=streams, upload=upload, cores=cores) == expected


def test_no_process_is_without_a_caller() -> None:
    for concurrency in range(1, 50):
        settings = LoadSettings(concurrency=concurrency)
        assert 1 <= processes_for(settings, streams=False, upload=True, cores=1000) <= concurrency


@pytest.mark.parametrize(
    ("cpu", "processes", "told"), [(9.0, 1, "used 0.90 cores with 1 processes"), (9.0, 2, None), (18.0, 2, "1.80")]
)
def test_a_generator_whose_cores_are_full_is_the_limit(cpu: float, processes: int, told: str | None) -> None:
    why = busy_generator(LoadResult(duration_seconds=10.0, cpu_seconds=cpu), processes, None)
    assert (why is None) if told is None else (told in str(why))


def test_nothing_measured_is_nobodys_limit() -> None:
    assert busy_generator(LoadResult(), 1, 50.0) is None
