"""Which versions of a model are served: Triton's version_policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def served(policy: Any, present: Sequence[int]) -> list[int]:  # tritonclient ships no types
    """Those of the versions ``present``, lowest first, that a ``ModelVersionPolicy`` message serves.

    Without a policy it is the highest alone, as with ``latest { num_versions: 1 }``
    (https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md#version-policy).
    """
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "all":
        return list(present)
    if chosen == "specific":
        return [number for number in present if number in policy.specific.versions]
    return list(present[-max(policy.latest.num_versions, 1) :])
