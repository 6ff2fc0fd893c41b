# SPDX-License-Identifier: Apache-2.0
"""`sha256:…` digests (OCI Image Specification 1.1, Descriptors: Digests)."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from registry.errors import BadDigest

_FORM = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20


def check_digest(text: str) -> str:
    """`text`, if it is a sha256 digest in lower case; raises BadDigest. What passes is safe as a
    file name once `hex_of` took the algorithm off."""
    if not _FORM.fullmatch(text):
        raise BadDigest(f"{text[:80]!r} is not a digest of the form sha256:<64 hexadecimal digits>")
    return text


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of a digest; raises BadDigest."""
    return check_digest(digest).removeprefix("sha256:")


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """The digest of these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of_file(path: Path, tell: Callable[[int], None] = lambda _bytes: None) -> str:
    """The digest of a file; `tell` gets the bytes of each step. Raises OSError."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            tell(count)
    return f"sha256:{hasher.hexdigest()}"
