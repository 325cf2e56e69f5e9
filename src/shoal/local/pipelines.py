"""The pipelines of a service held against the model store, before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.modelstore import repository
from shoal.pipeline import check
from shoal.pipeline.check import Known
from shoal.service import read_section
from shoal.service.pipelines import Fault, placed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoal.service.spec import Service


def require_right(service: Service, store: Path, file: Path | None) -> None:
    """Looks at what every pipeline needs of the store's models.

    Args:
        service: What will run.
        store: The model store.
        file: Where the service file lies.

    Raises:
        ConfigurationError: with file, line and key of each fault.
    """
    if not service.pipelines:
        return
    if lines := read_section.with_lines(file, list(_faults(service, store))):
        raise ConfigurationError("\n".join(lines))


def _faults(service: Service, store: Path) -> Iterator[Fault]:
    models, _ = repository.scan(store)  # of what can't be served, others tell
    known = {name: Known(model.task, model.labels) for name, model in models.items()}
    there = {*repository.names(store), *service.elsewhere}
    for name, pipeline in service.pipelines.items():
        if name in there:
            yield Fault(f"pipelines.{name}", f"the model store {store} has a model {name!r}; rename one of them")
        for each in placed(name, pipeline):
            pool = service.pool_of(each.step.model)
            foreign = pool is not None and service.pools[pool].triton_url is not None
            if each.step.model not in there and not foreign:
                yield Fault(f"{each.key}.model", f"no model {each.step.model!r} is in {store}")
        yield from check.faults(name, pipeline, known)
