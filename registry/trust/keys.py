# SPDX-License-Identifier: Apache-2.0
"""Private keys in files: Ed25519, PEM PKCS #8, one key a file, mode 0600, optionally encrypted.

A key of a role lies in `<role>-<first 8 digits of the key id>.pem`. Whoever holds it may keep the
file anywhere; signing takes every file of a folder that belongs to the role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from registry.trust.durable import make_folder, write_whole
from registry.trust.errors import BadKey

Ask = Callable[[Path], str]  # the passphrase of this file
_TRIES = 3


def no_passphrase(path: Path) -> str:
    """For keys that are not encrypted; raises BadKey."""
    raise BadKey(f"{path} is encrypted", "run the command on a terminal, which asks for it")


def make_key(role: str, folder: Path, passphrase: str = "") -> SSlibKey:
    """A new key for a role, its private half in `folder`; returns the public half. Raises
    OSError."""
    private = Ed25519PrivateKey.generate()
    public = SSlibKey.from_crypto(private.public_key())
    guard: KeySerializationEncryption = NoEncryption()
    if passphrase:
        guard = BestAvailableEncryption(passphrase.encode())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, guard)
    make_folder(folder, 0o700)
    write_whole(key_path(folder, role, public.keyid), pem, 0o600)
    return public


def key_path(folder: Path, role: str, keyid: str) -> Path:
    """Where the private half of a key lies."""
    return folder / f"{role}-{keyid[:8]}.pem"


def load_key(path: Path, ask: Ask = no_passphrase) -> CryptoSigner:
    """The signer of a key file. Raises BadKey, OSError."""
    pem = path.read_bytes()
    passphrase: bytes | None = None
    for _ in range(_TRIES):
        try:
            private = load_pem_private_key(pem, passphrase)
        except TypeError:  # encrypted, and no passphrase given
            passphrase = ask(path).encode()
            continue
        except ValueError as error:
            if passphrase is None:
                raise BadKey(f"{path} is not a private key in PEM: {error}") from None
            passphrase = ask(path).encode()
            continue
        if not isinstance(private, Ed25519PrivateKey):
            raise BadKey(f"{path} is not an Ed25519 key")
        return CryptoSigner(private)
    raise BadKey(f"{path}: the passphrase is wrong")


def load_public(path: Path) -> SSlibKey:
    """A public key that its holder made elsewhere. Raises BadKey, OSError."""
    try:
        public = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} is not a public key in PEM: {error}") from None
    if not isinstance(public, Ed25519PublicKey):
        raise BadKey(f"{path} is not an Ed25519 key")
    return SSlibKey.from_crypto(public)


def load_keys(
    role: str, folders: Iterable[Path], wanted: Iterable[str], ask: Ask = no_passphrase
) -> list[CryptoSigner]:
    """The signers of a role that are at hand and among the key ids `wanted`. Raises BadKey,
    OSError."""
    ids = set(wanted)
    shorts = {keyid[:8] for keyid in ids}
    found: dict[str, CryptoSigner] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"{role}-*.pem")):
            if path.stem.removeprefix(f"{role}-") in shorts:
                signer = load_key(path, ask)
                if signer.public_key.keyid in ids:
                    found[signer.public_key.keyid] = signer
    return list(found.values())
