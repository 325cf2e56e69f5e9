"""Holds a loaded model to what batching needs: a picture's answer doesn't depend on what else is in its batch.

Exports that were traced with one picture often carry a 1 where the batch should be: ``view(1, -1)``, a softmax over
the wrong axis, statistics over the batch. They work alone and mix pictures in a batch, without an error. So a few
pictures run alone and then beside others, in several rows, on the engine that will serve them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from shoal.engine import NotBatchable
from shoal.errors import ConfigurationError, Internal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.engine import Engine, LoadedModel
    from shoal.modelconfig.model import ModelConfig

    Array = NDArray[np.generic]
    Floats = NDArray[np.float64]

Samples: TypeAlias = "Sequence[Mapping[str, Array]]"
"""What a model answered: for each picture, alone, output name to ``(1, *shape)``."""

_log = logging.getLogger(__name__)

_ROWS: Final = 4
"""Pictures in the batches in which they change places; a larger batch runs once."""
_SAME_KERNELS: Final = 0.05
"""How far apart, see ``_apart``, answers may be that come from one row of batches of one size: only the mates differ,
so kernels and their rounding don't. Room for what GPUs add up in any order."""
_OTHER_KERNELS: Final = 0.5
"""Likewise from batches of two sizes: kernels may differ, and in bf16 round to three digits."""
_FLOOR: Final = 0.01
"""Share of a value: what differs by less isn't told from rounding."""
_MOST_VALUES: Final = 1_000_000
"""Values of one output that are compared, at most."""


class Probed(NamedTuple):
    """A model that was loaded and tried."""

    model: LoadedModel[Any]
    samples: Samples
    alone_because: str
    """Why it takes batches of 1 whatever its configuration says; empty: it takes those."""


async def load(engine: Engine, config: ModelConfig) -> Probed:
    """Loads and probes a model; one that mixes the pictures of a batch is loaded for batches of 1.

    Raises:
        ConfigurationError, Unavailable: as ``Engine.load`` and ``probe``.
    """
    try:
        return await _load(engine, config, "")
    except NotBatchable as error:
        return await _load(engine, single(config), str(error))


async def _load(engine: Engine, config: ModelConfig, alone_because: str) -> Probed:
    model = await engine.load(config)
    try:
        return Probed(model, await probe(model), alone_because)
    except BaseException:
        await model.close()
        raise


def single(config: ModelConfig) -> ModelConfig:
    """``config`` with batches of 1."""
    return replace(config, batching=replace(config.batching, max_batch_size=1, preferred_batch_size=()))


async def probe(model: LoadedModel[Any]) -> Samples:
    """Runs pictures alone and in batches, the largest among them.

    Raises:
        ConfigurationError: not even one picture can be run.
        NotBatchable: pictures can't be run together, or change each other's answers.
        Unavailable: the engine is away.
    """
    config = model.config
    rows = pictures(config)
    try:
        alone = [await _run(model, [row]) for row in rows]
    except Internal as error:
        raise ConfigurationError(f"{config.path}: can't be executed: {error}") from error
    if config.batching.max_batch_size > 1:
        try:
            reason = await _mixed(model, rows, alone)
        except Internal as error:
            reason = str(error)
        if reason:
            raise NotBatchable(f"{config.path}: works with one picture, not with several at once: {reason}")
    return alone


def pictures(config: ModelConfig) -> list[Array]:
    """Three rows of the model's input, always the same ones: two that look like photographs, and noise."""
    height, width = config.height, config.width
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return [_as_input(pixels, config) for pixels in (_scene(1, height, width), noise, _scene(2, height, width))]


