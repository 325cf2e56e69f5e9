"""Fuzzes the worker's decoding: ``fuzz_pictures.py [--first N] [--count N] [--out FOLDER]``.

What a worker decodes in its own process is decoded here in one process after the other, many pictures each, as there.
Of the rest, which have a process each in a worker, every fifth picture goes through the worker's own pool of decoders;
forks would be most of the time if all did, so the others share processes, too, under the same default limits.

Prints a table, and writes what broke something: an input that ended its decoder, an exception that isn't the caller's
to hear, or over 2 s of CPU or 500 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from hostile_pictures import Maker

from shoal.errors import InvalidRequest
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, Task, Tensor
from shoal.pictures.danger import is_quick, least_bytes
from shoal.pictures.decode import Decoder
from shoal.service.spec import Pool
from shoal.worker.decoders import decoder_process
from shoal.worker.decoders.decoder_pool import DecoderPool, Limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SECONDS: Final = 2.0
MOST_BYTES: Final = 500_000_000
_TOGETHER: Final = 200
"""Quick pictures that are decoded in one process."""
_ONE: Final = struct.Struct("!dQc")
_APART_EVERY: Final = 5
HERE: Final = "the worker's process"
IN_A_ROW: Final = "decoders, in a row"
APART: Final = "decoders, each its own"


class Input(NamedTuple):
    """A picture to try."""

    seed: int
    kind: str
    data: bytes


@dataclass(slots=True)
class Row:
    """What became of the pictures of one kind and way."""

    inputs: int = 0
    decoded: int = 0
    refused: int = 0
    over: int = 0
    """Refused for their memory or CPU time."""
    crashes: int = 0
    faults: int = 0
    """Exceptions that aren't the caller's to hear."""
    seconds: float = 0.0
    """The slowest one's, of CPU."""
    slowest: int = -1
    memory: int = 0
    largest: int = -1

    def count(self, seed: int, outcome: str, seconds: float, memory: int) -> None:
        """One more."""
        self.inputs += 1
        setattr(self, outcome, getattr(self, outcome) + 1)
        if seconds > self.seconds:
            self.seconds, self.slowest = seconds, seed
        if memory > self.memory:
            self.memory, self.largest = memory, seed


@dataclass(slots=True)
class Findings:
    """All of it."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Seeds, and what they did."""

    def count(self, key: tuple[str, str], seed: int, outcome: str, seconds: float, memory: int) -> None:
        """One picture. ``key``: kind and way."""
        self.rows.setdefault(key, Row()).count(seed, outcome, seconds, memory)
        if outcome in {"crashes", "faults"} or seconds > MOST_SECONDS or memory > MOST_BYTES:
            self.bad.append((seed, f"{outcome}, {seconds:.2f} s, {memory:,} bytes"))

    def table(self, seconds: float) -> str:
        """In Markdown."""
        head = ("kind", "decoded in", "inputs", "decoded", "refused", "over a limit", "crashes", "faults")
        lines = [
            "| " + " | ".join((*head, "most CPU (seed)", "most memory (seed)")) + " |",
            "|" + "---|" * (len(head) + 2),
        ]
        for (kind, way), row in sorted(self.rows.items()):
            counts = (row.inputs, row.decoded, row.refused, row.over, row.crashes, row.faults)
            told = (*(f"{count:,}" for count in counts), f"{row.seconds:.2f} s ({row.slowest})")
            lines.append(f"| {kind} | {way} | {' | '.join(told)} | {row.memory / 1e6:.0f} MB ({row.largest}) |")
        inputs = sum(row.inputs for row in self.rows.values())
        return "\n".join([*lines, "", f"{inputs:,} inputs in {seconds:,.0f} s; {len(self.bad)} broke something"])


def decoders() -> list[Decoder]:
    """Every way to resize, and the float input."""
    limits = Pool()
    made = []
    for resize, dtype, shape in (
        (Resize.STRETCH, "uint8", (64, 64, 3)),
        (Resize.CROP, "uint8", (224, 224, 3)),
        (Resize.LETTERBOX, "uint8", (320, 320, 3)),
        (Resize.CROP, "float32", (3, 32, 32)),
    ):
        config = ModelConfig(
            name="fuzzed",
            version=1,
            path=Path("model.onnx"),
            task=Task.CLASSIFICATION,
            input=Tensor("image", dtype, shape),
            outputs=(Tensor("logits", "float32", (3,)),),
            batching=BatchingSettings(),
            resize=resize,
            resize_shorter_side=256 if resize is Resize.CROP else 0,
        )
        made.append(Decoder(config, max_pixels=limits.max_image_pixels, max_scans=limits.max_image_scans))
    return made


