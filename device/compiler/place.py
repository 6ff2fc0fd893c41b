# SPDX-License-Identifier: Apache-2.0
"""Which nodes the card runs, and the segments that follow.

A Unit stands on the card only if nothing off the card needs a tensor inside it, and if all nodes
split from one node of the model stand together. Segments alternate between card and onnxruntime,
each as large as the order of the tensors lets it be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import onnx

from device.compiler.graph import INT8, UINT8, Graph, Node, outer_names
from device.compiler.segment import resolved
from device.compiler.units import FLOATING, MOVING, DynamicQuantize, Unit, Vector

SMALL = "nothing to compute between operators that run on onnxruntime: not worth the crossing"

FLOAT_ONLY = "nothing around it is quantized, and float models are onnxruntime's part"


@dataclass(eq=False)
class Item:
    """A Unit, or a node of the model for onnxruntime, and the tensors that join it to others."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    unit: Unit | None = None
    indices: tuple[int, ...] = ()


@dataclass
class Draft:
    """Items of one kind that run together."""

    where: Literal["card", "onnxruntime"]
    items: list[Item]
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    @property
    def units(self) -> list[Unit]:
        return [item.unit for item in self.items if item.unit is not None]


class Placer:
    """`units` shrinks to those that stand; `reasons` (by node index) grows."""

    def __init__(
        self,
        graph: Graph,
        proto: onnx.ModelProto,
        invented: set[str],
        units: Sequence[Unit],
        reasons: dict[int, str],
    ) -> None:
        self._graph = graph
        self._proto = proto
        self._invented = invented
        self._readers = graph.consumers()
        self._producers = graph.producers()
        self._constant = {name for name in invented if name in graph.constants}
        self._made: set[str] = set()
        self._read: set[str] = set()
        self.units = list(units)
        self.reasons = reasons

    def run(self) -> list[Draft]:
        while True:
            self._settle()
            drafts = self._segments()
            if all(draft.where == "card" for draft in drafts):
                if not self.units or any(self._quantized(unit) for unit in self.units):
                    return drafts
                self.refuse(self.units, FLOAT_ONLY)
                continue
            idle = [
                unit
                for draft in drafts
                if draft.where == "card" and not any(_computes(unit) for unit in draft.units)
                for unit in draft.units
            ]
            if not idle:
                return drafts
            self.refuse(idle, SMALL)

    def _quantized(self, unit: Unit) -> bool:
        """Whether the unit works on bytes, or moves them."""
        if unit.quantization is not None or isinstance(unit.work, DynamicQuantize):
            return True
        if isinstance(unit.work, Vector):
            return any(unit.work.sources)
        if isinstance(unit.work, MOVING):
            return self._graph.types.get(unit.output) in (UINT8, INT8)
        return not isinstance(unit.work, FLOATING)

    def refuse(self, units: Iterable[Unit], reason: str) -> None:
        gone = set(units)
        # Steps of one node stand together: what passes between them exists on the card only.
        parts = {unit.node for unit in gone if unit.output in self._invented}
        whole = {unit.node for unit in gone}
        gone |= {
            unit
            for unit in self.units
            if unit.node in parts or (unit.node in whole and unit.output in self._invented)
        }
        for unit in gone:
            self.reasons.setdefault(unit.node.index, reason)
        self.units = [unit for unit in self.units if unit not in gone]

    def on_card(self) -> set[Node]:
        return {node for unit in self.units for node in unit.members}

    def _settle(self) -> None:
        """Refuses units until each can stand beside those that are left."""
        while True:
            card = self.on_card()
            split = self._split_origins(card)
            self._made = {unit.output for unit in self.units}
            self._read = {name for unit in self.units for name in unit.inputs}
            refused = {
                unit: reason
                for unit in self.units
                if (reason := self._objection(unit, card, split)) is not None
            }
            if not refused:
                return
            for unit, reason in refused.items():
                self.refuse([unit], reason)

    def _split_origins(self, card: set[Node]) -> set[int]:
        """Nodes of the model of which only a part stands on the card."""
        off = {
            node.index
            for node in self._graph.nodes
            if node not in card and node.op != "DequantizeLinear"
        }
        return off & {node.index for node in card}

    def _objection(self, unit: Unit, card: set[Node], split: set[int]) -> str | None:
        for node in unit.members:
            if node.index in split:
                return "a part of it is off the card"
            for name in node.outputs:
                inner = name not in self._made or name in self._invented
                if inner and (name in self._graph.outputs or self._needed_off(name, card)):
                    return f'its result "{name}" is needed in float off the card'
        for name in unit.inputs:
            if name in self._invented and name not in self._made | self._constant:
                producer = self._producers.get(name)
                return f'"{producer.label if producer else name}" before it is off the card'
        if unit.output in self._invented and unit.output not in self._read:
            return "nothing on the card reads it"
        return None

    def _needed_off(self, name: str, card: set[Node]) -> bool:
        for reader in self._readers.get(name, ()):
            if reader in card:
                continue
            if reader.op != "DequantizeLinear":
                return True
            if reader.output in self._graph.outputs or self._needed_off(reader.output, card):
                return True
        return False

    def _segments(self) -> list[Draft]:
        items = self._items()
        drafts = min(
            (_alternate(items, start) for start in ("card", "onnxruntime")),
            key=len,
        )
        outputs = {resolved(name, self._graph.aliases) for name in self._graph.outputs}
        for position, draft in enumerate(drafts):
            later = {n for d in drafts[position + 1 :] for item in d.items for n in item.reads}
            written = {n: None for item in draft.items for n in item.writes}
            reads = {n: None for item in draft.items for n in item.reads}
            draft.inputs = [n for n in reads if n not in written]
            draft.outputs = [n for n in written if n in later or n in outputs]
        return drafts

    def _items(self) -> list[Item]:
        constants = self._graph.constants
        items = [
            Item(
                tuple(name for name in unit.inputs if name not in constants),
                (unit.output,),
                unit,
            )
            for unit in self.units
        ]
        for index in self.host_indices():
            items.append(self._host_item(index))
        return items

    def host_indices(self) -> list[int]:
        """Nodes of the model that onnxruntime runs, apart from those that only prepare what
        another node reads."""
        card = {node.index for node in self.on_card()}
        done = card | self._preparations
        done |= self._graph.folded | self._graph.dead | set(self._graph.merged)
        return [index for index in range(len(self._proto.graph.node)) if index not in done]

    @cached_property
    def _preparations(self) -> set[int]:
        """DequantizeLinear nodes, and transposed weights, inside the graph: whoever reads them
        takes them along."""
        found = {
            index
            for index, node in enumerate(self._proto.graph.node)
            if node.op_type == "DequantizeLinear" and node.output[0] not in self._graph.outputs
        }
        return found | set(self._graph.transposed)

    @cached_property
    def _prepared(self) -> dict[str, int]:
        """The node behind each tensor that a preparation makes."""
        return {self._proto.graph.node[i].output[0]: i for i in self._preparations}

    def _host_item(self, index: int) -> Item:
        """The node with the preparations in front of it."""
        indices: list[int] = []
        reads: dict[str, None] = {}
        pending = [index]
        while pending:
            at = pending.pop()
            indices.append(at)
            node = self._proto.graph.node[at]
            for raw in (*node.input, *sorted(outer_names(node))):
                name = resolved(raw, self._graph.aliases)
                if not name or name in self._graph.constants:
                    continue
                before = self._prepared.get(name)
                if before is None:
                    reads[name] = None
                elif before not in indices:
                    pending.append(before)
        writes = tuple(name for name in self._proto.graph.node[index].output if name)
        return Item(tuple(reads), writes, None, tuple(indices))


def _computes(unit: Unit) -> bool:
    """Whether the unit does more than move, requantize and work in float."""
    return not isinstance(unit.work, MOVING + FLOATING) and unit.node.op != "QuantizeLinear"


def _alternate(items: Sequence[Item], start: str) -> list[Draft]:
    """Items in turns of card and onnxruntime, each turn taking all that can run."""
    written = {name for item in items for name in item.writes}
    ready: set[str] = set()
    waiting = list(items)
    drafts: list[Draft] = []
    where: Literal["card", "onnxruntime"] = "card" if start == "card" else "onnxruntime"
    idle = 0
    while waiting and idle < 2:
        taken: list[Item] = []
        progress = True
        while progress:
            progress = False
            left: list[Item] = []
            for item in waiting:
                mine = (item.unit is not None) == (where == "card")
                if mine and all(n in ready or n not in written for n in item.reads):
                    taken.append(item)
                    ready.update(item.writes)
                    progress = True
                else:
                    left.append(item)
            waiting = left
        if taken:
            drafts.append(Draft(where, taken))
        idle = 0 if taken else idle + 1
        where = "onnxruntime" if where == "card" else "card"
    assert not waiting, "the graph is sorted, so some item can always run"
    return drafts
