# SPDX-License-Identifier: Apache-2.0
"""Texts to embeddings: through a server by the Open Inference Protocol, or by a session here."""

from collections.abc import Callable, Sequence

import numpy as np

from edge_server.client import INFERENCE, Client
from examples.search.build import MODEL
from examples.search.minilm import PAD_TO, Feed, Tokens
from examples.search.ranking import Embeddings
from wire import inference_pb2 as pb

BATCH = 8

Run = Callable[[Feed], Embeddings]


def embedded(texts: Sequence[str], tokens: Tokens, run: Run, batch: int = BATCH) -> Embeddings:
    """In the order of the texts. Those of about one length go together, `batch` at a time and never
    fewer, so that the card meets few shapes: the last text of a length fills up its batch."""
    lengths: dict[int, list[int]] = {}
    for index, text in enumerate(texts):
        lengths.setdefault(-(-tokens.count(text) // PAD_TO), []).append(index)
    rows: dict[int, Embeddings] = {}
    for alike in lengths.values():
        for start in range(0, len(alike), batch):
            chosen = alike[start : start + batch]
            filled = chosen + chosen[-1:] * (batch - len(chosen))
            found = run(tokens.feed([texts[index] for index in filled]))
            rows |= dict(zip(chosen, found, strict=False))
    return np.stack([rows[index] for index in range(len(texts))])


class Server:
    """The model behind a client's connection; counts who answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.devices: dict[str, int] = {}

    def __call__(self, feed: Feed) -> Embeddings:
        """One request. Raises CallError."""
        request = pb.ModelInferRequest(model_name=MODEL)
        for name, array in feed.items():
            request.inputs.add(name=name, datatype="INT64", shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        response = self._client.call(INFERENCE, "ModelInfer", request, pb.ModelInferResponse)
        device = response.parameters["tepi_device"].string_param
        self.devices[device] = self.devices.get(device, 0) + 1
        flat = np.frombuffer(response.raw_output_contents[0], np.float32)
        return flat.reshape(tuple(response.outputs[0].shape))
