"""CPU microseconds that a call costs the client, of this tree and of another commit in turn.

python -m benchmarks.batching.client_cost --against COMMIT [--rounds 6]

A gRPC server in a process of its own answers at once: five classes, streams in messages of 32 results. Runs alternate,
so that other work on the machine falls on both; the ratio is that of each pair. The ways to call are the client's own:
many callers of ``infer``, ``map``, futures of the blocking client, the load generator of ``shoal bench``, and one
caller alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.commits import ROOT, unpacked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoal.client import AsyncClient

WAYS = ("callers", "map", "futures", "load", "alone")
CALLS, WARM_UP, IN_FLIGHT, ANSWERED_TOGETHER = 20_000, 2_000, 128, 32
_ALONE = 5
"""So many calls fewer where each waits for the one before."""
MODEL, KEY = "m", "key-0123456789abcdef0123456789abcdef"
UUID = "00000000-0000-4000-8000-000000000001"


def main() -> None:
    """Prints a line a round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="what this tree is compared with; alone, if there is none")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--role", choices=("server", *WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "server":
        asyncio.run(_serve())
    elif arguments.role:
        print(_cost(arguments.role, arguments.target))
    else:
        with tempfile.TemporaryDirectory() as folder:
            sources = {"before": unpacked(arguments.against, Path(folder))} if arguments.against else {}
            _compare(sources | {"after": ROOT / "src"}, arguments.ways, arguments.rounds)


def _compare(sources: dict[str, Path], ways: list[str], rounds: int) -> None:
    server = subprocess.Popen(_command("server"), env=_environment(ROOT / "src"), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        target = server.stdout.readline().strip()
        if not target:
            sys.exit("the server did not start")
        for way in ways:
            found: dict[str, list[float]] = {name: [] for name in sources}
            for number in range(rounds):
                for name in sorted(sources, reverse=bool(number % 2)):
                    command = [*_command(way), "--target", target]
                    done = subprocess.run(command, env=_environment(sources[name]), check=True, stdout=subprocess.PIPE)
                    found[name].append(float(done.stdout))
            _tell(way, found)
    finally:
        server.terminate()
        server.wait()


def _tell(way: str, found: dict[str, list[float]]) -> None:
    for name, values in found.items():
        print(f"{way}, {name}: median {statistics.median(values):.1f}, least {min(values):.1f} us of CPU a call")
    if len(found) > 1:
        ratios = [after / before for before, after in zip(found["before"], found["after"], strict=True)]
        print(
            f"{way}, ratio: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}", flush=True
        )


def _command(role: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.batching.client_cost", "--role", role]


def _environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}"}


async def _serve() -> None:
    import grpc
    import grpc.aio

    from shoal.batching.v1 import stream_pb2
    from shoal.v1 import inference_pb2 as pb

    found = [pb.Class(index=285 - n, label="Egyptian cat", probability=0.4) for n in range(5)]
    timing = pb.Timing(queue_us=2000, fetch_us=1500, decode_us=1500, compute_us=30_000, batch_size=8)
    reply = pb.ClassifyReply(
        image_uuid=UUID, model_name=MODEL, model_version=1, classes=found, timing=timing
    ).SerializeToString()

    async def classify(_message: bytes, _context: Any) -> bytes:
        return reply

    async def stream(chunks: AsyncIterator[stream_pb2.CallChunk], _context: Any) -> AsyncIterator[Any]:
        yield stream_pb2.CallResultChunk()
        async for chunk in chunks:
            results = [stream_pb2.CallItemResult(index=call.index, response=reply) for call in chunk.calls]
            for start in range(0, len(results), ANSWERED_TOGETHER):
                yield stream_pb2.CallResultChunk(results=results[start : start + ANSWERED_TOGETHER])

    handlers = {
        "Classify": grpc.unary_unary_rpc_method_handler(classify),
        "ClassifyStream": grpc.stream_stream_rpc_method_handler(
            stream, stream_pb2.CallChunk.FromString, stream_pb2.CallResultChunk.SerializeToString
        ),
    }
    server = grpc.aio.server(handlers=[grpc.method_handlers_generic_handler("shoal.v1.Inference", handlers)])
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


def _cost(way: str, target: str) -> float:
    if way == "futures":
        return _cost_of_futures(target)
    return asyncio.run(_cost_on_a_loop(way, target))


def _cost_of_futures(target: str) -> float:
    from shoal.client import Client

    with Client(target, api_key=KEY) as client:
        for number in (WARM_UP, CALLS):
            began = time.process_time()
            for _ in range(number // IN_FLIGHT):
                futures = [client.submit_classify(UUID, MODEL) for _ in range(IN_FLIGHT)]
                for future in futures:
                    future.result()
    return (time.process_time() - began) / (CALLS // IN_FLIGHT * IN_FLIGHT) * 1e6


async def _cost_on_a_loop(way: str, target: str) -> float:
    from shoal.client import AsyncClient  # of the tree that PYTHONPATH names

    async with AsyncClient(target, api_key=KEY) as client:
        if way == "load":
            return await _load(client)
        calls = {"callers": _callers, "map": _map, "alone": _alone}[way]
        number = CALLS // _ALONE if way == "alone" else CALLS
        await calls(client, WARM_UP // _ALONE if way == "alone" else WARM_UP)
        began = time.process_time()
        await calls(client, number)
        return (time.process_time() - began) / number * 1e6


async def _callers(client: AsyncClient, number: int) -> None:
    left = iter(range(number))

    async def caller() -> None:
        for _ in left:
            await client.infer("classification", UUID, MODEL)

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))


async def _map(client: AsyncClient, number: int) -> None:
    async for outcome in client.map(repeat(UUID, number), MODEL, concurrency=IN_FLIGHT):
        outcome.unwrap()


async def _load(client: AsyncClient) -> float:
    from shoal.client.load.generator import LoadRequest, LoadSettings, run_load
    from shoal.modelconfig.model import Task

    settings = LoadSettings(concurrency=IN_FLIGHT, duration_seconds=3.0, warm_up_seconds=0.5)
    result = await run_load(client, [LoadRequest(Task.CLASSIFICATION, UUID, MODEL)], settings)
    return result.cpu_seconds / result.answered * 1e6


async def _alone(client: AsyncClient, number: int) -> None:
    for _ in range(number):
        await client.classify(UUID, MODEL)


if __name__ == "__main__":
    main()
