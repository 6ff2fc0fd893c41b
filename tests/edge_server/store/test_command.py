# SPDX-License-Identifier: Apache-2.0
"""`tepi store` as a person or a script meets it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import tepi
from edge_server.store import Store
from edge_server.store.command import ago
from edge_server.store.sizes import parse_size, size_text
from registry.digest import digest_of

FIRST, SECOND = b"first" * 1000, b"second" * 100_000
A, B = digest_of(FIRST), digest_of(SECOND)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with two blobs, the first of them pinned, and a partial."""
    root = tmp_path / "store"
    with Store.open(root) as store:
        store.add(FIRST, A)
        store.add(SECOND, B)
        store.pin("active", [A])
        with store.partial(digest_of(b"x" * 100), 100) as partial:
            partial.write(b"x" * 25)
    return root


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and error of `tepi store ...`."""
    code = tepi.main(["store", *map(str, words)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_list(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "--store", root)
    assert code == 0
    assert A[:19] in out
    assert "4.9 KiB" in out
    assert "active" in out
    assert "25% there" in out
    assert "2 blobs, 590.8 KiB; 1 on their way" in out
    code, out, _ = run(capsys, "list", "--store", root, "--json")
    found = json.loads(out)
    assert {(b["digest"], tuple(b["pins"])) for b in found["blobs"]} == {(A, ("active",)), (B, ())}
    assert found["partials"][0]["there"] == 25


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["verify"], ["verify", "--repair"], ["gc"], ["pin", "x", A]):
        code, _, err = run(capsys, *words, "--store", tmp_path)
        assert code == 1
        assert "is no store" in err
        assert "--store" in err


def test_verify_and_repair(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "verify", "--store", root)
    assert (code, out) == (0, "nothing is damaged\n")
    damage(root)
    with Store.open(root):  # beside its owner
        code, out, _ = run(capsys, "verify", "--store", root)
    assert code == 1
    assert f"{A}: its 5000 bytes are those of" in out
    assert "pinned by active" in out
    code, out, _ = run(capsys, "verify", "--store", root, "--repair", "--json")
    assert code == 1
    assert [b["digest"] for b in json.loads(out)["damaged"]] == [A]
    with Store.open(root) as store:
        assert store.path(A) is None
        assert store.path(B)
    code, out, _ = run(capsys, "verify", "--store", root, "--repair")
    assert code == 1
    assert "found before" in out


def damage(root: Path) -> None:
    """One byte of the first blob."""
    path = root / "blobs" / "sha256" / A[7:9] / A[7:]
    path.chmod(0o644)
    path.write_bytes(b"F" + FIRST[1:])


@pytest.fixture
def registry() -> Iterator[str]:
    """The least registry that has the first blob; it ignores Range."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = FIRST if self.path == f"/v2/models/digits/blobs/{A}" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("there", [0, 3000])
def test_repair_from_a_registry(
    root: Path, registry: str, there: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a part is there and the registry sends all of it."""
    damage(root)
    with Store.open(root) as store:
        store.verify()
        if there:
            with store.partial(A, len(FIRST)) as partial:
                partial.write(FIRST[:there])
    command = ("verify", "--store", root, "--repair", "--from")
    code, out, _ = run(capsys, *command, f"{registry}/other")
    assert code == 1
    assert "has no blob" in out
    code, out, _ = run(capsys, *command, f"{registry}/models/digits")
    assert (code, out) == (0, f"{A}: fetched again\nnothing is damaged\n")
    assert run(capsys, "verify", "--store", root)[0] == 0


def test_gc(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "gc", "--store", root, "--unpinned", "--dry-run")
    assert code == 0
    assert "2 would go" in out
    code, out, _ = run(capsys, "gc", "--store", root, "--max-size", "100kB", "--json")
    assert code == 0
    assert [(v["kind"], v["digest"]) for v in json.loads(out)["removed"]][1:] == [("blob", B)]
    code, _, err = run(capsys, "gc", "--store", root, "--max-size", "1kB")
    assert code == 1
    assert "over the limits: pins hold the rest" in err
    assert run(capsys, "list", "--store", root)[1].count("sha256:") == 1


def test_gc_beside_the_owner(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(root):
        code, _, err = run(capsys, "gc", "--store", root)
    assert code == 1
    assert "owned by process" in err
    assert "removes by itself" in err


def test_pin_and_unpin_beside_the_owner(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(root) as store:
        assert run(capsys, "pin", "keep", B[7:17], A, "--store", root)[0] == 0
        assert store.pins()["keep"] == {A, B}
        store.collect(unpinned=True)
        assert store.path(B)
        code, out, _ = run(capsys, "unpin", "keep", "--store", root, "--json")
        assert (code, json.loads(out)) == (0, {"name": "keep"})
        store.collect(unpinned=True)
        assert store.path(B) is None
    code, _, err = run(capsys, "unpin", "keep", "--store", root)
    assert code == 1
    assert "it has: active" in err


@pytest.mark.parametrize(
    ("digest", "code", "text"),
    [
        ("sha256:" + "0" * 64, 1, "no blob"),
        (A[7:10], 2, "too short"),
        ("../../x", 1, "no blob"),
    ],
)
def test_pin_what_is_not_there(
    root: Path, capsys: pytest.CaptureFixture[str], digest: str, code: int, text: str
) -> None:
    found = run(capsys, "pin", "keep", digest, "--store", root)
    assert found[0] == code
    assert text in found[2]
    assert not (root / "pins" / "keep.json").exists()


def test_damaged_pins(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "pins" / "active.json").write_bytes(b"{")
    code, out, err = run(capsys, "list", "--store", root)
    assert code == 1
    assert A[:19] in out
    assert "tepi store pin NAME" in err
    code, _, err = run(capsys, "gc", "--store", root, "--unpinned")
    assert code == 1
    assert "nothing is evicted" in err
    assert run(capsys, "pin", "active", A, "--store", root)[0] == 0
    assert run(capsys, "gc", "--store", root, "--unpinned")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--from", "registry.example/x"],
        ["gc", "--max-size", "much"],
        ["pin", "x"],
        ["verify", "--rate", "-1"],
    ],
)
def test_wrong_usage(root: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(capsys, *words, "--store", root)[0] == 2


@pytest.mark.parametrize("name", ["list", "verify", "gc", "pin", "unpin"])
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert f"tepi store {name}" in out.split("Examples:")[1]
    assert "--json" in out


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("500000", 500000), ("20 MB", 20_000_000), ("2GiB", 2 << 30), ("1.5Ki", 1536)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    with pytest.raises(ValueError, match="is not a number of bytes"):
        parse_size(text + "x")


def test_words_for_people() -> None:
    assert [size_text(n) for n in (0, 1023, 1536, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]
    assert [ago(s) for s in (0, 5, 300, 7200, 400_000)] == [
        "now",
        "5 s ago",
        "5 min ago",
        "2 h ago",
        "5 days ago",
    ]
