from __future__ import annotations

from shoal.explain.views import stages

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"


def test_stages_add_up_and_end_with_the_one_that_goes_on() -> None:
    marks = [("fetch", 11.0), ("decode", 14.0), ("compute", 0.0), ("reply", 0.0)]
    assert stages(10.0, marks, 20.0) == {"fetch": 1.0, "decode": 3.0, "compute": 6.0}


def test_a_mark_before_the_one_ahead_of_it_takes_nothing() -> None:
    assert stages(10.0, [("mates", 12.0), ("instance", 11.0), ("compute", 15.0)], 15.0) == {
        "mates": 2.0,
        "instance": 0.0,
        "compute": 3.0,
    }


def test_a_mark_that_another_thread_has_just_set_makes_no_stage_negative() -> None:
    assert stages(10.0, [("fetch", 0.0)], 9.0) == {"fetch": 0.0}
