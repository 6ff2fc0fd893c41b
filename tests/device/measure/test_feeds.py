# SPDX-License-Identifier: Apache-2.0
"""Random feeds of the right kind and shape."""

import numpy as np
import pytest

from device.compiler import TensorInfo
from device.errors import InputError
from device.measure.feeds import concrete_shapes, parse_shapes, random_feeds


def info(kind: str, *shape: int | str | None) -> TensorInfo:
    return TensorInfo("x", np.dtype(kind), f"tensor({kind})", list(shape))


def test_shapes_are_read_from_words() -> None:
    assert parse_shapes(["a=1,2", "b:0=3x4", "c=", "d=e=5"]) == {
        "a": (1, 2),
        "b:0": (3, 4),
        "c": (),
        "d=e": (5,),
    }


@pytest.mark.parametrize("text", ["", "a", "=1", "a=b", "a=-1", "a=1.5"])
def test_words_that_are_no_shape(text: str) -> None:
    with pytest.raises(InputError, match="write NAME=1,3,224,224"):
        parse_shapes([text])


def test_a_batch_without_a_size_is_one() -> None:
    assert concrete_shapes([info("f4", "n", 3)], {}, "m") == {"x": (1, 3)}
    assert concrete_shapes([info("f4", None, 3)], {"x": (7, 3)}, "m") == {"x": (7, 3)}
    with pytest.raises(InputError, match="--shape x=1,128"):
        concrete_shapes([info("f4", "n", "length")], {}, "m")
    with pytest.raises(InputError, match=r"takes shape \[n, 3\], got \[1, 4\]"):
        concrete_shapes([info("f4", "n", 3)], {"x": (1, 4)}, "m")


@pytest.mark.parametrize("kind", ["f4", "f8", "u1", "i1", "i8", "?"])
def test_feeds_have_the_declared_type(kind: str) -> None:
    feed = random_feeds([info(kind, 2, 300)], {"x": (2, 300)})["x"]
    assert feed.dtype == np.dtype(kind)
    assert feed.shape == (2, 300)
    assert len(np.unique(feed)) > 1
    if kind in ("i8", "?"):
        assert set(np.unique(feed).tolist()) <= {0, 1}


def test_text_cannot_be_made_up() -> None:
    with pytest.raises(InputError, match="numbers only"):
        random_feeds([info("O", 1)], {"x": (1,)})
