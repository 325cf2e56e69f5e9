from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from shoal.errors import InvalidRequest
from shoal.v1 import inference_pb2, json_pb2
from shoal.worker.json_message import parse

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"


def came(fields: dict[str, Any], model: str = "") -> inference_pb2.ImageRequest:
    message = json_format.ParseDict({"json": fields, "model_name": model}, json_pb2.JsonMessage())
    return parse(inference_pb2.ImageRequest, message.SerializeToString(), as_json=True)


@pytest.mark.parametrize("names", [("image_uuid", "top_k"), ("imageUuid", "topK")])
def test_both_spellings_of_protobufs_json_are_fields(names: tuple[str, str]) -> None:
    expected = inference_pb2.ImageRequest(image_uuid=UUID, top_k=3, model_name="m")
    assert came(dict(zip(names, (UUID, 3), strict=True)), "m") == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image_uid": UUID}, 'ImageRequest has no field "image_uid"; it has api_key, image_uuid, model_name,'),
        ({"x" * 1000: 1}, f'has no field "{"x" * 64}…"'),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"image_uuid": 7}, "image_uuid"),
        ({"image_uuid": {"a": 1}}, "image_uuid"),
        ({"mask_form": "MASK_FORM_NONE"}, "mask_form"),
        ({"image_uuid": UUID, "imageUuid": UUID}, "image_uuid"),
    ],
)
def test_what_is_refused_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        came(fields)
    assert text in str(error.value)
    assert len(str(error.value)) < 400


def test_the_models_name_in_the_body_stays_beside_the_paths() -> None:
    assert came({"model_name": "a"}, "b").model_name == "a"  # admission sees that it differs
    assert came({"modelName": "a"}, "b").model_name == "a"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_message_of_an_older_router_and_of_grpc_is_the_message_itself(as_json: bool) -> None:
    sent = inference_pb2.ImageRequest(image_uuid=UUID, model_name="m")
    assert parse(inference_pb2.ImageRequest, sent.SerializeToString(), as_json=as_json) == sent


@pytest.mark.parametrize("as_json", [False, True])
def test_noise_is_refused(as_json: bool) -> None:
    with pytest.raises(InvalidRequest, match=r"not a shoal\.v1\.ImageRequest"):
        parse(inference_pb2.ImageRequest, b"\xff\xff", as_json=as_json)


def test_what_nests_deeper_than_protobuf_reads_is_refused() -> None:
    inner = json_pb2.JsonMessage()
    value = inner.json.fields["a"]
    for _ in range(200):
        value = value.list_value.values.add()
    with pytest.raises(InvalidRequest):
        parse(inference_pb2.ImageRequest, inner.SerializeToString(), as_json=True)
