# SPDX-License-Identifier: Apache-2.0
"""What a server answers instead of what was asked for, in both versions, with names.

Version 1, and a missing handler in version 2 too: {"rc": N}, numbers of `MGMT`. Version 2:
{"err": {"group": G, "rc": N}}, numbers of that group (Zephyr's *_mgmt.h).
"""

from collections.abc import Mapping

from firmware_bridge.errors import BridgeError
from firmware_bridge.smp.header import V2, Group, Header


class BadPayload(BridgeError):
    """A payload that is no CBOR map, or lacks what its command needs."""


MGMT_NAMES = {
    1: "unknown error",
    2: "not enough memory",
    3: "invalid value",
    4: "timed out",
    5: "no such entry",
    6: "not in this state",
    7: "the answer is too large",
    8: "not supported",
    9: "corrupt",
    10: "busy",
    11: "access denied",
    12: "protocol version too old",
    13: "protocol version too new",
}
MGMT_ENOMEM, MGMT_EINVAL, MGMT_ENOENT, MGMT_EBADSTATE = 2, 3, 5, 6
MGMT_EMSGSIZE, MGMT_ENOTSUP, MGMT_EBUSY, MGMT_EACCESS, MGMT_TOO_NEW = 7, 8, 10, 11, 13

NAMES: Mapping[int, Mapping[int, str]] = {
    Group.OS: {
        1: "unknown error", 2: "invalid format", 3: "the query has no answer",
        4: "the clock is not set", 5: "the clock failed", 6: "invalid date or time",
    },
    Group.IMG: {
        1: "unknown error", 2: "no flash configuration", 3: "no image in the slot",
        4: "the image has no TLVs", 5: "invalid TLV", 6: "several hashes", 7: "invalid TLV size",
        8: "no image has that hash", 9: "the slot is in use", 10: "flash: open failed",
        11: "flash: read failed", 12: "flash: write failed", 13: "flash: erase failed",
        14: "invalid slot", 15: "not enough memory", 20: "invalid offset",
        21: "the length is missing", 22: "shorter than an image header",
        23: "not a MCUboot image", 24: "invalid hash", 26: "no version",
        27: "the running version is not older", 28: "an image is pending already",
        30: "larger than the slot", 31: "more data than announced",
        32: "confirming is denied", 33: "the active image cannot be tested",
    },
    Group.STAT: {
        1: "unknown error", 2: "no such group", 3: "no such statistic", 4: "invalid size",
        5: "aborted",
    },
    Group.SETTINGS: {
        1: "unknown error", 2: "the name is too long", 3: "no such setting",
        4: "cannot be read", 5: "no such setting", 6: "cannot be written",
        7: "cannot be deleted", 8: "cannot be saved",
    },
    Group.FS: {
        1: "unknown error", 2: "invalid name", 3: "no such file", 4: "is a folder",
        5: "open failed", 6: "seek failed", 7: "read failed", 8: "truncate failed",
        9: "delete failed", 10: "write failed", 11: "invalid offset",
        12: "the offset is behind the end", 13: "no such checksum", 14: "no such file system",
        15: "the file system is read-only", 16: "the file is empty",
    },
    Group.ENUM: {
        1: "unknown error", 2: "too many groups", 3: "not enough memory",
        4: "no group with that index",
    },
    Group.ATTEST: {1: "unknown error", 2: "the nonce is too short", 3: "no card key"},
    Group.FAULTS: {1: "unknown error"},
}  # fmt: skip


class SmpError(BridgeError):
    """The server refused. `group` is None for the numbers of version 1 (`MGMT_NAMES`)."""

    def __init__(self, group: int | None, rc: int, command: str = "") -> None:
        names = MGMT_NAMES if group is None else NAMES.get(group, {})
        text = names.get(rc, "no name for it")
        where = "" if group is None else f"group {group}, "
        super().__init__(f"the card refused {command or 'a command'}: {text} ({where}code {rc})")
        self.group = group
        self.rc = rc
        self.command = command


def refusal(payload: Mapping[str, object], command: str = "") -> SmpError | None:
    """The error in an answer's map, of either version, or None. {"rc": 0} is none."""
    err = payload.get("err")
    if isinstance(err, dict):
        group, rc = err.get("group"), err.get("rc")
        if type(group) is not int or type(rc) is not int:
            raise BadPayload("an error without group and number")
        return SmpError(group, rc, command) if rc else None
    rc = payload.get("rc")
    if rc is None or rc == 0:
        return None
    if type(rc) is not int:
        raise BadPayload("an error that is not a number")
    return SmpError(None, rc, command)


def refusal_map(header: Header, group: int | None, rc: int) -> dict[str, object]:
    """The map that refuses the request `header`; group None: a number of `MGMT_NAMES`, which
    stands alone in both versions."""
    if group is None or header.version < V2:
        return {"rc": rc}
    return {"err": {"group": group, "rc": rc}}
