from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home
from shoal.service.worker_report import WorkerReport

if TYPE_CHECKING:
    from pathlib import Path


def test_a_report_is_found_by_the_workers_address(tmp_path: Path) -> None:
    home, worker = Home(tmp_path), Endpoint("127.0.0.1", 7)
    assert WorkerReport.load(home, worker) == WorkerReport()
    report = WorkerReport(ready=False, models=("a",), reasons=("model b: no",))
    report.save(home, worker)
    assert WorkerReport.load(home, worker) == report
    assert WorkerReport.load(home, worker._replace(port=8)) == WorkerReport()
