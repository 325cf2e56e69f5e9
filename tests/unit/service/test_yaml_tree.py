from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.service import spec, yaml_tree


def _laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_laughs(9, 9), "f:5: more than 50,000 keys and values"),
        (_laughs(30, 2), "f:14: more than"),
        (
            "\n".join(["b0: &b0 {k: v}", *(f"b{n}: &b{n} {{k: *b{n - 1}}}" for n in range(1, 200))]),
            "nested deeper than 32",
        ),
        ("pools: &p {default: *p}", r"f:1: \*p stands for something that it is in itself"),
        ("pools: &p [{a: [*p]}]", r"\*p stands for"),
        ("pools: " + "[" * 20_000 + "]" * 20_000, "f:1: nested deeper than 32 levels"),
        ("pools: " + "{a: " * 500 + "}" * 500, "f:1: nested deeper"),
        ("".join(f"{' ' * n}a:\n" for n in range(500)), "f:33: nested deeper"),
        ("pools:\n  " + "- " * 500 + "a\n", "f:2: nested deeper"),
        ("pools: " + "a" * 2**20, "f: is larger than 1,048,576 bytes"),
        ("models:\n" + "".join(f"  m{n}: {{}}\n" for n in range(30_000)), "more than 50,000"),
        ("pools: *nowhere", "undefined alias"),
        ("- a\n", "f:1: expected a mapping"),
    ],
)
def test_a_text_over_a_limit_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        spec.parse(text, "f")


def test_aliases_and_merge_keys_within_the_limits_are_read() -> None:
    service = spec.parse("pools:\n  default: &d {models: ['*'], replicas: 2}\n  other: {<<: *d, models: [b]}\n", "f")
    assert service.pools["other"].replicas == 2


def test_an_alias_counts_as_what_it_stands_for_each_time_that_its_anchor_is_defined_anew() -> None:
    tree = yaml_tree.load("a: &x [1, 2, 3]\nb: *x\nc: &x 1\nd: [*x, *x]\n", "f")
    assert tree is not None
    assert [tree["b"], tree["d"]] == [[1, 2, 3], [1, 1]]


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert spec.parse("\ufeffrouter: {port: 81}\n", "f").router.port == 81


def test_thousands_of_faults_are_summed_up() -> None:
    with pytest.raises(ConfigurationError) as error:
        spec.parse("models:\n" + "".join(f"  m{n}: {{x: 1}}\n" for n in range(1000)), "f")
    assert len(str(error.value).splitlines()) == 51
    assert str(error.value).endswith("f: and 950 more")
