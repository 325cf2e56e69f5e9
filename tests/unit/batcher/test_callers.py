from __future__ import annotations

import pytest

from shoal.batcher.callers import Callers, traceparent_of
from shoal.errors import InvalidRequest
from shoal.runtime.priority import Priority
from shoal.service.api_keys import Key
from shoal.service.identity import NOBODY, Identity


def headers(priority: Priority | None = None, rate: float = 0.0, **more: str) -> dict[str, str]:
    if priority is None:
        return more
    key = Key(id="key-1", key="k" * 43, owner="acme", priority=priority, requests_per_second=rate)
    return {"x-client-id": "key-1", "x-api-key": Identity.of(key).write(), **more}


def test_keys_of_one_owner_share_and_are_told_apart() -> None:
    caller = Callers().of(headers(Priority.INTERACTIVE))
    assert (caller.owner, caller.id.key_id) == ("acme", "key-1")


def test_what_is_no_routers_word_counts_as_it_is() -> None:
    caller = Callers().of({"x-client-id": "somebody", "x-api-key": "nonsense"})
    assert (caller.owner, caller.id, caller.priority, caller.bucket) == ("somebody", NOBODY, "interactive", None)
    with pytest.raises(InvalidRequest, match="x-client-id"):
        Callers().of({"x-client-id": "x" * 2000})


@pytest.mark.parametrize(
    ("key", "wish", "got"),
    [
        (Priority.INTERACTIVE, "", Priority.INTERACTIVE),
        (Priority.INTERACTIVE, "interactive", Priority.INTERACTIVE),
        (Priority.INTERACTIVE, "bulk", Priority.BULK),
        (Priority.BULK, "", Priority.BULK),
        (Priority.BULK, "interactive", Priority.BULK),
        (Priority.BULK, "bulk", Priority.BULK),
        (None, "bulk", Priority.BULK),
        (None, "", Priority.INTERACTIVE),
    ],
)
def test_a_call_lowers_what_its_key_has_and_never_raises_it(key: Priority | None, wish: str, got: Priority) -> None:
    more = {"x-priority": wish} if wish else {}
    assert Callers().of(headers(key, **more)).priority is got


def test_a_priority_that_is_none_is_refused_and_named() -> None:
    with pytest.raises(InvalidRequest, match=r"x-priority 'urgent': expected interactive or bulk"):
        Callers().of({"x-priority": "urgent"})


def test_a_keys_calls_share_its_limit_over_all_its_streams() -> None:
    callers = Callers()
    one, other = (callers.of(headers(Priority.INTERACTIVE, rate=5.0)) for _ in range(2))
    assert one.allowed(1e9, 4) + other.allowed(1e9, 4) == 5
    refusal = other.rate_limited(1e9)
    assert "rate limit" in str(refusal)
    assert refusal.retry_after_seconds == pytest.approx(0.2)


def test_a_key_without_a_limit_has_none() -> None:
    assert Callers().of(headers(Priority.INTERACTIVE)).allowed(0.0, 10**6) == 10**6


@pytest.mark.parametrize(
    ("text", "valid"), [("00-" + "1" * 32 + "-" + "2" * 16 + "-01", True), ("", False), ("x", False)]
)
def test_only_a_valid_trace_context_is_passed_on(text: str, *, valid: bool) -> None:
    assert traceparent_of(text) == (text if valid else "")
