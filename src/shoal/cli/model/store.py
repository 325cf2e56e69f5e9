"""The model store that a command is about, and how a model of it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from shoal.service.home import Home

if TYPE_CHECKING:
    from shoal.modelconfig.model import ModelConfig

Store: TypeAlias = Annotated[Path | None, typer.Option(help="The model store; by default `models` in Shoal's home.")]


def store_at(path: Path | None) -> Path:
    """``path``; None: the default store."""
    return Home.default().models if path is None else path


def line(model: ModelConfig) -> str:
    """A model in one line."""
    shape = "x".join(map(str, model.input.shape))
    return (
        f"{model.name} version {model.version}: {model.task}, {model.input.dtype} {shape}, "
        f"{len(model.labels)} label{'' if len(model.labels) == 1 else 's'}, batches of {model.batching.max_batch_size}"
    )
