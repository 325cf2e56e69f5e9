from __future__ import annotations

import json
import pickle

from shoal.client.load.error_tally import ErrorTally, in_words
from shoal.errors import NotFound, Overloaded, ShoalError, Unavailable


def tally(*errors: ShoalError) -> ErrorTally:
    made = ErrorTally()
    for each in errors:
        made.add(each)
    return made


def test_each_status_has_a_number_and_the_first_ones_reason_in_the_order_of_names() -> None:
    told = tally(Unavailable("away"), NotFound("no image"), Unavailable("still away")).summary("errors")
    assert json.dumps(told) == json.dumps(
        {
            "errors": {"NOT_FOUND": 1, "UNAVAILABLE": 2},
            "reasons": {"NOT_FOUND": "no image", "UNAVAILABLE": "away"},
        }
    )


def test_what_processes_counted_adds_up_and_ones_own_reason_stays() -> None:
    whole = tally(Unavailable("away"))
    whole.extend(pickle.loads(pickle.dumps(tally(Unavailable("gone"), Overloaded("full"), Unavailable("gone")))))
    assert (whole.codes, whole.reasons) == (
        {"UNAVAILABLE": 3, "RESOURCE_EXHAUSTED": 1},
        {"UNAVAILABLE": "away", "RESOURCE_EXHAUSTED": "full"},
    )


def test_in_words() -> None:
    reasons = {"NOT_FOUND": "no image", "UNAVAILABLE": "away"}
    assert in_words({"NOT_FOUND": 1, "UNAVAILABLE": 1_200}, reasons) == [
        "1 x NOT_FOUND: no image",
        "1,200 x UNAVAILABLE: away",
    ]
    assert in_words({}, {}) == []
