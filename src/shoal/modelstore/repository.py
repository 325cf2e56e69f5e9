"""A model store: a folder of models, each ``<model>/config.pbtxt`` and ``<model>/<version>/model.onnx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError, NotFound
from shoal.modelconfig import pbtxt
from shoal.modelconfig.fault import Fault, FaultReport
from shoal.modelstore import reader

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig


def names(store: Path) -> list[str]:
    """The models' names, sorted. A missing store is an empty one; hidden folders are work in progress."""
    if not store.is_dir():
        return []
    return sorted(path.name for path in store.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_model(store: Path, name: str) -> ModelConfig:
    """One model's configuration, at the version that its version_policy serves.

    Raises:
        NotFound: no such model.
        ConfigurationError: it can't be served; the message names each file and field at fault, one a line.
    """
    if name not in names(store):
        known = ", ".join(names(store)) or "none; `shoal model add` makes one"
        raise NotFound(f"model {name!r} is not in {store}; there: {known}")
    report = FaultReport(name)
    model = reader.read(store / name, report)
    if model is None:
        raise ConfigurationError("\n".join(map(str, report.errors)))
    return model


def scan(store: Path) -> tuple[dict[str, ModelConfig], list[Fault]]:
    """All models that can be served, by name, and the faults of all others; the steps of ensembles are left out."""
    models: dict[str, ModelConfig] = {}
    faults: list[Fault] = []
    for name in names(store):
        report = FaultReport(name)
        config = pbtxt.load(store / name / pbtxt.FILE, report)
        if config is not None and pbtxt.part_of(config):
            continue
        model = None if config is None else reader.view(store / name, config, report)
        faults += report.faults
        if model is not None and not report.errors:
            models[name] = model
    return models, faults