async def fuzz(first: int, count: int, findings: Findings, pool: DecoderPool) -> None:
    """Pictures of the seeds from ``first`` on."""
    maker, ways = Maker(), decoders()
    waiting: dict[str, list[Input]] = {HERE: [], IN_A_ROW: []}
    for seed in range(first, first + count):
        made = Input(seed, *maker.make(seed))
        decoder = ways[seed % len(ways)]
        began = process_time()
        try:
            header = decoder.read_header(made.data)
        except Exception as error:
            outcome = "refused" if isinstance(error, InvalidRequest) else "faults"
            findings.count((made.kind, "its header"), seed, outcome, process_time() - began, 0)
            continue
        if is_quick(header, len(made.data)):
            waiting[HERE].append(made)
        elif seed % _APART_EVERY:
            waiting[IN_A_ROW].append(made)
        else:
            await _apart(findings, pool, decoder, made)
        for way, inputs in waiting.items():
            if len(inputs) == _TOGETHER:
                _together(findings, ways, way, inputs)
    for way, inputs in waiting.items():
        _together(findings, ways, way, inputs)


async def _apart(findings: Findings, pool: DecoderPool, decoder: Decoder, made: Input) -> None:
    seed, kind, data = made
    outcome = "decoded"
    try:
        await pool.decode("fuzzer", decoder, data)
    except Exception as error:
        report = pool.latest
        limited = report is not None and (
            report.said == decoder_process.NO_MEMORY or -os.waitstatus_to_exitcode(report.status) == signal.SIGPROF
        )
        crashed = report is not None and not report.said and not limited
        kinds = (("over", limited), ("crashes", crashed), ("refused", isinstance(error, InvalidRequest)))
        outcome = next((name for name, fits in kinds if fits), "faults")
    report = pool.latest
    used = (report.cpu_seconds, report.memory_bytes) if report is not None else (0.0, 0)
    findings.count((kind, APART), seed, outcome, *used)


def _together(findings: Findings, ways: list[Decoder], way: str, inputs: list[Input]) -> None:
    """Decodes and removes ``inputs``, in one process, or as many as it takes."""
    while inputs:
        done = _run(findings, ways, way, inputs)
        del inputs[:done]


def _run(findings: Findings, ways: list[Decoder], way: str, inputs: list[Input]) -> int:
    """How many a process got through, including one that ended it."""
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        _decode_all(ways, way, inputs, write)
    os.close(write)
    done = 0
    with os.fdopen(read, "rb") as told:
        while len(message := told.read(_ONE.size)) == _ONE.size:
            seconds, memory, outcome = _ONE.unpack(message)
            name = {b"d": "decoded", b"r": "refused", b"m": "over"}.get(outcome, "faults")
            findings.count((inputs[done].kind, way), inputs[done].seed, name, seconds, memory)
            done += 1
    _, status, usage = os.wait4(child, 0)
    if done < len(inputs):
        over = os.waitstatus_to_exitcode(status) == -signal.SIGPROF
        limit = Pool().max_decode_cpu_seconds if over else 0.0
        name = "over" if over and way != HERE else "crashes"
        findings.count((inputs[done].kind, way), inputs[done].seed, name, limit, usage.ru_maxrss * 1024)
        done += 1
    return done


def _decode_all(ways: list[Decoder], way: str, inputs: list[Input], write: int) -> None:
    limits = Pool()
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        if way != HERE:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
            most = pages * resource.getpagesize() + limits.max_decode_memory_bytes
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        inherited = _most_bytes()
        for seed, _, data in inputs:
            signal.setitimer(signal.ITIMER_PROF, limits.max_decode_cpu_seconds)
            decoder = ways[seed % len(ways)]
            row = np.zeros(decoder.input.shape, decoder.input.dtype)
            began, outcome = process_time(), b"d"
            try:
                _decode(decoder, way, data, row)
            except InvalidRequest:
                outcome = b"r"
            except (MemoryError, cv2.error):
                outcome = b"m"
            except Exception:
                outcome = b"f"
            os.write(write, _ONE.pack(process_time() - began, _most_bytes() - inherited, outcome))
    finally:
        os._exit(0)


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _decode(decoder: Decoder, way: str, data: bytes, row: NDArray[Any]) -> None:
    if way == HERE:
        decoder.decode_if_quick(data, [lambda: row], [None])
    elif least_bytes(decoder.read_header(data)) > Pool().max_decode_memory_bytes:
        raise MemoryError
    else:
        decoder.decode(data, row)


def pool_of_workers() -> DecoderPool:
    """With a worker's default limits."""
    limits = Pool()
    return DecoderPool(1, Limits(limits.max_decode_cpu_seconds, limits.max_decode_memory_bytes))


async def run(first: int, count: int) -> Findings:
    """Fuzzes, and closes what it opened."""
    findings, pool = Findings(), pool_of_workers()
    pool.start()
    try:
        await fuzz(first, count, findings, pool)
    finally:
        await pool.close()
    return findings


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="where inputs go that broke something")
    options = parser.parse_args()
    began = perf_counter()
    findings = asyncio.run(run(options.first, options.count))
    print(findings.table(perf_counter() - began))
    maker = Maker()
    for seed, what in findings.bad:
        made = maker.make(seed)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{seed}.{made.kind.lower()}").write_bytes(made.data)
        print(f"seed {seed}: {what}")
    sys.exit(bool(findings.bad))


if __name__ == "__main__":
    main()
