"""CPU milliseconds of a call by part: without tracing, with one call in a hundred traced, and with all.

python -m benchmarks.observing.traces [--rounds 6] [--calls 500] [--model efficientnet-lite0]

Three services take unary calls in turn, so that other work on the machine falls on all; a ratio is that of each round.
Spans go to a receiver in this process, which takes them and keeps none.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import uvloop

from benchmarks.common import cpu
from benchmarks.common.service import running, temporary_home

if TYPE_CHECKING:
    from benchmarks.common.service import Running

ROOT = Path(__file__).resolve().parents[2]
CALLERS = 32
WAYS = {"off": None, "1 in 100": 0.01, "all": 1.0}
_EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


def main() -> None:
    """Prints the medians of each part and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--model", default="efficientnet-lite0")
    arguments = parser.parse_args()
    server, port = _receiver()
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        services = {way: _start(stack, arguments.model, ratio, port) for way, ratio in WAYS.items()}
        for _ in range(arguments.rounds):
            for way, service in services.items():
                for part, milliseconds in _round(service, arguments.model, arguments.calls).items():
                    spent[part][way].append(milliseconds)
    server.stop(None)
    for part, ways in spent.items():
        print(part, *(f"{way}: {_told(found, ways['off'])}" for way, found in ways.items()), sep="  ")


def _told(found: list[float], off: list[float]) -> str:
    ratio = statistics.median(one / other for one, other in zip(found, off, strict=True))
    return f"{statistics.median(found):.2f} ms, {ratio:.2f}"


def _receiver() -> tuple[grpc.Server, int]:
    take: Any = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_EXPORT, {"Export": take}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def _start(stack: ExitStack, model: str, ratio: float | None, port: int) -> Running:
    home, _ = stack.enter_context(temporary_home(model))
    if ratio is None:
        return stack.enter_context(running(home))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    file = folder / "shoal.yaml"
    file.write_text(f"observe: {{tracing: {{otlp_endpoint: 'http://127.0.0.1:{port}', sample_ratio: {ratio}}}}}\n")
    return stack.enter_context(running(home, file))


def _round(service: Running, model: str, calls: int) -> dict[str, float]:
    """Milliseconds a call; a worker's are without inference and decoding, which have threads of their own."""
    before = cpu.of_service(service)
    uvloop.run(_load(service, model, calls))
    found = cpu.spent(before, cpu.of_service(service)).components
    return {part: found[part] / calls * 1e3 for part in ("router", "batcher", "rest")}


async def _load(service: Running, model: str, calls: int) -> None:
    async with service.client(streams=False) as client:
        uuid = await client.upload((ROOT / "samples" / "chelsea.jpg").read_bytes())
        turns = asyncio.Semaphore(CALLERS)

        async def call() -> None:
            async with turns:
                await client.classify(uuid, model)

        await asyncio.gather(*(call() for _ in range(calls)))


if __name__ == "__main__":
    main()
