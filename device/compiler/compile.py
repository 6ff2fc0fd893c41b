# SPDX-License-Identifier: Apache-2.0
"""The passes in order: a checked model and its input shapes to a CompiledModel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from device.compiler.batch import TRIAL_SIZES, Declared, declared, separable
from device.compiler.dynamic import DynamicRecogniser
from device.compiler.evaluate import loads
from device.compiler.floats import FloatRecogniser
from device.compiler.graph import Constants, Graph, Shape, outer_names
from device.compiler.moves import Rewriter
from device.compiler.place import Draft, Placer
from device.compiler.plan import CardSegment, CompiledModel, HostSegment, Placement
from device.compiler.quant import Unplaced
from device.compiler.reader import (
    Clash,
    at_shapes,
    build_graph,
    one_line,
    read_model,
    tensor_info,
)
from device.compiler.recognise import Recogniser
from device.compiler.rows import host_rows, placement_rows
from device.compiler.segment import card_segment, host_segment, resolved
from device.compiler.tables import Tables
from device.compiler.weights import Weights
from device.errors import ModelError


def compile_model(
    model: bytes | onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    name: str = "model",
    weights: Weights | None = None,
) -> CompiledModel:
    """Compile for these input shapes, or for the declared ones (a symbolic dimension 0 counts as
    the batch). `name` is what errors call the model; `weights` holds the initializers' bytes that
    are not in `model` itself. Raises device.errors.ModelError."""
    try:
        proto = read_model(model, name, weights)
        compilation = _Compilation(proto, name, weights or Weights())
        found = declared(proto, input_shapes or {}, name)
        return compilation.trial() if found.dynamic else compilation.settled(found)
    except ModelError:
        raise
    except Exception as error:
        # A protobuf can be malformed in more ways than the checks above name one by one.
        raise ModelError(
            f"{name}: the compiler cannot make sense of it ({type(error).__name__}: "
            f"{one_line(error)}); check it with onnx.checker, and report it if that finds nothing"
        ) from error


@dataclass
class _Placed:
    graph: Graph
    placer: Placer
    drafts: list[Draft]

    @property
    def on_host(self) -> bool:
        return all(draft.where == "onnxruntime" for draft in self.drafts)


class _Compilation:
    def __init__(self, proto: onnx.ModelProto, name: str, weights: Weights) -> None:
        self._proto = proto
        self._name = name
        self._weights = weights
        self._initializers = Constants(proto.graph.initializer, weights)

    def settled(self, found: Declared) -> CompiledModel:
        """As run(), but what only ONNX's inference objects to is left to onnxruntime."""
        try:
            return self.run(found)
        except Clash:
            if not loads(at_shapes(self._whole(), found.shapes)):
                raise
            return self._host(host_rows(self._proto, "ONNX's inference of shapes fails on it"))

    def run(self, found: Declared) -> CompiledModel:
        if not found.complete:
            return self._host(host_rows(self._proto, "an input of the model has no known rank"))
        shapes, batchable = found.shapes, False
        placed: _Placed | None = None
        if found.batch:
            placed = self._itemwise(found)
            if placed is not None:
                shapes, batchable = found.at(1), True
        placed = placed or self._place(shapes)
        segments = self._lower(placed, batchable)
        rows = placement_rows(self._proto, placed.graph, placed.placer)
        if segments is None:
            return self._host(rows)
        return self._result(segments, rows, shapes, batchable, placed.graph)

    def trial(self) -> CompiledModel:
        """The placement that the model would have at some size."""
        rows = host_rows(self._proto, "the model has no shapes before it is fed")
        for size in TRIAL_SIZES:
            try:
                found = declared(self._proto, {}, self._name, size)
                rows = self.run(found).placement
                break
            except ModelError:
                continue
        return CompiledModel(
            self._name, *self._ports(), (), rows, {}, batchable=False, needs_shapes=True
        )

    def _place(self, shapes: Mapping[str, Shape]) -> _Placed:
        graph = build_graph(self._proto, shapes, self._name, self._initializers)
        rewriter = Rewriter(graph)
        rewriter.run()
        recogniser = Recogniser(graph, Tables(graph, self._proto.opset_import))
        recogniser.run()
        invented, reasons = rewriter.invented, recogniser.reasons
        dynamic = DynamicRecogniser(graph, reasons, invented)
        dynamic.run()
        floats = FloatRecogniser(graph, [*recogniser.units, *dynamic.units], reasons, invented)
        floats.run()
        placer = Placer(graph, self._proto, invented, floats.units, reasons)
        return _Placed(graph, placer, placer.run())

    def _itemwise(self, found: Declared) -> _Placed | None:
        """The model placed for one item, where the card may then run any number one by one."""
        try:
            one, two = self._place(found.at(1)), self._place(found.at(2))
        except ModelError:
            return None  # its shapes hold for the declared batch only
        edges = {n for d in one.drafts if d.where == "card" for n in (*d.inputs, *d.outputs)}
        constants = self._read_on_host(one)
        if not separable(
            one.placer.units, one.graph, two.placer.units, two.graph, edges | constants
        ):
            return None
        return one

    def _whole(self, names: set[str] | None = None) -> onnx.ModelProto:
        """The model, and in it the bytes of these initializers (None: of all)."""
        self._weights.fill(self._proto, names)
        return self._proto

    def _read_on_host(self, placed: _Placed) -> set[str]:
        """Constants that nodes on onnxruntime read."""
        nodes = [self._proto.graph.node[index] for index in placed.placer.host_indices()]
        constants = placed.graph.constants
        return {name for node in nodes for name in node.input if name in constants}

    def _read_by(self, indices: set[int], graph: Graph) -> set[str]:
        nodes = [self._proto.graph.node[index] for index in indices]
        names = {name for node in nodes for name in (*node.input, *outer_names(node))}
        return {resolved(name, graph.aliases) for name in names}

    def _lower(self, placed: _Placed, batchable: bool) -> list[CardSegment | HostSegment] | None:
        """Segments to run; None where nothing is left for the card."""
        while not placed.on_host:
            segments: list[CardSegment | HostSegment] = []
            for draft in placed.drafts:
                if draft.where == "onnxruntime":
                    indices = {index for item in draft.items for index in item.indices}
                    whole = self._whole(self._read_by(indices, placed.graph))
                    segments.append(
                        host_segment(whole, indices, placed.graph, draft.inputs, draft.outputs)
                    )
                    continue
                try:
                    segments.append(
                        card_segment(
                            draft.units, placed.graph, draft.inputs, draft.outputs, batchable
                        )
                    )
                except Unplaced as reason:
                    placed.placer.refuse(draft.units, str(reason))
                    placed.drafts = placed.placer.run()
                    break
            else:
                return segments
        return None

    def _ports(self) -> tuple[tuple, tuple]:  # type: ignore[type-arg]
        initializers = {tensor.name for tensor in self._proto.graph.initializer}
        inputs = (v for v in self._proto.graph.input if v.name not in initializers)
        return tuple(map(tensor_info, inputs)), tuple(map(tensor_info, self._proto.graph.output))

    def _host(self, rows: tuple[Placement, ...]) -> CompiledModel:
        inputs, outputs = self._ports()
        segment = HostSegment(
            self._whole().SerializeToString(),
            tuple(info.name for info in inputs),
            tuple(info.name for info in outputs),
        )
        return CompiledModel(
            self._name, inputs, outputs, (segment,), rows, {}, batchable=True, any_shape=True
        )

    def _result(
        self,
        segments: list[CardSegment | HostSegment],
        rows: tuple[Placement, ...],
        shapes: Mapping[str, Shape],
        batchable: bool,
        graph: Graph,
    ) -> CompiledModel:
        inputs, outputs = self._ports()
        constants = {
            info.name: value
            for info in outputs
            if (value := graph.constants.get(info.name)) is not None
        }
        return CompiledModel(
            self._name,
            inputs,
            outputs,
            tuple(segments),
            rows,
            dict(shapes),
            batchable,
            constants=constants,
        )
