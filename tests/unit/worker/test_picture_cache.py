from __future__ import annotations

import random
import threading

import numpy as np

from shoal.worker.picture_cache import Content, PictureCache

MIB = 2**20


def content(name: str, size: int = 1000, e_tag: str = "1") -> Content:
    return Content(name, e_tag, bytes(size))


def pixels(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.zeros(size, np.uint8)


def test_keeps_what_was_put_until_another_version_comes() -> None:
    cache = PictureCache(MIB)
    old, new = content("a"), content("a", 2000, "2")
    cache.put(old)
    assert cache.get("a") is old
    cache.put(new)
    assert cache.get("a") is new
    assert cache.used_bytes == new.kept_bytes
    cache.drop("a")
    cache.drop("a")
    assert cache.get("a") is None
    assert cache.used_bytes == 0


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = PictureCache(3 * content("a").kept_bytes)
    for name in "abc":
        cache.put(content(name))
    cache.get("a")
    cache.put(content("d"))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_the_bound_holds_with_any_number_of_pictures_of_any_size() -> None:
    """Tiny ones too: an entry takes more than its bytes."""
    chance, cache = random.Random(7), PictureCache(MIB)
    for number in range(20_000):
        one = content(str(number), chance.choice([0, 1, 50, 5000, 2 * MIB]))
        cache.put(one)
        cache.keep_pixels(one, chance.choice([1, 2]), pixels(chance.choice([10, 100_000, MIB])))
        assert cache.used_bytes <= MIB
    kept = [cache.get(str(number)) for number in range(20_000)]
    assert sum(one.kept_bytes for one in kept if one) == cache.used_bytes
    assert sum(one is not None for one in kept) < 1024


def test_pixels_are_of_their_version_and_scale() -> None:
    cache, old, new = PictureCache(MIB), content("a"), content("a", e_tag="2")
    cache.put(old)
    cache.keep_pixels(old, 2, pixels(7))
    assert cache.pixels(old, 1) is None
    assert cache.pixels(old, 2) is not None
    cache.put(new)
    assert cache.pixels(old, 2) is None
    assert cache.pixels(new, 2) is None
    cache.keep_pixels(old, 2, pixels(7))  # a thread that is late
    assert cache.used_bytes == new.kept_bytes


def test_pixels_that_would_put_out_all_others_are_not_kept() -> None:
    cache, one = PictureCache(MIB), content("a")
    cache.put(one)
    cache.keep_pixels(one, 1, pixels(MIB // 2))
    assert cache.pixels(one, 1) is None
    assert cache.get("a") is one


def test_any_number_of_threads() -> None:
    cache = PictureCache(MIB)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(2000):
            one = cache.get(name := str(chance.randrange(50))) or content(name, chance.randrange(60_000))
            cache.put(one)
            cache.keep_pixels(one, 1, pixels(chance.randrange(60_000)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [cache.get(str(number)) for number in range(50)]
    assert sum(one.kept_bytes for one in kept if one) == cache.used_bytes <= MIB
