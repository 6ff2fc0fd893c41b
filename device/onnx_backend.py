# SPDX-License-Identifier: Apache-2.0
"""Tepi behind ONNX's own interface, onnx.backend.base: `prepare`, `run_model`, `run_node`.

    import device.onnx_backend as backend
    outputs = backend.run_model(model, [image])

All models share one software card, opened with the first of them, unless `card` is given.
"""

import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, shape_inference
from onnx.backend.base import Backend, BackendRep, namedtupledict

from device.binding import Card
from device.errors import InputError
from device.session import Session

NODE_OPSET, NODE_IR = 21, 10  # of a node without a model: ONNX 1.16, which onnxruntime 1.20 has


class SharedCard:
    """A software card that is opened when it is first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._card: Card | None = None

    def get(self) -> Card:
        with self._lock:
            if self._card is None:
                self._card = Card.open("inproc")
            return self._card


class TepiRep(BackendRep):
    """A model that is ready to run; `session` is its Session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any, **_kwargs: Any) -> tuple[Any, ...]:
        """Outputs as a named tuple for inputs in the order of the model's, or by name.

        Raises InputError where there are more inputs than the model has, and what Session.run does.
        """
        names = [info.name for info in self.session.inputs]
        if isinstance(inputs, dict):
            feeds = inputs
        else:
            given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            if len(given) > len(names):
                raise InputError(
                    f"{self.session.name} has {len(names)} inputs ({', '.join(names)}), "
                    f"got {len(given)}"
                )
            feeds = dict(zip(names, given, strict=False))
        outputs = self.session.run(None, feeds)
        return namedtupledict("Outputs", [info.name for info in self.session.outputs])(*outputs)


class TepiBackend(Backend):
    """ONNX's Backend on a card. The card counts as "CPU", for the arrays lie in host memory."""

    _shared = SharedCard()

    @classmethod
    def prepare(
        cls,
        model: onnx.ModelProto,
        device: str = "CPU",
        *,
        card: Literal["inproc", "none"] | Card | None = None,
        **_kwargs: Any,
    ) -> TepiRep:
        """`card` as Session takes it, None for the shared one. Raises ModelError, CardError, and
        ValueError for a device other than "CPU"."""
        if not cls.supports_device(device):
            raise ValueError(f'device "{device}" is not supported; the card goes by "CPU"')
        name = model.graph.name or "model"
        chosen = cls._shared.get() if card is None else card
        return TepiRep(Session(model.SerializeToString(), chosen, name=name))

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """One operator on arrays, one for each input that it names, as of `opset_version` (21 if
        not given); further keywords are `prepare`'s. `outputs_info` is not needed.

        Raises InputError where arrays and inputs differ in number, and what `prepare` and
        `TepiRep.run` raise."""
        opset = int(kwargs.pop("opset_version", NODE_OPSET))
        given = [np.asarray(value) for value in inputs]
        named = [name for name in dict.fromkeys(node.input) if name]
        if len(given) != len(named):
            raise InputError(f"{node.op_type} reads {', '.join(named)}, got {len(given)} arrays")
        graph = helper.make_graph(
            [node],
            node.name or node.op_type,
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for name, value in zip(named, given, strict=True)
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        opsets = [helper.make_opsetid(node.domain, opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=NODE_IR)
        model = shape_inference.infer_shapes(model)
        rep = cls.prepare(model, device, **kwargs)
        try:
            return rep.run(given)
        finally:
            rep.session.close()

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


is_compatible = TepiBackend.is_compatible
prepare = TepiBackend.prepare
run_model = TepiBackend.run_model
run_node = TepiBackend.run_node
supports_device = TepiBackend.supports_device
