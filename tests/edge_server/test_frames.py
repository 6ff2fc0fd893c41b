# SPDX-License-Identifier: Apache-2.0
"""Frames: a request that is known by its frame decodes to what the parser makes of it."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_server.datatypes import BY_WIRE
from edge_server.frames import Asked, Frames
from edge_server.infer_codec import InputDecoder, TensorSpec, Wanted
from tests.edge_server.running import request
from wire import inference_pb2 as pb

SPECS = [
    TensorSpec("a", BY_WIRE["FP32"], (-1, 3)),
    TensorSpec("b", BY_WIRE["INT8"], (-1,)),
]


def asked() -> Any:
    return Asked(None, "", Wanted(("y",), (0,)), None, 0, 1)  # type: ignore[arg-type]


def message(rows: int, count: int, seed: int, **fields: Any) -> bytes:
    generator = np.random.default_rng(seed)
    a = generator.normal(0, 1, (rows, 3)).astype(np.float32)
    b = generator.integers(-128, 128, count).astype(np.int8)
    return request("m", {"a": a, "b": b}, **fields).SerializeToString()


def learnt(data: bytes) -> Frames:
    frames = Frames()
    parsed = pb.ModelInferRequest.FromString(data)
    feeds, _ = InputDecoder(SPECS, 0).decode(parsed)
    frames.learn(data, parsed, asked(), feeds)
    return frames


@given(st.integers(1, 5), st.integers(1, 300), st.integers(0, 99), st.integers(0, 99))
def test_a_known_frame_reads_as_the_parser_does(
    rows: int, count: int, first: int, second: int
) -> None:
    frames = learnt(message(rows, count, first))
    data = message(rows, count, second)
    frame = frames.get(data)
    assert frame is not None
    feeds = frame.feeds(data)
    expected, _ = InputDecoder(SPECS, 0).decode(pb.ModelInferRequest.FromString(data))
    assert feeds is not None and feeds.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(feeds[name], array) and feeds[name].dtype == array.dtype
        assert feeds[name].flags.aligned


@given(st.data())
def test_a_changed_frame_is_never_taken_for_the_known_one(data: st.DataObject) -> None:
    """Any byte outside the tensors that differs sends the request to the parser."""
    known = message(2, 20, 1)
    frames = learnt(known)
    frame = frames.get(known)
    assert frame is not None
    inside = {i for piece in frame.pieces for i in range(piece.begin, piece.end)}
    at = data.draw(st.sampled_from([i for i in range(len(known)) if i not in inside]))
    changed = bytearray(known)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert frame.feeds(bytes(changed)) is None


def test_requests_with_an_id_or_typed_contents_are_not_remembered() -> None:
    data = message(1, 4, 0, id="7")
    assert learnt(data).get(data) is None


def test_forgetting() -> None:
    data = message(1, 4, 0)
    frames = learnt(data)
    assert frames.get(data) is not None
    frames.forget()
    assert frames.get(data) is None
