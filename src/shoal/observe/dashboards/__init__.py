"""Grafana's dashboards as code, built with its own SDK (extra ``observe``), written as the JSON that it reads.

May use: observe.
"""

from __future__ import annotations

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from shoal.observe.dashboards.data import data_moved
from shoal.observe.dashboards.model import model
from shoal.observe.dashboards.overview import overview
from shoal.observe.dashboards.pipeline import pipeline
from shoal.observe.dashboards.pool import pool

_BOARDS = {"overview": overview, "model": model, "pool": pool, "pipeline": pipeline, "data": data_moved}


def render() -> dict[str, str]:
    """File name to JSON, of all dashboards; the same at each call."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {f"shoal-{name}.json": encoder.encode(make().build()) + "\n" for name, make in _BOARDS.items()}
