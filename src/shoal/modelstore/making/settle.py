"""Puts a number of instances and a batch size into a model's config.pbtxt, in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.modelconfig.pbtxt import FILE, LARGEST_BYTES
from shoal.modelstore.check import check_folder
from shoal.modelstore.making.build import refuse_link
from shoal.modelstore.making.edit import with_batching
from shoal.runtime import intake
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path


def refuse(folder: Path) -> None:
    """Raises ConfigurationError where the model in ``folder`` can't be settled, whatever the setting."""
    if not (folder / FILE).is_file():
        raise ConfigurationError(
            f"{folder} has no {FILE}; --store names the model store, at Triton its model repository"
        )
    refuse_link(folder)


def settle(folder: Path, *, instances: int, batch: int) -> str:
    """What was changed, in a line, of the model in ``folder``.

    Raises:
        ConfigurationError: it can't be changed, or the model couldn't be served afterwards; the file is as it was.
        OSError: it can't be read or written.
    """
    refuse(folder)
    path = folder / FILE
    before = intake.read_text(path, LARGEST_BYTES)
    known = set(map(str, check_folder(folder).errors))
    try:
        after = with_batching(before, instances=instances, batch=batch)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    setting = f"instance_group count {instances}, max_batch_size {batch}"
    if after == before:
        return f"{path} has {setting} already"
    mode = path.stat().st_mode & 0o777
    replace_file(path, after, mode)
    faults = [fault for fault in map(str, check_folder(folder).errors) if fault not in known]
    if faults:
        replace_file(path, before, mode)
        raise ConfigurationError("\n".join([f"{path} was left as it was:", *faults]))
    return f"{path}: now {setting}"
