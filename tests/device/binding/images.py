# SPDX-License-Identifier: Apache-2.0
"""Card programs written by hand for the binding's tests, from the ABI alone."""

import zlib

import numpy as np

from device.binding import abi


def copy_program(elements: int, instructions: int = 1, macs: int = 0) -> bytes:
    """A program that copies `elements` bytes from its input to its output, `instructions` times
    over. `macs` is what its header claims."""
    tensors = np.zeros(2, abi.TENSOR)
    for tensor, place in zip(tensors, ("input", "output"), strict=True):
        tensor["type"] = abi.TYPES["u8"]
        tensor["place"] = abi.PLACES[place]
        tensor["n"] = tensor["h"] = tensor["w"] = 1
        tensor["c"] = elements
        for stride in ("stride_n", "stride_h", "stride_w"):
            tensor[stride] = elements
    code = np.zeros(instructions, abi.INSTRUCTION)
    code["code"] = abi.CODES["map"]
    code["a"], code["b"], code["out"] = 0, 0xFFFF, 1
    params = np.zeros(1, abi.PARAMS["map"])
    params["rank"] = 1
    params["dims"] = [elements, 0, 0, 0, 0, 0]
    params["stride"] = params["out_stride"] = [1, 0, 0, 0, 0, 0]
    params["table"] = abi.NONE
    params["hi"] = 255
    payload = np.frombuffer(params.tobytes(), np.uint8)
    code["bytes"][:, : payload.size] = payload
    return assemble(tensors, code, macs)


def assemble(tensors: np.ndarray, code: np.ndarray, macs: int = 0) -> bytes:
    """Header, tables and checksum around one input and one output."""
    header = np.zeros(1, abi.HEADER)
    sections = [_padded(tensors.tobytes()), _padded(code.tobytes())]
    at = abi.HEADER.itemsize
    header["magic"], header["abi"] = abi.MAGIC, abi.ABI_VERSION
    header["header_bytes"] = abi.HEADER.itemsize
    header["tensors"], header["instructions"] = len(tensors), len(code)
    header["tensors_offset"] = at
    header["instructions_offset"] = at + len(sections[0])
    header["constants_offset"] = at + len(sections[0]) + len(sections[1])
    header["inputs"] = header["outputs"] = 1
    header["macs"] = macs
    header["total_bytes"] = at + sum(map(len, sections))
    header["crc32"] = zlib.crc32(header.tobytes() + b"".join(sections))
    return header.tobytes() + b"".join(sections)


def _padded(section: bytes) -> bytes:
    return section + bytes(-len(section) % 64)
