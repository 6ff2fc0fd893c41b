# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/card.md from the headers beside this file, their one source.

`python device/abi/datasheet.py` rewrites what stands between the markers
`<!-- begin NAME -->` and `<!-- end NAME -->`; the words around them are written by hand.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

ABI = Path(__file__).resolve().parent
DATASHEET = ABI.parent.parent / "docs" / "card.md"
SIZES = {"char": 1, "uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "int32_t": 4, "float": 4}
SIZES["uint64_t"] = 8
LOCATIONS = r"TEPI_(REG|QUEUE|DOORBELL)_"
Row = tuple[str, ...]


def header(name: str) -> str:
    return (ABI / name).read_text(encoding="utf-8")


def words(comment: str) -> str:
    """A C comment's text on one line, safe in a table cell."""
    return " ".join(re.sub(r"^\s*\* ?", "", comment, flags=re.M).split()).replace("|", "\\|")


def table(titles: Row, rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def defines() -> list[tuple[str, str, str]]:
    """(name, value, comment) of each numeric #define of registers.h."""
    pattern = r"^#define (TEPI_\w+)[ ]+(0x[0-9a-f]+|\d+)u[ ]*(?:/\* (.*?) \*/)?$"
    found = re.findall(pattern, header("registers.h"), re.M)
    return [(name, value, words(comment)) for name, value, comment in found]


def registers() -> str:
    """Every TEPI_REG_* with its offset and the comment behind it."""
    rows = [
        (f"`{name}`", f"`{value}`", comment)
        for name, value, comment in defines()
        if re.match(LOCATIONS, name)
    ]
    return table(("name", "offset", "what it holds"), rows)


def constants() -> str:
    """The values of identification, control and status bits, and the sizes of BAR0's pages."""
    rows = [
        (f"`{name}`", f"`{value}`", comment)
        for name, value, comment in defines()
        if not re.match(LOCATIONS, name)
    ]
    return table(("name", "value", "meaning"), rows)


def enum(file: str, name: str) -> str:
    body = re.search(rf"enum {name} \{{(.*?)\n\}};", header(file), re.S)
    if body is None:
        raise SystemExit(f"{file} has no enum {name}")
    entries = re.findall(r"(TEPI_\w+) = (\d+),[ ]*(?:/\* (.*?) \*/)?", body[1], re.S)
    return table(
        ("name", "value", "meaning"), [(f"`{n}`", value, words(text)) for n, value, text in entries]
    )


def extent(kind: str) -> tuple[int, int]:
    """Bytes and alignment of a type of program.h; a structure of it has plain fields alone."""
    if not kind.startswith("struct "):
        return SIZES[kind], SIZES[kind]
    body = re.search(rf"^{kind} \{{\n(.*?)^\}};", header("program.h"), re.S | re.M)
    if body is None:
        raise SystemExit(f"program.h has no {kind}")
    end, most = 0, 1
    for _, inner, size, _ in fields(body[1]):
        align = SIZES[inner]
        end, most = -(-end // align) * align + size, max(most, align)
    return -(-end // most) * most, most


def fields(body: str) -> list[tuple[str, str, int, str]]:
    """(declaration, type, bytes, comment) of each field; a comment may stand before or behind."""
    found: list[tuple[str, str, int, str]] = []
    pattern = (
        r"(?:/\*(?P<before>.*?)\*/\s*)?"
        r"(?P<type>(?:struct )?\w+) (?P<names>[\w, \[\]]+);[ ]*"
        r"(?:/\* (?P<behind>.*?) \*/)?"
    )
    for match in re.finditer(pattern, body, re.S):
        comment = words(match["behind"] or match["before"] or "")
        for declared in match["names"].split(","):
            count = re.search(r"\[(\d+)\]", declared)
            size = extent(match["type"])[0] * (int(count[1]) if count else 1)
            found.append((declared.strip(), match["type"], size, comment))
    return found


def struct(file: str, name: str) -> str:
    """Offset, type and meaning of each field, laid out as C lays them out on x86-64 and AArch64."""
    body = re.search(rf"^struct {name} \{{\n(.*?)^\}};", header(file), re.S | re.M)
    if body is None:
        raise SystemExit(f"{file} has no struct {name}")
    rows: list[Row] = []
    offset = 0
    limits = dict(re.findall(r"^#define (TEPI_\w+)[ ]+(\d+)u$", header(file), re.M))

    def length(found: re.Match[str]) -> str:
        return f"[{int(limits[found[1]]) - int(found[2] or 0)}]"

    plain = re.sub(r"\[(TEPI_\w+)(?: - (\d+))?\]", length, body[1])
    plain = re.sub(r"union \{.*?\n    \};", "", plain, flags=re.S)
    for declared, kind, size, comment in fields(plain):
        align = extent(kind)[1]
        offset = -(-offset // align) * align
        rows.append((str(offset), f"`{kind}`", f"`{declared}`", comment))
        offset += size
    return table(("offset", "type", "field", "meaning"), rows)


def faults() -> str:
    """The numbered faults with what to do about each."""
    text = header("faults.h")
    block = text[text.index("#define TEPI_FAULTS(X)") : text.index("/* clang-format on")]
    block = re.sub(r'"\s*\\\n\s*"', "", block)
    pattern = r'X\((\d+), (\w+), (\w+), (\w+),\s*\\\n\s*"([^"]*)",\s*\\\n\s*"([^"]*)"\)'
    rows = [
        (code, f"`{name}`", severity, f"`{grpc}`", words(meaning), words(remedy))
        for code, name, severity, grpc, meaning, remedy in re.findall(pattern, block)
    ]
    return table(("code", "name", "severity", "gRPC status", "meaning", "remedy"), rows)


PROGRAM_PARAMS = (
    *("fill", "map", "conv", "add", "mul", "table", "pool", "resize", "softmax"),
    *("matmul", "layernorm", "vector", "fmatmul", "gather", "range"),
)


def params() -> str:
    """One table per kind of parameters, under the comment that defines the operation."""
    text = header("program.h")
    parts = []
    for name in PROGRAM_PARAMS:
        at = text.index(f"struct tepi_{name}_params {{")
        comment = re.search(r"/\*((?:(?!\*/).)*)\*/\s*\Z", text[:at], re.S)
        lead = words(comment[1]) if comment else ""
        parts.append(f"**{name}** {lead}\n\n{struct('program.h', f'tepi_{name}_params')}")
    return "\n\n".join(parts)


SECTIONS: dict[str, Callable[[], str]] = {
    "registers": registers,
    "constants": constants,
    "isa": lambda: enum("registers.h", "tepi_isa"),
    "commands": lambda: enum("queue.h", "tepi_opcode"),
    "submission": lambda: struct("queue.h", "tepi_submission"),
    "segment": lambda: struct("queue.h", "tepi_segment"),
    "profile": lambda: struct("queue.h", "tepi_profile_record"),
    "completion": lambda: struct("queue.h", "tepi_completion"),
    "header": lambda: struct("program.h", "tepi_program_header"),
    "tensor": lambda: struct("program.h", "tepi_tensor"),
    "types": lambda: enum("program.h", "tepi_type"),
    "places": lambda: enum("program.h", "tepi_place"),
    "instructions": lambda: enum("program.h", "tepi_instruction_code"),
    "instruction": lambda: struct("program.h", "tepi_instruction"),
    "params": params,
    "steps": lambda: struct("program.h", "tepi_vector_step"),
    "vectorcodes": lambda: enum("program.h", "tepi_vector_code"),
    "faults": faults,
    "faultlog": lambda: struct("faults.h", "tepi_fault_entry"),
}


def main() -> None:
    text = DATASHEET.read_text(encoding="utf-8")
    for name, write in SECTIONS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"{DATASHEET.name} needs the markers {begin} and {end} once each")
        start, stop = text.index(begin) + len(begin), text.index(end)
        text = f"{text[:start]}\n{write()}\n{text[stop:]}"
    DATASHEET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
