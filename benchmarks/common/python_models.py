"""Models for Triton's Python backend, put into a repository."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def add_model(
    repository: Path, name: str, config: Path, files: Iterable[Path], parameters: Mapping[str, object]
) -> None:
    """Adds version 1 of a model: ``files``, and ``config`` with its name and parameters."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    (repository / name / "config.pbtxt").write_text(with_parameters(name, config, parameters), encoding="utf-8")


def with_parameters(name: str, config: Path, parameters: Mapping[str, object]) -> str:
    """The text of a config.pbtxt: that of the file ``config``, with the model's name and parameters."""
    lines = [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    return "\n".join([f'name: "{name}"', config.read_text(encoding="utf-8"), *lines, ""])
