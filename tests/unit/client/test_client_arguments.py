from __future__ import annotations

import math
import re

import pytest

from shoal.client.arguments import max_age_us
from shoal.errors import InvalidRequest


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [(0, 0), (-0.0, 0), (1e-7, 0), (0.29, 290_000), (60, 60_000_000), (2**31, 2**31 * 1_000_000)],
)
def test_an_age_is_sent_in_microseconds(seconds: float, sent: int) -> None:
    assert max_age_us(seconds) == sent


@pytest.mark.parametrize("seconds", [-1, -1e-9, math.nan, math.inf, -math.inf, 2**31 + 1, 1e300])
def test_what_is_no_age_is_refused_by_name(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(f"max_age_seconds {seconds}: expected 0 to 2,147,483,648")):
        max_age_us(seconds)
