"""What every part of the service file is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A pool's or a model's name: fit for a DNS label, a header value and a folder."""

Port = Annotated[int, Field(ge=1, le=65535)]

Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""Up to a day: Envoy takes no longer ones, and would then go on without any of its routes."""


def _known_scheme(url: str) -> str:
    if not url.startswith(("s3://", "gs://", "az://", "file:///", "memory://")):
        raise ValueError("must start with s3://, gs://, az://, file:/// or memory://")
    return url


def _http_address(endpoint: str) -> str:
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return endpoint


StoreUrl = Annotated[
    str,
    AfterValidator(_known_scheme),
    Field(json_schema_extra={"pattern": "^((s3|gs|az|memory)://|file:///)"}),
]
"""``s3://bucket[/prefix]``, ``gs://``, ``az://``, ``file:///`` or ``memory://``."""

HttpAddress = Annotated[str, AfterValidator(_http_address), Field(json_schema_extra={"pattern": "^https?://"})]
"""``http://…`` or ``https://…``."""


class Section(BaseModel):
    """A part of the service file: unknown keys are errors, and a loaded one never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
