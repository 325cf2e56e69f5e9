"""What a home needs before its service can run. Each step does nothing where it was done before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.local.store import create_bucket
from shoal.modelstore import repository
from shoal.modelstore.formats import RUNTIMES, Format
from shoal.pictures.objectstore import create_credentials, load_credentials
from shoal.service import api_keys
from shoal.triton.installation import find

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.modelstore.formats import Runner
    from shoal.pictures.objectstore import Credentials
    from shoal.service.home import Home
    from shoal.service.spec import Pool, Service

FIRST_MODEL = "efficientnet-lite0"
"""What an empty model store gets, so that there is something to try."""

LOCAL_OWNER = "local"
"""Whose key the commands on this machine use."""


def prepare(service: Service, home: Home, say: Callable[[str], None]) -> None:
    """Makes folders, a first model, a key and the managed object store's credentials and bucket.

    Args:
        service: what will run.
        home: where.
        say: told of each step that takes long or leaves something to know of.

    Raises:
        ShoalError: a step failed.
    """
    for folder in (home.root, home.run, home.logs, home.cache):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _add_first_model(service, home, say)
    local_key(service, home)
    if service.object_store.runs_locally:
        store_credentials(service, home)
        create_bucket(service.object_store, home, {key.prefix for key in api_keys.load_keys(home.keys_file(service))})


def local_key(service: Service, home: Home) -> api_keys.Key:
    """The key of this machine's own commands, made at the first call."""
    file = home.keys_file(service)
    present = api_keys.load_keys(file) if file.exists() else ()
    return next((key for key in present if key.owner == LOCAL_OWNER), None) or api_keys.create(file, LOCAL_OWNER)


def store_credentials(service: Service, home: Home) -> Credentials:
    """The managed object store's credentials, made at the first call."""
    file = home.credentials_file(service)
    return load_credentials(file) if file.exists() else create_credentials(file)


def _add_first_model(service: Service, home: Home, say: Callable[[str], None]) -> None:
    store, name = home.model_store(service), service.pool_of(FIRST_MODEL)
    pool = service.pools[name] if name else None
    if pool is None or pool.triton_url or repository.names(store):
        return  # no engine of ours would serve it, or there is something to try
    from shoal.modelstore.making import build, efficientnet  # needed once in a home's life

    runner: Runner | None = "python" if needs_python_runner(pool) else None
    say(f"the model store {store} is empty: adding {FIRST_MODEL}, about 20 MB once")
    model, recipe = efficientnet.prepare(home.cache, FIRST_MODEL)
    build.add_model(store, model, replace(recipe, runner=runner))


def needs_python_runner(pool: Pool) -> bool:
    """Whether what runs ONNX in this pool is our runner in a Triton's Python backend, for want of ONNX Runtime's.

    Raises:
        ConfigurationError: it starts a Triton, and there is none.
    """
    return pool.starts_triton and not find(pool.triton_server).has_backend(RUNTIMES[Format.ONNX].backend)
