from __future__ import annotations

import pytest

from shoal.modelconfig.model import Task
from shoal.pipeline.check import Known
from shoal.pipeline.steps import Mask, first_step, looks
from shoal.service import spec
from shoal.v1 import inference_pb2 as pb

FILE = """\
pipelines:
  street:
    detect: {model: finder, score_threshold: 0.5, classes: [car, bird], max_boxes: 3, padding: 0.1, square: true}
    then:
      - {model: species, for: [bird], top_k: 3}
      - {model: colour}
      - model: plates
        for: [car]
        then: [{model: outline, name: shape}]
"""
MODELS = {
    "finder": Known(Task.DETECTION, max_batch_size=64),
    "plates": Known(Task.DETECTION, max_batch_size=16),
    "species": Known(Task.CLASSIFICATION, max_batch_size=4),
    "colour": Known(Task.CLASSIFICATION),
    "outline": Known(Task.SEGMENTATION, max_batch_size=1),
}
FIRST = first_step(spec.parse(FILE, "s").pipelines["street"], MODELS)
UUID = "4b5ef40f-1f6b-4b4f-9d52-1b8f6b7ab4a8"


def box(label: str, score: float, **place: float) -> pb.Box:
    return pb.Box(**{"x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4, **place}, label=label, score=score)


def test_no_call_asks_about_more_parts_than_the_model_runs_together() -> None:
    most = {step.name: step.most_parts for step in FIRST.all()}
    assert most == {"finder": 16, "species": 4, "colour": 8, "plates": 16, "shape": 1}


def test_boxes_are_kept_by_class_and_score_the_best_first() -> None:
    boxes = [box("car", 0.6), box("boat", 0.99), box("bird", 0.9), box("car", 0.7), box("car", 0.8)]
    assert [round(each.score, 2) for each in FIRST.chosen(boxes)] == [0.9, 0.8, 0.7]
    assert FIRST.chosen([]) == []


def test_a_box_goes_to_the_steps_of_its_class_in_the_order_of_the_file() -> None:
    found = [pb.Finding(box=box("bird", 0.9)), pb.Finding(box=box("car", 0.8))]
    told = [(step.name, [look.region.x for look in parts]) for step, parts in looks(FIRST, found)]
    x = pytest.approx(0.1)
    assert told == [("species", [x]), ("colour", [x, x]), ("plates", [x])]
    steps = [[(result.step, result.model_name) for result in each.results] for each in found]
    assert steps == [[("species", "species"), ("colour", "colour")], [("colour", "colour"), ("plates", "plates")]]
    assert list(looks(FIRST, [])) == []


def test_what_is_said_of_a_part_is_found_at_its_box() -> None:
    found = [pb.Finding(box=box("bird", 0.9)), pb.Finding(box=box("bird", 0.8))]
    for _, parts in looks(FIRST, found):
        for place, look in enumerate(parts):
            look.result.model_version = place + 1
    assert [[result.model_version for result in each.results] for each in found] == [[1, 1], [2, 2]]


def test_the_next_step_sees_the_box_with_the_detectors_padding() -> None:
    ((_, (look,)), *_) = looks(FIRST, [pb.Finding(box=box("bird", 0.9))])
    expected = pb.PictureRegion(x=0.1, y=0.2, width=0.3, height=0.4, padding=0.1, square=True)
    assert look.region == expected
    ((shape, (look,)),) = looks(FIRST.then[2], [pb.Finding(box=box("x", 1))])
    assert shape.name == "shape"
    assert look.region == pb.PictureRegion(x=0.1, y=0.2, width=0.3, height=0.4)


def test_a_step_is_asked_with_its_own_settings_and_never_with_a_key() -> None:
    assert FIRST.request(UUID, Mask()) == pb.ImageRequest(image_uuid=UUID, model_name="finder", score_threshold=0.5)
    region = FIRST.region(box("car", 0.5))
    species = FIRST.then[0]
    assert species.request(UUID, Mask(), [region]) == pb.ImageRequest(
        image_uuid=UUID, model_name="species", top_k=3, region=region
    )
    assert species.request(UUID, Mask(), [region, region]) == pb.ImageRequest(
        image_uuid=UUID, model_name="species", top_k=3, regions=[region, region]
    )


@pytest.mark.parametrize(("place", "form"), [(0, pb.MASK_FORM_PNG), (2, pb.MASK_FORM_RUNS)])
def test_the_callers_form_of_masks_is_for_segmentation_alone(place: int, form: pb.MaskForm) -> None:
    steps = FIRST.then[place], FIRST.then[2].then[0]
    asked = [step.request(UUID, Mask(form, pb.MASK_SIZE_PICTURE)) for step in steps]
    assert asked[0].mask_form == pb.MASK_FORM_PNG
    assert asked[0].mask_size == pb.MASK_SIZE_MODEL
    assert (asked[1].mask_form, asked[1].mask_size) == (form, pb.MASK_SIZE_PICTURE)


def test_all_steps_in_the_order_of_the_file() -> None:
    assert [step.name for step in FIRST.all()] == ["finder", "species", "colour", "plates", "shape"]
