# SPDX-License-Identifier: Apache-2.0
"""The tree keeps its shape: sizes, names, headers, no orphans, no swallowed errors."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES = 70
FILE_LINES = 400
KERNEL_FILE_LINES = 600
COLUMNS = 100
GENERATED = ("wire/",)
ROOMS = ("device", "edge_server", "firmware_bridge", "registry", "fleet", "wire")
SPDX = "SPDX-License-Identifier: Apache-2.0"
BANNED = re.compile(r"(^|[_\-/.])(manager|utils?|helpers?|common)([_\-/.]|$)")
SOURCE_SUFFIXES = {".py", ".pyi", ".c", ".h", ".proto", ".cmake", ".toml", ".sh"}


def tracked() -> list[str]:
    """Every file of the tree that is committed or about to be, as paths from the root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return sorted(name for name in set(listing.split("\0")) if name and (ROOT / name).is_file())


@cache
def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


FILES = tracked()
SOURCES = [name for name in FILES if Path(name).suffix in SOURCE_SUFFIXES]
OURS = [name for name in SOURCES if not name.startswith(GENERATED)]
PYTHON = [name for name in OURS if name.endswith(".py")]
C_CODE = [name for name in OURS if name.endswith((".c", ".h"))]


def python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, length in lines) of each function, decorators and docstring not
    counted: they are contract, not code to follow."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            last = node.end_lineno or node.lineno
            header = (node.body[0].lineno - node.lineno) if node.body else 0
            yield node.name, node.lineno, header + last - body[0].lineno + 1


def blank_c(text: str) -> str:
    """The C text with comments, strings and preprocessor lines blanked, line breaks kept."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match.group())

    token = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    text = re.sub(token, blank, text, flags=re.DOTALL)
    return re.sub(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", blank, text, flags=re.MULTILINE)


def c_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """(name, line of the opening, length in lines) of each function defined at file level."""
    depth = start = line = 1
    depth = 0
    name = ""
    declaration = ""
    for character in blank_c(text):
        if character == "{":
            if depth == 0:
                found = re.search(r"(\w+)\s*\([^;{}=]*\)[^;{}=()]*$", declaration)
                name, start = (found.group(1) if found else ""), line
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                if name:
                    yield name, start, line - start + 1
                declaration = ""
        elif character == ";" and depth == 0:
            declaration = ""
        elif depth == 0:
            declaration += character
        line += character == "\n"


@pytest.mark.parametrize("name", OURS)
def test_size_and_header(name: str) -> None:
    lines = read(name).splitlines()
    if not lines:
        return
    limit = KERNEL_FILE_LINES if name.startswith("device/kernels/") else FILE_LINES
    assert len(lines) <= limit, f"{name} has {len(lines)} lines; split it by subject"
    wide = [n for n, line in enumerate(lines, 1) if len(line) > COLUMNS]
    assert not wide, f"{name}: lines over {COLUMNS} columns: {wide}"
    assert SPDX in "\n".join(lines[:3]), f"{name} lacks the licence line: {SPDX}"


@pytest.mark.parametrize("name", PYTHON + C_CODE)
def test_functions_are_short(name: str) -> None:
    scan = python_functions if name.endswith(".py") else c_functions
    long = [f"{f} (line {at}): {n}" for f, at, n in scan(read(name)) if n > FUNCTION_LINES]
    assert not long, f"{name}: functions over {FUNCTION_LINES} lines: {long}"


def test_names_say_something() -> None:
    bad = [name for name in FILES if BANNED.search(name)]
    for name in PYTHON:
        for node in ast.walk(ast.parse(read(name))):
            if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Util|Helper)s?$", node.name):
                bad.append(f"{name}: {node.name}")
    assert not bad, f"names that say nothing: {bad}"


@pytest.mark.parametrize("name", PYTHON)
def test_no_swallowed_errors(name: str) -> None:
    for node in ast.walk(ast.parse(read(name))):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
        )
        silent = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
        assert not (broad and silent), f"{name}:{node.lineno} swallows every error"


def test_settings_are_read_once() -> None:
    reads = re.compile(r"\bos\.(environ|getenv)\b|\b(secure_)?getenv\s*\(")
    product = [n for n in PYTHON + C_CODE if n.startswith(ROOMS) and n != "edge_server/app.py"]
    found = [name for name in product if reads.search(read(name))]
    assert not found, f"only edge_server/app.py reads the environment: {found}"


def test_rooms_are_entered_by_their_door() -> None:
    """`#include "../x.h"` would walk around the include paths that keep the arrows."""
    found = [name for name in C_CODE if re.search(r'#\s*include\s+"[^"]*\.\./', read(name))]
    assert not found, f"relative includes: {found}"


def module_of(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(name: str) -> set[str]:
    """Absolute names of every module this file imports or could import from a package."""
    package = module_of(name).split(".")
    if not name.endswith("/__init__.py"):
        package = package[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(read(name))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # tepi.py and lazy loaders name modules in strings
    return found


def test_no_orphan_modules() -> None:
    product = [n for n in PYTHON if n.startswith(tuple(f"{room}/" for room in ROOMS))]
    imported: set[str] = set()
    for name in [*product, "tepi.py"]:
        imported |= imports_of(name) - {module_of(name)}
    documented = "".join(read(name) for name in FILES if name.endswith(".md"))
    imported |= set(re.findall(r"^import (\S+)", documented, re.M))  # a door for other programs
    started = set(re.findall(r"\$\(PYTHON\) (\S+\.py)", read("Makefile")))
    orphans = [
        name
        for name in product
        if not name.endswith(("/__init__.py", "/__main__.py"))
        and module_of(name) not in imported
        and name not in started
    ]
    assert not orphans, f"modules that nothing imports: {orphans}"


def test_no_orphan_c_files() -> None:
    """Some function of each product .c file is named in another file of the product."""
    product = [n for n in C_CODE if n.startswith("device/")]
    words = {name: set(re.findall(r"\w+", read(name))) for name in product}
    orphans = []
    for name in (n for n in product if n.endswith(".c")):
        defined = {function for function, _, _ in c_functions(read(name))}
        tables = set(re.findall(r"^(?:const )?struct \w+ (\w+)(?:\[\])? = ", read(name), re.M))
        others = set().union(*(words[n] for n in product if n != name and n.endswith(".c")))
        cdef = words.get("device/binding/card_cdef.h", set())
        if not (defined | tables) & (others | cdef):
            orphans.append(name)
    assert not orphans, f"C files that nothing uses: {orphans}"


def test_the_scanner_measures_c() -> None:
    text = 'int a(void)\n{\n    if (1) {\n        return "}"[0]; /* } */\n    }\n}\n'
    text += "static const int t[] = {\n1,\n};\n#define M {\nvoid b(int x) { (void)x; }\n"
    assert [(f, n) for f, _, n in c_functions(text)] == [("a", 5), ("b", 1)]
