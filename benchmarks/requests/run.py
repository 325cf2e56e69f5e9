"""Measures what travels: a picture as JPEG and as tensors, and the reference that Shoal sends instead.

python -m benchmarks.requests.run [--images samples] [--plot docs/images/payload-bytes.png]

Pictures are decoded once and encoded anew at each quality (OpenCV, 4:2:0). The bytes of a call are counted on the wire,
by a relay between the client and a server: HTTP/2 frames and compressed headers included, TCP and IP headers not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import cv2
import grpc
import grpc.aio
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.common.files import jpegs
from benchmarks.common.options import add_images
from shoal.batching.v1 import batching_pb2
from shoal.client import AsyncClient
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

QUALITIES = (55, 80, 90, 100)
SIDE = 224
KEY = "shoal_" + "k" * 43  # as long as a real one
MODEL = "efficientnet-lite0"
CALLS = 1000


def picture_rows(path: Path) -> list[dict[str, Any]]:
    """A row a quality: bytes of the JPEG, and of uint8 and float32 ``(H, W, 3)`` tensors, at full size and 224x224."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None, path
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    tensors = {
        "uint8_full": pixels.nbytes,
        "fp32_full": pixels.astype(np.float32).nbytes,
        "uint8_224": small.nbytes,
        "fp32_224": small.astype(np.float32).nbytes,
    }
    size = {"picture": path.name, "width": pixels.shape[1], "height": pixels.shape[0]}
    return [
        size
        | {"quality": quality, "jpeg": len(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])}
        | tensors
        for quality in QUALITIES
    ]


class Relay:
    """Passes bytes on between a client and a server, and counts them."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.up = self.down = 0
        self.ended = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one client's connection."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        await asyncio.gather(self._pass(reader, server_writer, up=True), self._pass(server_reader, writer, up=False))
        self.ended.set()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        while data := await reader.read(65536):
            if up:
                self.up += len(data)
            else:
                self.down += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()


async def _classify(request: pb.ImageRequest, _context: object) -> pb.ClassifyReply:
    found = [pb.Class(index=285 - n, label="Egyptian cat", probability=0.4) for n in range(5)]
    timing = pb.Timing(queue_us=2000, fetch_us=1500, decode_us=1500, compute_us=30_000, batch_size=8)
    return pb.ClassifyReply(
        image_uuid=request.image_uuid, model_name=request.model_name, model_version=1, classes=found, timing=timing
    )


async def call_bytes() -> dict[str, float]:
    """Bytes of the messages, and of one call on the wire after the first."""
    handler = grpc.unary_unary_rpc_method_handler(
        _classify, pb.ImageRequest.FromString, pb.ClassifyReply.SerializeToString
    )
    server = grpc.aio.server(
        handlers=[grpc.method_handlers_generic_handler("shoal.v1.Inference", {"Classify": handler})]
    )
    relay = Relay(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    listener = await asyncio.start_server(relay.connected, "127.0.0.1", 0)
    target = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with AsyncClient(target, api_key=KEY) as client:
        await client.classify(str(uuid4()), MODEL)
        first_up, first_down = relay.up, relay.down
        for _ in range(CALLS):
            await client.classify(str(uuid4()), MODEL)
        up, down = (relay.up - first_up) / CALLS, (relay.down - first_down) / CALLS
    await relay.ended.wait()
    listener.close()
    await server.stop(0)
    request = pb.ImageRequest(api_key=KEY, image_uuid=str(uuid4()), model_name=MODEL, top_k=5).SerializeToString()
    item = batching_pb2.BatchItem(
        index=7, request=request, owner="key-0123456789ab", timeout_us=29_900_000, queued_us=2000
    )
    reply = await _classify(pb.ImageRequest(image_uuid=str(uuid4()), model_name=MODEL), None)
    return {
        "request_message": len(request),
        "request_on_wire": round(up, 1),
        "first_call_and_connection": first_up,
        "batch_item": item.ByteSize(),
        "reply_message": reply.ByteSize(),
        "reply_on_wire": round(down, 1),
    }


def tables(rows: Iterable[dict[str, Any]], call: dict[str, float]) -> str:
    """The same as Markdown."""
    lines = [
        "| picture | quality | JPEG | uint8, full | fp32, full | JPEG : uint8 : fp32 | uint8, 224 | fp32, 224 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        jpeg = row["jpeg"]
        ratio = f"1 : {row['uint8_full'] / jpeg:.1f} : {row['fp32_full'] / jpeg:.1f}"
        lines.append(
            f"| {row['picture']} {row['width']}x{row['height']} | {row['quality']} | {jpeg:,} | {row['uint8_full']:,} "
            f"| {row['fp32_full']:,} | {ratio} | {row['uint8_224']:,} | {row['fp32_224']:,} |"
        )
    lines += ["", "| of one call | bytes |", "|---|---:|"]
    lines += [f"| {name.replace('_', ' ')} | {value:,} |" for name, value in call.items()]
    return "\n".join(lines)


def plot(row: dict[str, Any], call: dict[str, float], path: Path) -> None:
    """Bytes of one picture over each hop, for four ways to send it."""
    # Router, batcher and load balancer are between client and worker: four hops for whatever a message carries.
    parts = ["client", "router", "batcher", "balancer", "worker"]
    hops = [*pairwise(parts), ("client", "store"), ("store", "worker")]
    message, item = call["request_on_wire"], call["batch_item"]
    ways = {
        f"fp32 tensor {SIDE}x{SIDE} in the message": [row["fp32_224"]] * 4 + [0, 0],
        f"uint8 tensor {SIDE}x{SIDE} in the message": [row["uint8_224"]] * 4 + [0, 0],
        f"JPEG (quality {row['quality']}) in the message": [row["jpeg"]] * 4 + [0, 0],
        "Shoal: JPEG to the store, reference in the message": [message, message, item, item, row["jpeg"], row["jpeg"]],
    }
    figure, axes = plt.subplots(figsize=(10, 4.6), layout="constrained")
    for number, (name, values) in enumerate(ways.items()):
        places = np.arange(len(hops)) + (number - 1.5) * 0.2
        axes.bar(places, values, 0.2, label=f"{name}: {sum(values) / 1000:,.0f} kB in all")
    axes.set_yscale("log")
    axes.set_ylim(50, 3e6)
    axes.set_xticks(range(len(hops)), [f"{start}\n→ {end}" for start, end in hops])
    axes.set_ylabel("bytes a picture (log scale)")
    axes.set_title(f"What moves for one picture: {row['picture']}, {row['width']}x{row['height']}")
    axes.legend(loc="upper center", ncols=2, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prints the tables, and draws the plot if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_images(parser)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON rather than Markdown")
    options = parser.parse_args()
    rows = [row for path in jpegs(options.images) for row in picture_rows(path)]
    call = asyncio.run(call_bytes())
    print(json.dumps({"pictures": rows, "call": call}, indent=2) if options.json else tables(rows, call))
    if options.plot:
        plot(next(row for row in rows if row["picture"] == "coffee.jpg" and row["quality"] == 80), call, options.plot)


if __name__ == "__main__":
    main()
