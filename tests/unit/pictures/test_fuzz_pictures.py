"""A slice of ``tools/fuzz_pictures.py``, the same in each run. The tool itself runs for as long as one likes."""

from __future__ import annotations

import os

import fuzz_pictures
from hostile_pictures import Maker


async def test_hostile_pictures_break_nothing() -> None:
    findings = await fuzz_pictures.run(first=0, count=600)
    assert not findings.bad, findings.table(0)
    rows = findings.rows.values()
    assert sum(row.inputs for row in rows) == 600
    for kind in ("JPEG", "PNG", "WebP"):  # mutations that leave nothing to decode would test nothing
        assert sum(row.decoded for (of, _), row in findings.rows.items() if of == kind) > 10
        assert sum(row.refused for (of, _), row in findings.rows.items() if of == kind) > 10


def test_what_breaks_something_is_found() -> None:
    findings = fuzz_pictures.Findings()
    for seed, (outcome, seconds, memory) in enumerate(
        (("decoded", 0.1, 10**6), ("crashes", 0, 0), ("faults", 0, 0), ("decoded", 2.1, 0), ("refused", 0, 600 * 10**6))
    ):
        findings.count(("PNG", "here"), seed, outcome, seconds, memory)
    assert [seed for seed, _ in findings.bad] == [1, 2, 3, 4]
    assert "| PNG | here | 5 | 2 | 1 | 0 | 1 | 1 | 2.10 s (3) | 600 MB (4) |" in findings.table(1)


def test_a_process_that_ends_is_told_from_the_pictures_before_and_after_it() -> None:
    findings, maker = fuzz_pictures.Findings(), Maker()
    ways = fuzz_pictures.decoders()
    good = maker.valid["JPEG"][0]
    inputs = [fuzz_pictures.Input(4 * number, "JPEG", data) for number, data in enumerate((good, b"end", good))]

    def end(data: bytes, outs: object, regions: object) -> None:
        if data == b"end":
            os._exit(1)

    ways[0].decode_if_quick = end  # type: ignore[method-assign, assignment]
    fuzz_pictures._together(findings, ways, fuzz_pictures.HERE, inputs)
    (row,) = findings.rows.values()
    assert (row.decoded, row.crashes, findings.bad[0][0]) == (2, 1, 4)


def test_a_seed_makes_one_picture() -> None:
    one, other = Maker(), Maker()
    assert one.valid == other.valid
    assert [one.make(seed) for seed in range(50)] == [one.make(seed) for seed in range(50)]
