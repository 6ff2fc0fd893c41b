# SPDX-License-Identifier: Apache-2.0
"""config.pbtxt: unknown fields are skipped whole and named with their line, errors are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_server.config_text import ConfigError, parse


@pytest.mark.parametrize(
    "unknown",
    [
        "novel: 3",
        "novel: -3.5e7,",
        "novel: true;",
        'novel: "a}" "b" \'c\'',
        'novel { a: "}" b { c: [1, 2] } }',
        "novel < a: 1 >",
        "novel: [ { a: 1 }, { b: 2 } ]",
        "novel: []",
        "novel { } # a } comment",
    ],
)
def test_an_unknown_field_is_skipped_whole(unknown: str) -> None:
    config, warnings = parse(f"max_batch_size: 4\n{unknown}\nname: 'm'\n", "config.pbtxt")
    assert (config.max_batch_size, config.name) == (4, "m")
    assert warnings == [
        "config.pbtxt line 2: unknown field 'novel' of inference.ModelConfig is ignored"
    ]


def test_unknown_fields_on_one_line_and_inside_messages() -> None:
    text = 'input [ { name: "x" p: 1 q { } dims: [1, 2] } ] r: "s" max_batch_size: 2'
    config, warnings = parse(text, "c")
    assert config.input[0].name == "x" and list(config.input[0].dims) == [1, 2]
    assert config.max_batch_size == 2
    assert [w.split("'")[1] for w in warnings] == ["p", "q", "r"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: ", "line 1"),
        ("\n\nname 3", "line 3"),
        ('name: "a\n', "missing ending quote"),
        ("max_batch_size: 1 max_batch_size: 2", "should not have multiple"),
        ("input { name: 'x'", "line 1"),
        ("novel: {", "line"),
    ],
)
def test_what_does_not_parse_is_an_error_with_its_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.pbtxt: ") as error:
        parse(text, "config.pbtxt")
    assert words in str(error.value)


@given(st.text(alphabet="nameinput:{}[]<>\"'#,; \n0129-.x", max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse(text, "c")
    except ConfigError as error:
        assert str(error).startswith("c: ")
