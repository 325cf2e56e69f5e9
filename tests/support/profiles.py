"""Parts of profiles."""

from __future__ import annotations

from typing import Any

from shoal.profile.records import Cell, Machine, Profile, Round, Subject


def measured(rate: float, p99: float = 20.0, *, settled: bool = True) -> Round:
    return Round(
        images_per_s=rate, p50_ms=p99 / 2, p99_ms=p99, batches=200, seconds=1.0, warm_up_s=0.5, settled=settled
    )


def cell(instances: int = 1, batch: int = 8, concurrency: int = 1, *rounds: Round, **other: Any) -> Cell:
    settings = {"duration_s": 1.0, "input": "random", **other}
    return Cell(instances=instances, batch=batch, concurrency=concurrency, rounds=rounds, **settings)


def empty() -> Profile:
    return Profile(
        subject=Subject(
            model="m",
            version=1,
            engine="openvino",
            engine_version="1",
            checksum="sha256:0",
            checksum_of="model file",
        ),
        machine=Machine(cpu="a CPU", cores=2, memory_gib=8.0),
        versions={"shoal": "0"},
        date="2026-01-02T03:04:05+00:00",
        command="shoal profile m",
        load_average=0.5,
    )
