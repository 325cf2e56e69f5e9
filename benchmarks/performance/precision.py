"""Measures what ``inference_precision: bf16`` gains on this CPU, and what it changes.

python -m benchmarks.performance.precision [--model NAME] [--rounds 15] [--batch 8]

Both precisions run the same batch in turns; the ratio is taken within a round. The pictures are those of samples/, and
the model a classifier that gives logits.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import replace
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.files import read_pictures
from benchmarks.common.options import add_model
from benchmarks.common.service import temporary_home
from shoal.engine.openvino import OpenVinoEngine
from shoal.pictures.decode import Decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.engine.openvino import OpenVinoModel, Precision
    from shoal.modelconfig.model import ModelConfig

PRECISIONS: tuple[Precision, ...] = ("f32", "bf16")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model(parser)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    with temporary_home(options.model) as (_, config):
        asyncio.run(_measure(config, options.rounds, options.batch))


async def _measure(config: ModelConfig, rounds: int, batch: int) -> None:
    config = replace(config, batching=replace(config.batching, max_batch_size=batch, preferred_batch_size=()))
    engines = {name: OpenVinoEngine(precision=name) for name in PRECISIONS}
    models = {name: await engine.load(config) for name, engine in engines.items()}
    decoder, pictures = Decoder(config, max_pixels=10**8, max_scans=64), list(islice(cycle(read_pictures()), batch))
    ratios, outputs = [], {}
    for _ in range(rounds):
        seconds = {}
        for name, model in models.items():
            seconds[name], outputs[name] = await _run(model, decoder, pictures)
        ratios.append(seconds["f32"] / seconds["bf16"])
    logits = np.abs(outputs["f32"] - outputs["bf16"]).max()
    probabilities = np.abs(_softmax(outputs["f32"]) - _softmax(outputs["bf16"])).max()
    print(f"bf16 over f32, images/s: {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    print(f"largest difference of a logit {logits:.3f}, of a probability {probabilities:.4f}")
    for engine in engines.values():
        await engine.close()


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


async def _run(model: OpenVinoModel, decoder: Decoder, pictures: list[bytes]) -> tuple[float, NDArray[np.float32]]:
    slot = await model.acquire()
    try:
        for row, picture in zip(slot.input, pictures, strict=False):
            decoder.decode(picture, row)
        started = time.perf_counter()
        inference = await model.infer(slot, len(pictures))
        return time.perf_counter() - started, np.array(next(iter(inference.outputs.values())), np.float32)
    finally:
        model.release(slot)


if __name__ == "__main__":
    main()
