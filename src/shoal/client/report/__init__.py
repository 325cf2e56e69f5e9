"""A load test as a page: ``write`` makes ``index.html`` and ``bench.json`` of a recorded result.

May use: client/load, errors, runtime.
"""

from __future__ import annotations

import json
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from shoal.errors import ConfigurationError
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoal.client.load.tally import LoadResult

PAGE = "index.html"
DATA = "bench.json"


def prepare(folder: Path) -> None:
    """Makes sure, before any load, that a report can be written to ``folder``, which is made if it is missing.

    Raises:
        ConfigurationError: what plots is not installed, or nothing can be written there.
    """
    if find_spec("matplotlib") is None:
        raise ConfigurationError("--report needs matplotlib, which isn't installed: pip install 'shoal[report]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(f"--report {folder}: can't be written: {error.strerror}") from error


def write(folder: Path, result: LoadResult, about: Mapping[str, Any]) -> Path:
    """Writes the page, and its figures for programs; answers the page's path.

    Args:
        folder: See ``prepare``. Files of other names are left alone.
        result: A recorded one.
        about: ``settings``, ``command``, ``versions``, ``machine`` and ``date``, ready for JSON.

    Raises:
        OSError: the disk is full, say.
    """
    from shoal.client.report.figures import Figures  # what no other command needs
    from shoal.client.report.page import render

    figures = Figures.of(result, about["settings"])
    data = {**about, "summary": result.summary(), **figures.to_json()}
    replace_file(folder / DATA, json.dumps(data, indent=1) + "\n", mode=None)
    replace_file(folder / PAGE, render(figures, result.summary(), about), mode=None)
    return folder / PAGE
