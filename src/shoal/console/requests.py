"""``GET /v1/requests/<uuid>``: what became of one recent request, for the page as for ``shoal explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from shoal.explain.explanation import explain
from shoal.explain.story import STAGES, sentences

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from shoal.explain.explanation import Explanation
    from shoal.explain.inquiry import Told


class StageView(BaseModel):
    """A part of a request's time."""

    name: str
    label: str
    """What it means."""
    seconds: float


class PassView(BaseModel):
    """One pass of the request through the service."""

    model: str
    code: str
    """Empty: there is no answer yet."""
    message: str
    seconds_ago: float
    total_seconds: float
    sentences: tuple[str, ...]
    stages: tuple[StageView, ...]


class ExplanationView(BaseModel):
    """All passes that are remembered, newest first."""

    image_uuid: str
    requests: tuple[PassView, ...]
    silent: dict[str, str]
    """Parts that were not heard, and why."""


def explanation(image_uuid: str, told: Told, key_ids: AbstractSet[str]) -> ExplanationView:
    """Of passes that keys of the caller's made; others are not known."""
    passes = (each for each in explain(told.answers) if _key_of(each) in key_ids)
    return ExplanationView(
        image_uuid=image_uuid, requests=tuple(_pass(each) for each in passes), silent=dict(told.silent)
    )


def _key_of(each: Explanation) -> str:
    visit = each.batcher or each.worker
    return visit.key_id if visit else ""


def _pass(each: Explanation) -> PassView:
    visit = each.batcher or each.worker
    assert visit is not None
    return PassView(
        model=visit.model,
        code=visit.code,
        message=visit.message,
        seconds_ago=each.seconds_ago,
        total_seconds=each.total_seconds,
        sentences=tuple(sentences(each)),
        stages=tuple(
            StageView(name=name, label=STAGES.get(name, name), seconds=seconds)
            for name, seconds in each.stage_seconds.items()
        ),
    )
