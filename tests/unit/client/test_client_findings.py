from __future__ import annotations

from shoal.client.findings import analysis
from shoal.client.replies import Elapsed
from shoal.v1 import inference_pb2 as pb


def test_what_steps_could_not_tell_of_boxes_and_of_boxes_within_them() -> None:
    plates = pb.StepResult(
        step="plates",
        findings=[
            pb.Finding(results=[pb.StepResult(step="letters", code=4, message="too late")]),
            pb.Finding(results=[pb.StepResult(step="letters")]),
        ],
    )
    colours = pb.StepResult(step="colours", code=14, message="away")
    found = analysis(pb.AnalyzeReply(findings=[pb.Finding(results=[plates, colours]), pb.Finding()]), Elapsed(0, 0))
    assert [(each.step, str(each.error)) for each in found.unanswered()] == [
        ("letters", "too late"),
        ("colours", "away"),
    ]
