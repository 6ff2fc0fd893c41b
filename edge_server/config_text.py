# SPDX-License-Identifier: Apache-2.0
"""config.pbtxt as text: parsed against ModelConfig. A field that we do not know is blanked out and
reported with its line; anything else that does not parse is an error with its line."""

from __future__ import annotations

import re

from google.protobuf import text_format

from wire import model_config_pb2 as config_pb2

_UNKNOWN = re.compile(r'Message type "([^"]+)" has no field named "([^"]+)"')
_UNKNOWN_LIMIT = 100
_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<open>[\[{<])|(?P<close>[\]}>])|(?P<word>[\w.+-]+)|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


class ConfigError(Exception):
    """A configuration that cannot be used; the message says where and why."""


def parse(text: str, source: str) -> tuple[config_pb2.ModelConfig, list[str]]:
    """The message and one warning for each unknown field. `source` is the file's name."""
    warnings: list[str] = []
    while True:
        config = config_pb2.ModelConfig()
        try:
            text_format.Parse(text, config)
        except text_format.ParseError as error:
            unknown = _UNKNOWN.search(str(error))
            line, column = error.GetLine(), error.GetColumn()
            if unknown is None or line is None or len(warnings) == _UNKNOWN_LIMIT:
                raise ConfigError(f"{source}: {_without_position(error)}") from None
            warnings.append(
                f"{source} line {line}: unknown field '{unknown[2]}' of {unknown[1]} is ignored"
            )
            shorter = _blank_field(text, _offset(text, line, column or 1))
            if shorter is None:
                raise ConfigError(
                    f"{source}: line {line}: a bracket of '{unknown[2]}' is never closed"
                ) from None
            text = shorter
        else:
            return config, warnings


def _without_position(error: text_format.ParseError) -> str:
    """The parser's message with its "line:column :" prefix written out."""
    line = error.GetLine()
    message = re.sub(r"^\d+:\d+ : ", "", str(error))
    return message if line is None else f"line {line}: {message}"


def _offset(text: str, line: int, column: int) -> int:
    """Index in `text` of a position counted from 1."""
    lines = text.split("\n")
    return sum(len(before) + 1 for before in lines[: line - 1]) + column - 1


def _blank_field(text: str, start: int) -> str | None:
    """`text` with the field whose name stands at `start` made into blanks (lines are kept).

    None where a bracket of the field is never closed.
    """
    depth = 0
    end = start
    named = valued = False
    for token in _TOKEN.finditer(text, start):
        kind = token.lastgroup
        if kind == "skip":
            continue
        if not named:  # the field's own name, or the bracketed name of an extension
            depth += kind == "open"
            depth -= kind == "close"
            named = depth == 0
        elif kind == "open":
            depth += 1
        elif kind == "close":
            if depth == 0:
                break
            depth -= 1
            valued = valued or depth == 0
        elif depth == 0 and token.group() in ",;":
            end = token.end()
            break
        elif depth == 0 and kind != "other":
            if valued and kind != "string":
                break  # the next field's name
            if valued and text[start:end].rstrip()[-1] in "]}>":
                break
            valued = True
        end = token.end()
    if depth > 0:
        return None
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
