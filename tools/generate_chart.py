"""Writes what chart and reference take from the service file's models, or with --check says whether that is current.

values.schema.json, values.yaml, defaults.json and README.md of the chart, and docs/reference/kubernetes.md's tables.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from generated import ROOT, checking, keep
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from shoal.batcher import process as batcher
from shoal.batching import host as worker
from shoal.router.drain import HAND_OVER_SECONDS, Departure
from shoal.runtime.endpoint import Endpoint
from shoal.service.kubernetes import SELECTOR_LABELS, Kubernetes, ModelSync
from shoal.service.kubernetes_extras import OWN_FOLDERS, OWN_TREES, OWN_VARIABLES, OWN_VOLUMES
from shoal.service.kubernetes_ports import PORTS
from shoal.service.pipelines import DEEPEST, MAX_BOXES, MOST_CALLS, Pipeline
from shoal.service.section import Section
from shoal.service.spec import Pool, Service
from shoal.triton.installation import Installation
from shoal.triton.launch import SHARED_MEMORY_FLAG, SHM_PREFIX, Options, arguments

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = ROOT / "deploy" / "helm" / "shoal"
PAGE = ROOT / "docs" / "reference" / "kubernetes.md"
BEGIN, END = "<!-- make chart writes these tables -->", "<!-- until here -->"
TABLES = ("pools", "models", "pipelines")
"""Sections whose keys are names of the user's: the chart must not give any, for Helm would add them to the user's."""

_WIDTH = 116
_AS_WORKER = "Keys: those of `kubernetes.worker` but `service_account`."
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*")
_KEYWORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def main() -> None:
    """The command line."""
    keep(generate(PAGE.read_text(encoding="utf-8")), "chart", check=checking(__doc__))


def generate(page: str) -> dict[Path, str]:
    """The files and their texts."""
    return {
        CHART / "values.schema.json": _json(schema()),
        CHART / "values.yaml": values(),
        CHART / "defaults.json": _json(defaults()),
        CHART / "README.md": readme(),
        PAGE: with_tables(page),
    }


# values.schema.json


def schema() -> dict[str, Any]:
    """The service file's JSON schema, with our words and Helm's own key."""
    found = Service.model_json_schema()
    for kind in sections(Service):
        described = found if kind is Service else found["$defs"][kind.__name__]
        for key, text in documentation(kind).items():
            described["properties"][_told(kind, key)]["description"] = text
    for section in _given(Service()):
        kind = type(section)
        described = found if kind is Service else found["$defs"][kind.__name__]
        if within := [key for key, _ in _sections_of(section)]:
            described["required"] = within
    found["properties"]["global"] = {"type": "object", "description": "Helm's own, for charts that hold this one."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_tidy(found)}


def _told(kind: type[BaseModel], key: str) -> str:
    """How a file calls a key, which may be a word of Python's."""
    return kind.model_fields[key].alias or key


def _given(section: BaseModel) -> Iterator[BaseModel]:
    """``section`` and those within it that values.yaml has: they are missing only where a user's null took them out."""
    yield section
    for _, inner in _sections_of(section):
        yield from _given(inner)


def _sections_of(section: BaseModel) -> list[tuple[str, BaseModel]]:
    return [(key, value) for key, value in section if isinstance(value, BaseModel)]


