from __future__ import annotations

import json

import pytest

from shoal.errors import ConfigurationError
from shoal.plan.document import parse as parse_document
from shoal.plan.history import History, of_rows
from shoal.plan.prometheus import parse

HEAD = ["hour", "model", "per_s"]


def test_last_week_s_error_is_the_mean_difference_over_the_mean_load() -> None:
    week = 7 * 24
    known = dict.fromkeys(range(week), 100.0) | {week + hour: 110.0 if hour % 2 else 90.0 for hour in range(week)}
    assert History({"a": known}).error("a") == pytest.approx(0.1)
    assert History({"a": {0: 1.0}}).error("a") is None
    assert "more than a week" in History({"a": {0: 1.0}}).prediction()


def test_a_day_is_the_heaviest_of_each_hour() -> None:
    day = History({"a": {0: 5.0, 24: 7.0, 1: 1.0}}).day("a")
    assert day[:2] == [7.0, 1.0]
    assert day[2] == 4.0  # never seen: the mean


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "has no rows"),
        ([["time", "model", "per_s"]], "f:1: the columns are time,model,per_s"),
        ([HEAD, ["2026-11-27T13:00", "a"]], "f:2: has 2 fields"),
        ([HEAD, ["noon", "a", "1"]], "f:2: hour: 'noon'"),
        ([HEAD, ["2026-11-27T13:00", "a", "-1"]], "f:2: per_s: '-1'"),
        ([HEAD, ["2026-11-27T13:00", "a", "1"], ["2026-11-27T13:30", "a", "1"]], "f:3: hour .* is there twice"),
    ],
)
def test_faults_name_the_line(rows: list[list[str]], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        of_rows(rows, "f")


def test_an_answer_of_prometheus_is_read_to_the_hour_before_its_sample() -> None:
    body = {"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"model": "a"}, "values": [[7200, "3.5"], [10800, "NaN"]]}]}}  # fmt: skip
    assert parse(json.dumps(body).encode(), "http://p").rates == {"a": {1: 3.5}}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<html>", "none of Prometheus' HTTP API"),
        (b"[]", "none of Prometheus' HTTP API"),
        (b'{"status": "error", "error": "bad query"}', "bad query"),
        (b'{"status": "success", "data": {"resultType": "vector", "result": []}}', "answered a vector"),
        (b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', "knows no shoal_batcher_requests"),
    ],
)
def test_a_bad_answer_is_refused_with_its_reason(body: bytes, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        parse(body, "http://p")


def test_the_past_takes_the_place_of_the_file_s_load() -> None:
    text = (
        "models: {a: {batch_ms: {1: 2}, memory_gib: 1, latency_objective_ms: 50}}\n"
        "load: {total_per_s: 5, mix: {a: 1}, growth_per_month: 1, months: 1}\n"
        "hardware: {how_many: true, gpu_memory_gib: 80}\n"
    )
    planned = History({"a": dict.fromkeys(range(24), 3.0)}).planned_for(parse_document(text, "f"))
    assert planned.rates("a") == (6.0,) * 24
    with pytest.raises(ConfigurationError, match="nothing of a; it has b"):
        History({"b": {0: 1.0}}).planned_for(parse_document(text, "f"))
