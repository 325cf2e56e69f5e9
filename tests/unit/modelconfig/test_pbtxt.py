"""All faults of a config.pbtxt at once, with their lines; and the fields that Triton alone reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from shoal.modelconfig import pbtxt, pbtxt_faults
from shoal.modelconfig.fault import FaultReport
from shoal.modelstore.check import check
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path


def found(text: str) -> list[tuple[int, str]]:
    return [(fault.line, fault.message) for fault in pbtxt_faults.find(text, pbtxt.parse)[0]]


def test_every_fault_has_its_line() -> None:
    text = """name: "a"
max_batchsize: 3
quux_new { a: 1 b: "}" # }
  c: [1,2] }
input [{ name: "x" data_type: TYPE_UINT dims: [1]}]
max_batch_size: abc
instance_group { count: -x }
dynamic_batching { } dynamic_batching { preferred_batch_size: 4 }
output [ { nme: "y" }, { } ]
name: 5
"""
    assert found(text) == [
        (2, "'max_batchsize' is unknown; did you mean 'max_batch_size'?"),
        (3, "'quux_new' is unknown; it is left out; a newer Triton may know it"),
        (5, "TYPE_UINT is unknown; did you mean 'TYPE_UINT8'?"),
        (6, "Couldn't parse integer: abc"),
        (7, "Couldn't parse integer: -x"),
        (8, "'dynamic_batching' is given twice"),
        (9, "'nme' is unknown; did you mean 'name'?"),
        (10, "Expected string but found: '5'"),
        (10, "'name' is given twice"),
    ]


@pytest.mark.parametrize("text", ['name: "a', "dynamic_batching {", "}", 'name "x"', "input [ {} {} ]", "\x00", "a: '"])
def test_what_cannot_be_taken_out_ends_it(text: str) -> None:
    assert found(text)


@given(st.text(alphabet=st.sampled_from('name: "{}[]<>,#\n1x\\'), max_size=40))
def test_any_text_ends(text: str) -> None:
    faults, rest = pbtxt_faults.find(text, pbtxt.parse)
    try:
        pbtxt.parse(rest)
    except text_format.ParseError:
        assert faults


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    add_tiny_classifier(tmp_path)
    return tmp_path / "tiny"


def faults(folder: Path) -> list[str]:
    return [f"{fault.severity}: {fault}" for fault in check(folder.parent, folder.name)]


def test_a_field_of_a_newer_triton_is_a_note_and_stays(tiny: Path) -> None:
    file = tiny / "config.pbtxt"
    file.write_text(file.read_text() + "galaxy_brain { size: 7 }\n")
    (line,) = faults(tiny)
    assert line.startswith(f"note: {file}: line ")
    assert "galaxy_brain" in line
    add_tiny_classifier(tiny.parent, version=2)
    assert "galaxy_brain { size: 7 }" in file.read_text()


def test_a_broken_config_hides_no_broken_graph(tiny: Path) -> None:
    (tiny / "1" / "model.onnx").write_bytes(b"\x00" * 9)
    file = tiny / "config.pbtxt"
    file.write_text(file.read_text().replace("max_batch_size: 4", "max_batch_siez: 4").replace("TYPE_UINT8", "UINT8"))
    unit, largest, graph = faults(tiny)
    assert "line 9: UINT8 is unknown; did you mean 'TYPE_UINT8'?" in unit
    assert "line 17: 'max_batch_siez' is unknown; did you mean 'max_batch_size'?" in largest
    assert f"{tiny / '1' / 'model.onnx'}: not a model that can be loaded" in graph


def test_all_versions_that_are_served_are_checked(tiny: Path) -> None:
    add_tiny_classifier(tiny.parent, version=2)
    (tiny / "1" / "model.onnx").write_bytes(b"")
    assert faults(tiny) == []
    file = tiny / "config.pbtxt"
    file.write_text(file.read_text() + "version_policy { all { } }\n")
    (line,) = faults(tiny)
    assert str(tiny / "1" / "model.onnx") in line


WARM = 'inputs { key: "image" value { data_type: TYPE_UINT8 dims: [32, 32, 3] zero_data: true } }'


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("version_policy { latest { num_versions: 0 } }", "version_policy.latest.num_versions"),
        ("version_policy { specific { versions: [9] } }", "version_policy.specific: wants version 9; present: 1"),
        ("instance_group { kind: KIND_CPU gpus: [0] }", "instance_group.gpus: [0] with KIND_CPU"),
        ("instance_group { kind: KIND_GPU gpus: [0, 0] }", "instance_group.gpus: [0, 0]"),
        ("instance_group { count: -1 }", "instance_group.count: is -1"),
        ("sequence_batching { }", "dynamic_batching"),
        (
            f'model_warmup {{ name: "w" batch_size: 5 {WARM} }}',
            "model_warmup.batch_size: is 5; 1 to max_batch_size (4)",
        ),
        ('model_warmup { name: "w" batch_size: 1 }', "model_warmup.inputs: has none; the model takes image"),
        (
            f'model_warmup {{ name: "w" batch_size: 1 {WARM.replace("32, 32", "16, 16")} }}',
            "model_warmup.inputs: 'image' has another data_type or dims",
        ),
        (
            f'model_warmup {{ name: "w" batch_size: 1 {WARM.replace("zero_data: true", "input_data_file: `a`")} }}',
            "warmup/a: missing",
        ),
        (
            f'model_warmup {{ name: "w" batch_size: 1 {WARM.replace("zero_data: true", "input_data_file: `../a`")} }}',
            "model_warmup.inputs.input_data_file: '../a' leaves",
        ),
    ],
)
def test_fields_that_triton_reads(tiny: Path, line: str, field: str) -> None:
    file = tiny / "config.pbtxt"
    text = file.read_text()
    if line.startswith("sequence"):
        text = "\n".join(text.splitlines()[:16]) + "\n" + text[text.index("instance_group") :]
    file.write_text(text + line.replace("`", '"') + "\n")
    assert any(line.startswith("error: ") and field in line for line in faults(tiny)), faults(tiny)


def test_a_warm_up_file_of_the_wrong_size(tiny: Path) -> None:
    (tiny / "warmup").mkdir()
    (tiny / "warmup" / "a").write_bytes(bytes(5))
    file = tiny / "config.pbtxt"
    warm = WARM.replace("zero_data: true", 'input_data_file: "a"')
    file.write_text(file.read_text() + f'model_warmup {{ name: "w" batch_size: 1 {warm} }}\n')
    assert "has 5 bytes; one input has 3,072" in faults(tiny)[0]
    (tiny / "warmup" / "a").write_bytes(bytes(3072))
    assert faults(tiny) == []


def test_a_missing_backend(tiny: Path) -> None:
    file = tiny / "config.pbtxt"
    file.write_text(file.read_text().replace('backend: "onnxruntime"\n', ""))
    assert "backend: missing" in faults(tiny)[0]


def _load(tmp_path: Path, content: bytes) -> list[str]:
    (tmp_path / pbtxt.FILE).write_bytes(content)
    report = FaultReport("m")
    assert pbtxt.load(tmp_path / pbtxt.FILE, report) is None
    return [str(fault) for fault in report.errors]


def test_more_unknown_fields_than_are_named_are_a_fault(tmp_path: Path) -> None:
    faults = _load(tmp_path, b"".join(b"field_%d: 1\n" % number for number in range(100)))
    assert faults == [f"{tmp_path / pbtxt.FILE}: 20 faults are named; there are more"]


def test_a_byte_order_mark_is_named_for_triton_reads_none(tmp_path: Path) -> None:
    assert "byte order mark" in _load(tmp_path, b"\xef\xbb\xbfname: 'm'\n")[0]


def test_other_line_ends_and_scripts_move_no_fault(tmp_path: Path) -> None:
    faults = _load(tmp_path, "# \u2028 \x85 \x0c\r\nmax_batch_siz: 3\r\nname: TYPE_X\n".encode())
    assert [": line 2: " in fault or ": line 3: " in fault for fault in faults] == [True] * len(faults)


def test_a_config_over_the_limit_is_refused(tmp_path: Path) -> None:
    assert "larger than 262,144 bytes" in _load(tmp_path, b"#" * 300_000)[0]