def _scene(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A sky of a slow gradient, a few things of plain colours before it, and the grain of a sensor."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    slopes = random.uniform(-90, 90, (2, 3))
    scene = 110 + 40 * (seed % 2) + y[..., None] * slopes[0] + x[..., None] * slopes[1]
    for centre_y, centre_x, radius in random.uniform((0.2, 0.2, 0.1), (0.8, 0.8, 0.3), (5, 3)):
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        scene[inside] = random.uniform(0, 255, 3)
    grainy: NDArray[np.uint8] = (scene + random.normal(0, 6, scene.shape)).clip(0, 255).astype(np.uint8)
    return grainy


def _as_input(pixels: NDArray[np.uint8], config: ModelConfig) -> Array:
    """``pixels``, (height, width, 3), as a worker feeds them: so, or normalised and channels first."""
    if config.channels_last:
        return pixels
    normal: Floats = (pixels - np.array(config.mean)) / np.array(config.std)
    return normal.transpose(2, 0, 1).astype(config.input.dtype)


async def _run(model: LoadedModel[Any], rows: Sequence[Array]) -> Mapping[str, Array]:
    slot = await model.acquire()
    try:
        for number, row in enumerate(rows):
            slot.row(number)[...] = row
        return (await model.infer(slot, len(rows))).outputs
    finally:
        model.release(slot)


async def _mixed(model: LoadedModel[Any], rows: Sequence[Array], alone: Samples) -> str:
    """How pictures change each other's answers; empty: they don't."""
    most = model.config.batching.max_batch_size
    size = min(most, _ROWS)
    same = await _run(model, [rows[0]] * size)
    for order in ((0, 0, 1, 2), (1, 2, 0, 0)) if size == _ROWS else ((0, 1, 2)[:size], (1, 0, 0)[:size]):
        mixed = await _run(model, [rows[number] for number in order])
        beside = [(row, 0, same, row) for row, number in enumerate(order) if number == 0]
        if reason := _differing(mixed, beside, alone, _SAME_KERNELS):
            return await _unless_it_varies(model, [rows[0]] * size, same, alone, reason)
        if reason := _differing(mixed, _by_itself(order, alone), alone, _OTHER_KERNELS):
            return reason
    if most == size:
        return ""
    order = tuple(row % len(rows) for row in range(most))
    return _differing(
        await _run(model, [rows[number] for number in order]), _by_itself(order, alone), alone, _OTHER_KERNELS
    )


def _by_itself(order: Sequence[int], alone: Samples) -> list[tuple[int, int, Mapping[str, Array], int]]:
    return [(row, number, alone[number], 0) for row, number in enumerate(order)]


async def _unless_it_varies(
    model: LoadedModel[Any], batch: Sequence[Array], before: Mapping[str, Array], alone: Samples, reason: str
) -> str:
    """``reason``, unless the same batch gets other answers each time: then nothing can be said of its mates."""
    again = await _run(model, batch)
    same = [(row, 0, before, row) for row in range(len(batch))]
    if varies := _differing(again, same, alone, _SAME_KERNELS):
        _log.warning(
            "model %s answers the same pictures otherwise each time, as one in training mode does: %s",
            model.config.name,
            varies,
        )
        return ""
    return reason


def _differing(
    batch: Mapping[str, Array],
    expected: Sequence[tuple[int, int, Mapping[str, Array], int]],
    alone: Samples,
    limit: float,
) -> str:
    """The first output of a batch that isn't as it should be.

    Args:
        batch: What the batch gave.
        expected: For rows of it: the row, the number of its picture, and outputs and row that it should be like.
        alone: What each picture gives by itself.
        limit: How far apart they may be, as ``_apart`` measures it.
    """
    for name, values in batch.items():
        contrast = _contrast(alone, name)
        for row, number, outputs, other in expected:
            if _apart(values[row], outputs[name][other], contrast, limit) > limit:
                return f"output {name!r} of picture {number + 1} changes with what is in the rest of the batch"
    return ""


def _contrast(alone: Samples, name: str) -> Floats | None:
    """How far apart the answers to the pictures are, a value each; None where their shapes differ."""
    values = [_thinned(outputs[name][0]) for outputs in alone]
    if len({value.shape for value in values}) > 1:
        return None
    return np.maximum(*(_distance(values[0], value) for value in values[1:]))


def _apart(one: Array, other: Array, contrast: Floats | None, limit: float) -> float:
    """0 for the same answers, about 1 for those to two pictures that have nothing in common."""
    if one.shape != other.shape:
        return 1.0
    direct = _share(one, other, contrast)
    if direct <= limit or one.ndim < 2 or limit < _OTHER_KERNELS:  # rows and columns
        return direct
    # Rounding may change the order of candidates with nearly the same score.
    return min(direct, _share(np.sort(one, axis=0), np.sort(other, axis=0), contrast))


def _share(one: Array, other: Array, contrast: Floats | None) -> float:
    one, other = _thinned(one), _thinned(other)
    distance = _distance(one, other)
    if contrast is not None and contrast.shape != distance.shape:
        contrast = None
    scale = np.ones(distance.shape)
    if one.dtype.kind == "f":
        sizes = np.abs(np.stack([one, other]).astype(np.float64)).max(axis=0)
        scale = np.maximum(_FLOOR * sizes, np.finfo(np.float32).tiny)
        if contrast is not None:
            scale = np.maximum(scale, contrast)
    tells = distance > 0 if contrast is None else (distance > 0) | (contrast > 0)
    if not tells.any():
        return 0.0
    with np.errstate(invalid="ignore"):
        parts = distance[tells] / scale[tells]
    return float(np.minimum(np.nan_to_num(parts, nan=1.0, posinf=1.0), 1).mean())


def _thinned(values: Array) -> Array:
    """So many of them as are compared, flat."""
    flat = values.reshape(-1)
    return flat[:: flat.size // _MOST_VALUES + 1]


def _distance(one: Array, other: Array) -> Floats:
    """How far apart two arrays of one shape are, value by value; of integers, which may be classes, 0 or 1."""
    if one.dtype.kind != "f":
        differ: Floats = np.not_equal(one, other).astype(np.float64)
        return differ
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(one.astype(np.float64) - other.astype(np.float64))
    distance[(one == other) | (np.isnan(one) & np.isnan(other))] = 0
    return np.nan_to_num(distance, nan=np.inf, posinf=np.inf)
