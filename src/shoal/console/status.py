"""``GET /v1/status``: what one caller may see of what runs.

Parts and models are the service's, so their counters are of all callers together. Models are those that the caller may
call. Requests are those of the caller's own keys and tokens: what others asked is nobody else's business.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from pydantic import BaseModel

from shoal.console.figures import Figures
from shoal.explain.views import Glances
from shoal.service.identity import JWT_CALLER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from shoal.console.parts import News
    from shoal.service.api_keys import KeyRing
    from shoal.service.identity import Identity
    from shoal.service.spec import Service
    from shoal.service.topology import Topology
    from shoal.service.worker_report import WorkerReport


_FOLDERS: Final = re.compile(r"(?:/[^/\s:'\"]+)+/(?=[^/\s:'\"])")
NOT_VOUCHED_FOR: Final = "-"
"""What a batcher's metrics call models that no worker has vouched for."""


class Known(NamedTuple):
    """What the router itself knows."""

    service: Service
    topology: Topology
    keys: KeyRing
    models: Sequence[str]
    """Those that are published, named or served."""
    unserved: AbstractSet[str]
    """Those of ``models`` whose calls are refused, since no worker serves them."""


class PartView(BaseModel):
    """One process."""

    name: str
    role: str
    group: str
    """A batcher's group, a worker's or a Triton's pool."""
    state: str
    """``ready``, ``not ready`` or ``silent``."""
    reason: str = ""


class ModelView(BaseModel):
    """One model that the caller may call."""

    name: str
    pool: str
    """Empty: no pool takes it, or it is a pipeline."""
    state: str
    """``served``, ``waiting`` (no worker has it yet) or ``refused``."""
    task: str = ""
    """Empty: no worker says so."""
    versions: tuple[int, ...] = ()
    """More than one while workers change over."""
    replicas: int
    """The pool's workers that told of themselves."""
    replicas_ready: int
    """Those of them that have it."""
    reasons: tuple[str, ...] = ()
    """Why a worker doesn't serve it as it is."""
    batchers: dict[str, Figures]
    """By the part's name."""


class StatusView(BaseModel):
    """All of it."""

    owner: str
    uploads_here: bool
    """Whether the router takes uploads to presigned URLs, in place of the store."""
    parts: tuple[PartView, ...]
    models: tuple[ModelView, ...]
    refused: dict[str, int]
    """Calls that this router refused since its start, by reason; all callers'."""
    unknown: dict[str, int]
    """The same for batchers, by code: models and methods that no worker has vouched for."""
    requests: Glances


class Caller(NamedTuple):
    """Who looks."""

    owner: str
    key_ids: frozenset[str]
    """All of the owner's: keys, and tokens of each issuer."""
    may_call: Callable[[str], bool]
    """Whether they may know of a model."""

    @classmethod
    def of(cls, identity: Identity, claimed: str | None, known: Known) -> Self:
        """Whom the router let in. A key that was revoked meanwhile sees no model.

        Args:
            identity: What the router says of them.
            claimed: Its ``MODELS_HEADER``; None: it isn't there.
            known: What the router knows.
        """
        owner = identity.owner
        ids = {identity.key_id, *(key.id for key in known.keys if key.owner == owner)}
        ids |= {f"{JWT_CALLER}{issuer}:{owner}" for issuer in known.service.router.tokens}
        if identity.is_of_token():
            return cls(owner, frozenset(ids), partial(_in_claim, claimed))
        key = known.keys.by_id(identity.key_id)
        return cls(owner, frozenset(ids), key.allows if key else lambda _: False)


def _in_claim(claimed: str | None, model: str) -> bool:
    """As ``tokens.lua`` decides for calls."""
    if claimed is None:
        return True
    entries = claimed.split()
    return any(model.startswith(one[:-1]) if one.endswith("*") else model == one for one in entries)


def status(
    caller: Caller, known: Known, news: Sequence[News], requests: Glances, refused: Mapping[str, int]
) -> StatusView:
    """Puts it together."""
    reports = [(each.part.group, each.report) for each in news if each.report is not None]
    names = {*known.models, *(name for _, report in reports for name in (*report.models, *report.troubles))}
    return StatusView(
        owner=caller.owner,
        uploads_here=uploads_here(known.topology),
        parts=(*_own_parts(), *(_part(each) for each in news)),
        models=tuple(_model(name, known, reports, news) for name in sorted(filter(caller.may_call, names))),
        refused=dict(refused),
        unknown=_unknown(news),
        requests=requests,
    )


def uploads_here(topology: Topology) -> bool:
    """Whether the router leads to the store."""
    return topology.store is not None and topology.uploads is not None


def _own_parts() -> Iterable[PartView]:
    """Who reads this has reached it."""
    yield PartView(name="router", role="router", group="", state="ready")


def _part(news: News) -> PartView:
    part, report = news.part, news.report
    ready = report is None or (report.ready and bool(report.models))
    reasons = "; ".join(report.reasons) if report and not ready else ""  # of a ready one's models the models tell
    state = "silent" if news.silent else "ready" if ready else "not ready"
    reason = _without_folders(news.silent or reasons)
    return PartView(name=part.name, role=part.role, group=part.group, state=state, reason=reason)


def _without_folders(text: str) -> str:
    """Where the service has its files is not its callers' business."""
    return _FOLDERS.sub("…/", text)


def _model(name: str, known: Known, reports: Sequence[tuple[str, WorkerReport]], news: Iterable[News]) -> ModelView:
    if name in known.service.pipelines:
        return _pipeline(name, known, news)
    pool = known.service.pool_of(name) or ""
    here = [report for group, report in reports if group == pool]
    serving = [report for report in here if name in report.models]
    served = [report.served[name] for report in serving if name in report.served]
    troubles = (report.troubles[name] for report in here if name in report.troubles)
    reasons = tuple(dict.fromkeys(map(_without_folders, troubles)))
    return ModelView(
        name=name,
        pool=pool,
        state=_state(name, known, serving=bool(serving), refused=bool(reasons)),
        task=served[0].task if served else "",
        versions=tuple(sorted({each.version for each in served})),
        replicas=len(here),
        replicas_ready=sum(report.ready for report in serving),
        reasons=reasons if pool else ("no pool of the service file takes it",),
        batchers=_figures(name, known, news),
    )


def _pipeline(name: str, known: Known, news: Iterable[News]) -> ModelView:
    """Called as a model is; its steps are models, which tell for themselves."""
    return ModelView(
        name=name,
        pool="",
        state="served",
        task="pipeline",
        replicas=0,
        replicas_ready=0,
        batchers=_figures(name, known, news),
    )


def _figures(name: str, known: Known, news: Iterable[News]) -> dict[str, Figures]:
    """Of the model's batchers, those that have seen none of its requests, too: so the page sees its first one."""
    group = known.topology.batcher_of(name)
    own = (each for each in news if each.part.role == "batcher" and not each.silent)
    return {
        each.part.name: each.figures.get(name, Figures())
        for each in own
        if name in each.figures or each.part.group == group
    }


def _unknown(news: Iterable[News]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for each in news:
        sums.update(each.figures.get(NOT_VOUCHED_FOR, Figures()).answered)
    return dict(sums)


def _state(name: str, known: Known, *, serving: bool, refused: bool) -> str:
    if serving:
        return "served"
    if refused or name in known.unserved or known.service.pool_of(name) is None:
        return "refused"
    return "waiting"
