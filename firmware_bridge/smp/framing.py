# SPDX-License-Identifier: Apache-2.0
"""Messages as lines of text on a serial line (SMP over console: Zephyr's smp_transport docs).

Body: 16-bit length (message and CRC), message, CRC16 of the message (polynomial 0x1021, initial
value 0); base64; cut into lines of at most 127 bytes, of which the first begins with 06 09, the
others with 04 14, and each ends with 0a. 93 bytes make the 124 characters of a full line, so that
no line but the last is padded.
"""

import binascii
import struct

START = b"\x06\x09"
CONTINUE = b"\x04\x14"
END = b"\n"
LINE = 127  # bytes on the wire, delimiters and line end included
LONGEST_LINE = 1024  # accepted from others; a longer one is noise
LONGEST_MESSAGE = 0xFFFF - 2  # what the 16-bit length can say
_TEXT = LINE - len(START) - len(END)  # base64 characters in a full line
_LENGTH = struct.Struct(">H")


def encode_frames(message: bytes) -> bytes:
    """All lines of one message, ready to be written.

    `message`: header and payload, at most LONGEST_MESSAGE bytes."""
    crc = binascii.crc_hqx(message, 0)
    body = b"".join((_LENGTH.pack(len(message) + 2), message, _LENGTH.pack(crc)))
    text = binascii.b2a_base64(body, newline=False)
    lines = [text[at : at + _TEXT] for at in range(0, len(text), _TEXT)]
    return START + (END + CONTINUE).join(lines) + END


def encoded_size(message: int) -> int:
    """Bytes on the wire of a message of that many bytes."""
    text = (message + 4 + 2) // 3 * 4
    return text + 3 * -(-text // _TEXT)


class Deframer:
    """Bytes in, messages out. Memory stays below `limit` and a line, whatever arrives.

    `limit`: longest message taken; a longer one is dropped as a server without the buffer would.
    `bad`: frames dropped so far (CRC, length, base64, lost line). `noise`: lines that belonged to
    no frame, such as a console's text, which a genuine server mixes in."""

    def __init__(self, limit: int = LONGEST_MESSAGE) -> None:
        self.limit = limit
        self.bad = 0
        self.noise = 0
        self._rest = b""  # an unfinished line
        self._deaf = False  # inside a line that is too long
        self._lines: list[bytes] = []  # base64 of the frame that is arriving
        self._have = 0  # characters in it
        self._need = 0  # characters that complete it

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, in order. Nothing is raised."""
        lines = (self._rest + data).split(END)
        self._rest = lines.pop()
        if self._deaf and lines:
            self._deaf = False
            lines[0] = b""
        if self._deaf or len(self._rest) > LONGEST_LINE:
            self.noise += not self._deaf
            self._deaf = True
            self._rest = b""
        messages = []
        for line in lines:
            if line.startswith(CONTINUE):
                message = self._continue(line[2:])
            elif line.startswith(START):
                message = self._start(line[2:])
            else:
                message = self._strange(line)
            if message is not None:
                messages.append(message)
        return messages

    def reset(self) -> None:
        """Forget what has half arrived; the counters stay."""
        self._drop(bad=False)
        self._rest = b""
        self._deaf = False

    def _drop(self, bad: bool = True) -> None:
        self.bad += bad
        self._lines = []
        self._have = self._need = 0

    def _strange(self, line: bytes) -> bytes | None:
        """A line with something else before its delimiter: a console's prompt, or a lost line end.
        Delimiters are no base64, so the last one counts."""
        start, further = line.rfind(START), line.rfind(CONTINUE)
        if start < 0 and further < 0:
            self.noise += bool(line.strip())
            return None
        if start > further:
            return self._start(line[start + 2 :])
        if self._lines:
            self._drop()
        return None

    def _start(self, text: bytes) -> bytes | None:
        if self._lines:
            self._drop()
        try:
            length = _LENGTH.unpack_from(binascii.a2b_base64(text[:4], strict_mode=True))[0]
        except (ValueError, struct.error):
            self.bad += 1
            return None
        if not 2 < length <= self.limit + 2:
            self.bad += 1
            return None
        self._need = (2 + length + 2) // 3 * 4
        return self._continue(text, first=True)

    def _continue(self, text: bytes, first: bool = False) -> bytes | None:
        if not self._lines and not first:
            self.noise += 1
            return None
        text = text.rstrip(b"\r")
        self._lines.append(text)
        self._have += len(text)
        if self._have < self._need and text:
            return None
        message = _decode(self._lines)
        self._drop(bad=message is None)
        return message


def _decode(lines: list[bytes]) -> bytes | None:
    """The message in a frame's base64, or None where it is damaged.

    Lines may be padded each for itself (some encoders do), so that they are decoded one by one
    where the whole cannot be."""
    try:
        body = binascii.a2b_base64(b"".join(lines), strict_mode=True)
    except ValueError:
        try:
            body = b"".join(binascii.a2b_base64(line, strict_mode=True) for line in lines)
        except ValueError:
            return None
    if len(body) < 4 or _LENGTH.unpack_from(body)[0] + 2 != len(body):
        return None
    message = body[2:-2]
    if binascii.crc_hqx(message, 0) != _LENGTH.unpack_from(body, len(body) - 2)[0]:
        return None
    return message
