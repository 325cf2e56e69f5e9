"""What every part of the service file is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A pool's or a model's name: fit for a DNS label, a header value and a folder."""

Port = Annotated[int, Field(ge=1, le=65535)]

Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""Up to a day: Envoy takes no longer ones, and would then go on without any of its routes."""


_USER = re.compile(r"[a-z0-9]+://[^/?#]*@")


def _nobody(address: str) -> str:
    if _USER.match(address):
        raise ValueError("must not hold a user or a password; they belong in a credentials file or a Secret")
    return address


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
    AfterValidator(_nobody),
    Field(json_schema_extra={"pattern": "^((s3|gs|az|memory)://|file:///)"}),
]
"""``s3://bucket[/prefix]``, ``gs://``, ``az://``, ``file:///`` or ``memory://``."""

HttpAddress = Annotated[
    str, AfterValidator(_http_address), AfterValidator(_nobody), Field(json_schema_extra={"pattern": "^https?://"})
]
"""``http://…`` or ``https://…``."""

Raw: TypeAlias = dict[str, Any]
"""An object of Kubernetes' own, passed on as it is."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")]
"""A quantity as Kubernetes writes it: ``500m``, ``2Gi``."""

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
"""The name of a Kubernetes object."""


class Section(BaseModel):
    """A part of the service file: unknown keys are errors, and a loaded one never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())
