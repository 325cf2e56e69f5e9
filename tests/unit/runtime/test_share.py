from __future__ import annotations

import pytest

from shoal.runtime.share import share


@pytest.mark.parametrize(("amount", "processes", "each"), [(4, 1, 4), (4, 2, 2), (5, 2, 3), (1, 4, 1), (0, 2, 0)])
def test_shares_add_up_to_the_amount_at_least(amount: int, processes: int, each: int) -> None:
    assert share(amount, processes) == each
    assert each * processes >= amount
