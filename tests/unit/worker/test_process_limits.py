from __future__ import annotations

from shoal.service.spec import Pool
from shoal.worker.process_limits import ProcessLimits


def test_one_process_has_what_the_pool_says() -> None:
    assert ProcessLimits.of(Pool(), cores=3) == ProcessLimits(3, 3, 64, 256 * 2**20, 64 * 2**20)
    assert ProcessLimits.of(Pool(), cores=16).decode_processes == 4
    given = Pool(
        decode_threads=8, decode_processes=6, fetch_concurrency=5, max_fetched_bytes=2**21, picture_cache_bytes=0
    )
    assert ProcessLimits.of(given, cores=2) == ProcessLimits(8, 6, 5, 2**21, 0)


def test_several_share_it_and_each_has_something() -> None:
    two = Pool(engine="triton", worker_processes=2)
    assert ProcessLimits.of(two, cores=16) == ProcessLimits(8, 2, 32, 128 * 2**20, 32 * 2**20)
    assert ProcessLimits.of(two, cores=1) == ProcessLimits(1, 1, 32, 128 * 2**20, 32 * 2**20)
    three = Pool(engine="triton", worker_processes=3, decode_threads=4, fetch_concurrency=2, max_fetched_bytes=10**7)
    assert ProcessLimits.of(three, cores=16) == ProcessLimits(2, 2, 1, 3_333_333, 22_369_621)