def sections(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``kind`` and the sections within it, each once."""
    seen: dict[type[BaseModel], None] = {}
    waiting = [kind]
    while waiting:
        if (section := waiting.pop()) in seen:
            continue
        seen[section] = None
        waiting += [inner for field in section.model_fields.values() for inner in _models_in(field.annotation)]
    yield from seen


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # a type, or what stands for one
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def documentation(kind: type[BaseModel]) -> dict[str, str]:
    """Key to the text below it in the source, inherited ones too; of a section without one, the section's own."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        if issubclass(parent, Section) and parent is not Section:
            found |= _written_below_keys(parent)
    for key, field in kind.model_fields.items():
        models = _models_in(field.annotation)
        if key not in found and models:
            found[key] = _one_line(inspect.getdoc(models[0]) or "")
    return {key: found[key] for key in kind.model_fields if key in found}


def _written_below_keys(kind: type[BaseModel]) -> dict[str, str]:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[statement.target.id] = _one_line(text)
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def _tidy(node: Any) -> Any:  # any JSON value
    """Without what repeats keys and other places, and strict about the names in tables."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return node
    left_out = {key for key, value in node.items() if key == "title" and isinstance(value, str)}
    if "$ref" in node:
        left_out.add("default")
    strict = {"additionalProperties": False} if "patternProperties" in node else {}
    return {key: _tidy(value) for key, value in node.items() if key not in left_out} | strict


# values.yaml


def values() -> str:
    """Every key with its default; what has none, or is a table of the user's, is a comment."""
    head = [
        "# The values are the service file: `helm install -f shoal.yaml` and `shoal up -f shoal.yaml` take the same.",
        "# Written by `make chart`; docs/service-file.md and docs/reference/kubernetes.md explain the keys.",
    ]
    return "\n".join([*head, *_section_lines(Service, Service())]) + "\n"


def _section_lines(kind: type[BaseModel], section: BaseModel) -> Iterator[str]:
    texts = documentation(kind)
    for key in kind.model_fields:
        value = getattr(section, key)
        yield ""
        if key in texts:
            yield from (f"# {line}" for line in textwrap.wrap(texts[key], _WIDTH))
        if key in TABLES:
            yield f"# {key}: {{}}"
        elif isinstance(value, BaseModel):
            yield f"{key}:"
            inner = list(_section_lines(type(value), value))
            yield from (f"  {line}" if line else "" for line in inner[1:])
            if all(line.startswith("#") or not line for line in inner):
                yield "  {}"
        else:
            yield f"# {key}:" if value is None else f"{key}: {_flow(value)}"


def _flow(value: Any) -> str:  # any JSON value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _KEYWORDS:
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


# defaults.json


def defaults() -> dict[str, Any]:
    """What templates need for the user's tables, and of the code's own limits."""
    router = Departure()
    return {
        "pool": Pool().model_dump(exclude_none=True),
        "pipeline": {
            "replicas": Pipeline.model_fields["replicas"].default,
            "max_boxes": MAX_BOXES,
            "deepest": DEEPEST,
            "most_calls": MOST_CALLS,
        },
        "sync": ModelSync().model_dump(exclude_none=True),
        "own": {
            "labels": sorted(SELECTOR_LABELS),
            "variables": sorted(OWN_VARIABLES),
            "volumes": sorted(OWN_VOLUMES),
            "folders": sorted(OWN_FOLDERS),
            "trees": sorted(OWN_TREES),
        },
        "ports": PORTS,
        "triton": triton(),
        "drain_seconds": {
            "envoy": int(router.drain_seconds),
            "router": int(router.drain_seconds + HAND_OVER_SECONDS),
            "batcher": int(batcher.DRAIN_SECONDS),
            "worker": int(worker.NOTICE_SECONDS + worker.DRAIN_SECONDS + worker.STOP_SECONDS),
            "pipeline": int(worker.NOTICE_SECONDS + 2 * worker.DRAIN_SECONDS),
        },
    }


def triton() -> dict[str, Any]:
    """How a pod's Triton is started; the template adds ``--model-repository``, and shared memory where it is known."""
    options = Options(
        repository=Path(),
        listen=Endpoint("127.0.0.1", PORTS["triton"]),
        metrics=Endpoint("0.0.0.0", PORTS["triton_metrics"]),  # noqa: S104 - a pod's own address
    )
    server = Installation(Path("tritonserver"), None)
    command, _, *rest = arguments(server, options, known=SHARED_MEMORY_FLAG, shm_prefix=SHM_PREFIX)
    return {"command": command, "arguments": rest[:-1], "allow_shared_memory": rest[-1]}


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


# README.md

_ABOUT = """\
# Shoal

Image inference that batches references before the load balancer and decodes each picture once, beside the model.

```sh
helm install shoal oci://registry.example/charts/shoal --version {version} --namespace vision -f shoal.yaml --wait
helm test shoal --namespace vision --logs
```

The values are Shoal's service file: `shoal up -f shoal.yaml` takes the same on one machine. What has no default is a
comment in `values.yaml`. Unknown keys, values out of range and contradictions end the installation before anything is
made. A Secret with API keys (`shoal keys create`) has to be there; its name is `kubernetes.secrets.keys`. How the parts
work together: the chapters "Deploy", "Roll out and scale" and "Pods and networks" of Shoal's documentation, `docs/`.

Written by `make chart`.
"""


def readme() -> str:
    """A table for each section of the values; nested keys by their path, a user's names as ``<name>``."""
    texts = documentation(Service)
    parts = [_ABOUT.replace("{version}", _version())]
    for key, field in Service.model_fields.items():
        (kind,) = _models_in(field.annotation)
        section = None if key in TABLES else getattr(Service(), key)
        rows = _rows(kind, section, f"{key}.<name>." if section is None else f"{key}.")
        parts.append(f"## {key}\n\n{texts[key]}\n\n| key | default | consequence |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _version() -> str:
    """The chart's, without asking for a YAML reader."""
    (found,) = re.findall(r"^version: (\S+)$", (CHART / "Chart.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


# docs/reference/kubernetes.md


def with_tables(page: str) -> str:
    """``page`` with the tables of the ``kubernetes`` section between their marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def tables() -> str:
    """A table for each part of the section; nested keys by their path."""
    parts = []
    for key, field in Kubernetes.model_fields.items():
        (kind,) = _models_in(field.annotation)
        text = documentation(Kubernetes)[key]
        if key in TABLES:
            parts.append(f"## kubernetes.{key}\n\n{text} {_AS_WORKER}\n")
            continue
        rows = "\n".join(_rows(kind, kind(), ""))
        parts.append(f"## kubernetes.{key}\n\n{text}\n\n| key | default | consequence |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _rows(kind: type[BaseModel], section: BaseModel | None, prefix: str) -> Iterator[str]:
    """A row a key. ``section`` is the default one; None where there is none, so that the keys' own defaults hold."""
    texts = documentation(kind)
    for key, field in kind.model_fields.items():
        value = field.get_default(call_default_factory=True) if section is None else getattr(section, key)
        inner = _models_in(field.annotation)
        text = texts.get(key, "").replace("|", chr(92) + "|")
        if kind is Kubernetes and key in TABLES:
            yield f"| `{prefix}{key}.<name>` | none | {text} {_AS_WORKER} |"
        elif inner and isinstance(value, dict):  # names of the user's
            yield from _rows(inner[0], None, f"{prefix}{key}.<name>.")
        elif inner and get_origin(field.annotation) is list and inner[0] is not kind:
            yield from _rows(inner[0], None, f"{prefix}{key}[].")
        elif inner and inner[0] is not kind:
            yield from _rows(inner[0], value if isinstance(value, BaseModel) else None, f"{prefix}{key}.")
        else:
            yield f"| `{prefix}{_told(kind, key)}` | {_default(value)} | {text} |"


def _default(value: Any) -> str:  # any JSON value
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{_flow(value)}`"


if __name__ == "__main__":
    main()
