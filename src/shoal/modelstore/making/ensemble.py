"""Makes a Triton ensemble of a model that Triton runs in its own backend: before it stands a step that decodes.

So models in TensorRT's, ONNX Runtime's and PyTorch's backends take JPEGs, too, and their pixels stay on the device.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from shoal.errors import ConfigurationError
from shoal.modelconfig import encoded, keys
from shoal.modelconfig.pbtxt import FILE
from shoal.modelstore.making import build, render, runners
from shoal.modelstore.making.build import refuse_existing
from shoal.modelstore.making.runners import frames
from shoal.modelstore.triton_settings import TritonSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig, Tensor
    from shoal.modelstore.making.recipe import Recipe

_PIXELS: Final = "pixels"
"""What the first step hands to the second."""
_NOTE: Final = "steps.txt"
"""Something to publish: an object store knows no empty folders."""


def add(
    store: Path, recipe: Recipe, add_model: Callable[[Recipe], ModelConfig], *, version: int | None, force: bool
) -> ModelConfig:
    """Adds ``recipe.name`` as an ensemble of ``<name>_decode`` and ``<name>_model``.

    Args:
        store: The store's folder.
        recipe: Of the whole.
        add_model: Adds the second step, the model as its own backend takes it, by its recipe.
        version: None: an ensemble gets no further versions.
        force: Replace all three.

    Raises:
        ConfigurationError: as ``add_model``; or one of the three is there already.
    """
    name, steps = recipe.name, (f"{recipe.name}_decode", f"{recipe.name}_model")
    if version is not None:
        raise ConfigurationError(f"--version: an ensemble has one; add the version to {steps[1]}, which {name} runs")
    for each in (name, *steps):
        refuse_existing(store, each, version=None, force=force)
    batching = replace(recipe.batching, max_queue_delay_microseconds=0)  # the batches come from Shoal
    alone = replace(recipe, name=steps[1], runner=None, batching=batching)
    model = add_model(alone)
    try:
        with (store / steps[1] / FILE).open("a", encoding="utf-8") as config:
            config.write("\n" + _parameter(keys.PART_OF, name))
        whole = replace(model, name=name, input=frames(model.input), encoded=True, batching=recipe.batching)
        decoder = partial(_write_decoder, whole=whole, network=model.input, recipe=recipe)
        build.install_folder(store, steps[0], 1, decoder, force=force)
        return build.install(store, name, 1, lambda folder: _write_ensemble(folder, whole, steps), force=force)
    except BaseException:
        if not force:
            for each in steps:
                shutil.rmtree(store / each, ignore_errors=True)
        raise


def _write_decoder(folder: Path, whole: ModelConfig, network: Tensor, recipe: Recipe) -> None:
    for name, source in runners.files("gpu").items():
        shutil.copyfile(source, folder / "1" / name)
    lanes = str(render.each_gpu(whole.batching, recipe.triton))
    said = {keys.PART_OF: whole.name, keys.LANES: lanes, **render.network(network, recipe)}
    (folder / FILE).write_text(
        f"# The first step of {whole.name}: decodes, resizes and turns upright.\n"
        f'name: "{folder.name}"\nbackend: "python"\n'
        f"{''.join(_parameter(key, value) for key, value in said.items())}\n"
        f"max_batch_size: {whole.batching.max_batch_size}\n"
        f"{render.inputs(whole)}\n"
        f"output [\n  {{ {render.tensor(replace(network, name=_PIXELS))} }},\n  {{ {render.REPORT} }}\n]\n"
        f"instance_group [\n  {{ {render.instances(whole.batching, recipe.triton, lanes=True)} }}\n]\n",
        encoding="utf-8",
    )


def _write_ensemble(folder: Path, whole: ModelConfig, steps: tuple[str, str]) -> None:
    (folder / "1" / _NOTE).write_text("\n".join(steps) + "\n", encoding="utf-8")
    if whole.labels:
        (folder / render.LABELS_FILE).write_text("".join(f"{label}\n" for label in whole.labels), encoding="utf-8")
    first = {whole.input.name: whole.input.name, encoded.ENCODED_ROWS: encoded.ENCODED_ROWS}
    given = {_PIXELS: _PIXELS, encoded.ROW_REPORT: encoded.ROW_REPORT}
    second = {output.name: output.name for output in whole.outputs}
    (folder / FILE).write_text(
        f"# {steps[0]} decodes a batch, and {steps[1]} runs it; its pixels stay on the GPU.\n"
        "# An ensemble can't say how long pictures wait for others: the service file can, at models.\n"
        f'name: "{whole.name}"\nplatform: "ensemble"\n'
        f"max_batch_size: {whole.batching.max_batch_size}\n\n"
        f"{render.inputs(whole)}\n\n{render.outputs(whole)}\n\n"
        "ensemble_scheduling {\n"
        f"{_step(steps[0], first, given)}{_step(steps[1], {whole.input.name: _PIXELS}, second)}"
        "}\n\n"
        f"{render.parameters(whole, TritonSettings())}\n",
        encoding="utf-8",
    )


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def _step(name: str, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    maps = [("input_map", each) for each in inputs.items()] + [("output_map", each) for each in outputs.items()]
    lines = "".join(f'    {kind} {{ key: "{own}" value: "{shared}" }}\n' for kind, (own, shared) in maps)
    return f'  step {{\n    model_name: "{name}" model_version: -1\n{lines}  }}\n'
