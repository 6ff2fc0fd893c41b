# SPDX-License-Identifier: Apache-2.0
"""Runs a card program in numpy, word for word as device/abi/program.h says: the oracle for the
compiler and for the card. It shares nothing with either but the header, which it parses."""

import mmap
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import float_rules
from .arithmetic import F32, Array, abi, fma, requantize, saturate, strided

TYPES: dict[int, Any] = {
    0: np.uint8,
    1: np.int8,
    2: np.float32,
    3: np.int64,
    4: np.int32,
    5: np.bool_,
}
NO_TENSOR = 0xFFFF


class Program:
    """A program image, checked for its sums and sizes, ready to run."""

    def __init__(self, image: bytes | mmap.mmap) -> None:
        ffi = abi()
        self.image = image
        header = ffi.cast("struct tepi_program_header *", ffi.from_buffer(image))
        assert header.magic == 0x47525054 and header.header_bytes == 128
        assert header.total_bytes == len(image)
        bare = bytearray(image)
        at = ffi.offsetof("struct tepi_program_header", "crc32")
        bare[at : at + 4] = bytes(4)
        assert zlib.crc32(bytes(bare)) == header.crc32
        offsets = header.tensors_offset, header.instructions_offset, header.constants_offset
        assert all(offset % 64 == 0 for offset in offsets)
        assert header.constants_offset + header.constants_bytes == len(image)
        self.header = header
        base = ffi.from_buffer(image)
        self.tensors = ffi.cast("struct tepi_tensor *", base + header.tensors_offset)
        self.code = ffi.cast("struct tepi_instruction *", base + header.instructions_offset)
        self.constants = np.frombuffer(image, np.uint8, offset=header.constants_offset)
        self._keep = base

    def run(self, inputs: Sequence[Array], sizes: Sequence[int]) -> list[Array]:
        """One item: flat bytes of each output port, `sizes` bytes each. What the program does not
        write is noise, so that reading it shows."""
        assert (len(inputs), len(sizes)) == (self.header.inputs, self.header.outputs)
        noise = np.random.default_rng(7)
        arena = noise.integers(0, 256, self.header.arena_bytes, np.uint8)
        outputs = [noise.integers(0, 256, size, np.uint8) for size in sizes]
        sources = [np.ascontiguousarray(value).reshape(-1).view(np.uint8) for value in inputs]
        self.places = {0: [arena], 1: sources, 2: outputs, 3: [self.constants]}
        for index in range(self.header.instructions):
            self._step(self.code[index])
        return outputs

    def _bytes(self, tensor: Any) -> Array:
        """Memory of the tensor's place."""
        place: list[Array] = self.places[tensor.place]
        return place[tensor.port if tensor.place in (1, 2) else 0]

    def _flat(self, tensor: Any) -> Array:
        """The place from the tensor's element (0, 0, 0, 0) on."""
        size = np.dtype(TYPES[tensor.type]).itemsize
        memory = self._bytes(tensor)[tensor.offset :]
        return memory[: memory.size // size * size].view(TYPES[tensor.type])

    def view(self, tensor: Any, halo: bool = False) -> Array:
        """[n, h, w, c], with the halo's pixels where asked for."""
        if tensor.type == 2:
            return self._floats(tensor)
        assert tensor.type == 0
        assert tensor.stride_w >= tensor.c
        wide = tensor.w + tensor.halo_left + tensor.halo_right
        high = tensor.h + tensor.halo_top + tensor.halo_bottom
        assert tensor.h == 1 or tensor.stride_h >= wide * tensor.stride_w
        assert tensor.n == 1 or tensor.stride_n >= high * tensor.stride_h
        start = tensor.offset
        shape: tuple[int, ...] = (tensor.n, tensor.h, tensor.w, tensor.c)
        if halo:
            start -= tensor.halo_top * tensor.stride_h + tensor.halo_left * tensor.stride_w
            shape = (tensor.n, high, wide, tensor.c)
        strides = (tensor.stride_n, tensor.stride_h, tensor.stride_w, 1)
        last = start + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        memory = self._bytes(tensor)
        assert start >= 0 and last < memory.size, "outside its place"
        return strided(memory[start:], shape, strides)

    def _floats(self, tensor: Any) -> Array:
        """[n, h, w, c] of float32."""
        strides = (tensor.stride_n, tensor.stride_h, tensor.stride_w, 4)
        assert all(step % 4 == 0 for step in strides) and tensor.offset % 4 == 0
        assert tensor.stride_w >= 4 * tensor.c
        shape = (tensor.n, tensor.h, tensor.w, tensor.c)
        last = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        memory = self._flat(tensor)
        assert last // 4 < memory.size, "outside its place"
        return strided(memory, shape, strides)

    def _real(self, tensor: Any) -> Array:
        """[n, h, w, c] as float32, dequantized where it is bytes."""
        if tensor.type == 2:
            return self._floats(tensor)
        steps = (self.view(tensor).astype(np.int32) - tensor.zero_point).astype(F32)
        return np.asarray(steps * F32(tensor.scale))

    def _put(self, tensor: Any, values: Array) -> None:
        """Float32 values to a tensor, quantized where it is bytes."""
        values = np.broadcast_to(values, (tensor.n, tensor.h, tensor.w, tensor.c))
        if tensor.type == 0:
            with np.errstate(all="ignore"):
                values = saturate(values / F32(tensor.scale), tensor.zero_point)
        self.view(tensor)[...] = values

    def _constant(self, offset: int, dtype: Any, count: int) -> Array:
        return np.frombuffer(self.constants, dtype, count, offset)

    def _step(self, step: Any) -> None:
        out = self.tensors[step.out]
        a = None if step.a == 0xFFFF else self.tensors[step.a]
        b = None if step.b == 0xFFFF else self.tensors[step.b]
        rules: dict[int, Callable[[], None]] = {
            1: lambda: self._fill(step.fill, out, b),
            2: lambda: self._map(step.map, a, out, b),
            3: lambda: self._conv(step.conv, a, out, b),
            4: lambda: self._add(step.add, a, b, out),
            5: lambda: self._mul(step.mul, a, b, out),
            6: lambda: self._table(step.table, a, out),
            7: lambda: self._maxpool(step.pool, a, out),
            8: lambda: self._avgpool(step.pool, a, out),
            9: lambda: self._resize(step.resize, a, out),
            10: lambda: self._softmax(step.softmax, a, out),
            11: lambda: self._matmul(step.matmul, a, b, out),
            12: lambda: self._layernorm(step.layernorm, a, out),
            13: lambda: self._vector(step.vector, out),
            14: lambda: self._fmatmul(step.fmatmul, a, b, out),
            15: lambda: self._gather(a, b, out),
            16: lambda: self._put(out, float_rules.ranged(self._floats(a))),
        }
        rules[step.code]()

    @property
    def approximate(self) -> bool:
        """Whether the card may differ from this in last places."""
        vectors = [
            self.code[i].vector for i in range(self.header.instructions) if self.code[i].code == 13
        ]
        steps = [s for p in vectors for s in self._steps(p)]
        codes = {self.code[i].code for i in range(self.header.instructions)}
        return 14 in codes or any(s.code in float_rules.APPROXIMATE for s in steps)

    def _steps(self, p: Any) -> list[Any]:
        assert p.code % 4 == 0
        base = self._keep + self.header.constants_offset + p.code
        steps = abi().cast("struct tepi_vector_step *", base)
        return [steps[i] for i in range(p.steps)]

    def _vector(self, p: Any, out: Any) -> None:
        sources = [self._real(self.tensors[i]) for i in p.sources if i != NO_TENSOR]
        assert all(source.shape[-1] in (1, p.row) for source in sources)
        stored = float_rules.vector(self._steps(p), sources)
        targets = [out, *(self.tensors[i] for i in p.more if i != NO_TENSOR)]
        assert sorted(stored) == list(range(len(targets)))
        found = {number: values.copy() for number, values in stored.items()}
        for number, target in enumerate(targets):
            assert (target.n, target.h, target.w) == (out.n, out.h, out.w)
            self._put(target, found[number])

    def _fmatmul(self, p: Any, a: Any, b: Any, out: Any) -> None:
        left = self._matrices(a, p.heads, p.a_split)
        right = self._matrices(b, p.heads, p.b_split)
        right = right.swapaxes(-1, -2) if p.b_transposed else right
        self._write_matrices(out, float_rules.matmul(left, right, p.scale), p)

    def _gather(self, a: Any, b: Any, out: Any) -> None:
        table, index = self._real(a)[0, 0], self._flat(b)[: b.c]
        assert table.shape[0] > index.max() and index.min() >= -table.shape[0]
        self._put(out, table[index][None, None])

    def _scale_of(self, b: Any) -> tuple[Any, int]:
        """A quantization that the program found as it ran."""
        scale, zero = self._floats(b).reshape(-1)
        return scale, int(zero)

    def _fill(self, p: Any, out: Any, b: Any) -> None:
        value = p.value if b is None else self._scale_of(b)[1]
        inner = self.view(out).copy()
        if p.whole:
            rows = out.h + out.halo_top + out.halo_bottom
            wide = out.w + out.halo_left + out.halo_right
            start = out.offset - out.halo_top * out.stride_h - out.halo_left * out.stride_w
            strides = (out.stride_n, out.stride_h, out.stride_w, 1)
            shape = (out.n, rows, wide, out.stride_w)
            strided(self._bytes(out)[start:], shape, strides)[...] = value
        else:
            self.view(out, halo=True)[...] = value
            self.view(out)[...] = inner

    def _map(self, p: Any, a: Any, out: Any, b: Any) -> None:
        assert 1 <= p.rank <= 6
        dims = [p.dims[i] for i in range(p.rank)]
        source = np.full(dims, p.start, np.int64)
        target = np.full(dims, p.out_start, np.int64)
        for axis, size in enumerate(dims):
            shape = [1] * p.rank
            shape[axis] = size
            steps = np.arange(size).reshape(shape)
            source += steps * p.stride[axis]
            target += steps * p.out_stride[axis]
        assert source.min() >= 0 and target.min() >= 0
        values = self._flat(a)[source.reshape(-1)]
        self._flat(out)[target.reshape(-1)] = self._converted(p, values, a, out, b)

    def _converted(self, p: Any, values: Array, a: Any, out: Any, b: Any) -> Array:
        kinds = a.type, out.type
        if kinds == (2, 0):
            scale, zero = (out.scale, out.zero_point) if b is None else self._scale_of(b)
            with np.errstate(all="ignore"):
                stored = saturate(values / F32(scale), zero)
            return np.clip(stored, p.lo, p.hi)
        if a.type > 2:
            return values.astype(F32)
        if kinds == (0, 2):
            steps = (values.astype(np.int32) - a.zero_point).astype(F32)
            return np.asarray(steps * F32(a.scale))
        if kinds in ((0, 1), (1, 0)):
            return np.asarray((values.view(np.uint8) ^ 128).view(TYPES[out.type]))
        assert a.type == out.type
        return values if p.table == 0xFFFFFFFF else self._constant(p.table, "u1", 256)[values]

    def _stored(self, p: Any, values: Array) -> Array:
        values = np.clip(values, p.lo, p.hi)
        return values if p.table == 0xFFFFFFFF else self._constant(p.table, "u1", 256)[values]

    def _windows(self, image: Array, p: Any, top: int, left: int, out: Any) -> list[Array]:
        """For each tap the pixels that it meets, [n, out.h, out.w, c]."""
        taps = []
        for ky in range(p.kernel_h):
            for kx in range(p.kernel_w):
                y, x = ky * p.dilation_h + top, kx * p.dilation_w + left
                last_y, last_x = y + (out.h - 1) * p.stride_h, x + (out.w - 1) * p.stride_w
                assert y >= 0 and last_y < image.shape[1] and x >= 0 and last_x < image.shape[2]
                taps.append(image[:, y : last_y + 1 : p.stride_h, x : last_x + 1 : p.stride_w])
        return taps

    def _conv(self, p: Any, a: Any, out: Any, b: Any) -> None:
        groups, depth = p.groups, a.c // p.groups
        taps_count = p.kernel_h * p.kernel_w
        size = out.c * taps_count * depth
        weights = self._constant(p.weights, "i1", size).reshape(out.c, taps_count, depth)
        bias = self._constant(p.bias, "<i4", out.c).astype(np.int64)
        multiplier = self._constant(p.multiplier, "<f4", out.c)
        if b is not None and b.type == 2:
            scale, zero = self._scale_of(b)
            bias = bias - zero * weights.astype(np.int64).sum(axis=(1, 2))
            multiplier = F32(scale) * multiplier
        image = self.view(a, halo=True).astype(np.float64)
        top, left = a.halo_top - p.pad_top, a.halo_left - p.pad_left
        total = np.zeros((out.n, out.h, out.w, groups, out.c // groups))
        kernel = weights.reshape(groups, out.c // groups, taps_count, depth).astype(np.float64)
        for tap, pixels in enumerate(self._windows(image, p, top, left, out)):
            split = pixels.reshape(*pixels.shape[:3], groups, depth)
            if depth == 1 and out.c == groups:
                total += split * kernel[:, :, tap, 0]
            else:
                parts = [split[..., g, :] @ kernel[g, :, tap].T for g in range(groups)]
                total += np.stack(parts, axis=-2)
        whole = total.reshape(out.n, out.h, out.w, out.c).astype(np.int64) + bias
        assert np.abs(whole).max() < 1 << 31, "a sum left int32"
        if out.type == 2:
            values = whole.astype(np.int32).astype(F32) * multiplier
            added = p.addend != 0xFFFFFFFF
            self._put(out, values + self._constant(p.addend, "<f4", out.c) if added else values)
            return
        self.view(out)[...] = self._stored(p, requantize(whole, multiplier, out.zero_point))
        if b is not None:
            operands = (b, out) if p.residual_first else (out, b)
            self._add(p.residual, *operands, out)

    def _add(self, p: Any, a: Any, b: Any, out: Any) -> None:
        left, right = self.view(a).astype(np.int32), self.view(b).astype(np.int32)
        shape = (out.n, out.h, out.w, out.c)
        assert left.shape == shape
        right = np.broadcast_to(right, shape)
        ratio_a, ratio_b = np.array(p.ratio_a, F32), np.array(p.ratio_b, F32)
        inner = fma((right - p.b_offset).astype(F32), ratio_b, np.array(p.fixed, F32))
        value = fma((left - p.a_offset).astype(F32), ratio_a, inner)
        self.view(out)[...] = self._stored(p, saturate(value, p.out_offset))

    def _mul(self, p: Any, a: Any, b: Any, out: Any) -> None:
        left, right = self.view(a).astype(np.int32), self.view(b).astype(np.int32)
        assert left.shape == (out.n, out.h, out.w, out.c)
        product = (left - p.a_zero_point) * (right - p.b_zero_point)
        value = product.astype(F32) * F32(p.ratio) + F32(p.zero)
        self.view(out)[...] = self._stored(p, saturate(value, p.out_offset))

    def _table(self, p: Any, a: Any, out: Any) -> None:
        self.view(out)[...] = self._constant(p.table, "u1", 256)[self.view(a)]

    def _pooled(self, p: Any, a: Any, out: Any, fill: int) -> tuple[list[Array], list[Array]]:
        """For each tap the values it meets (`fill` outside the image) and where it is inside."""
        below = max((out.h - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h - p.pad_top, 0)
        beside = max((out.w - 1) * p.stride_w + (p.kernel_w - 1) * p.dilation_w - p.pad_left, 0)
        more = ((0, 0), (p.pad_top, below), (p.pad_left, beside), (0, 0))
        image = np.pad(self.view(a).astype(np.int64), more, constant_values=fill)
        inside = np.pad(np.ones((1, a.h, a.w, 1), bool), more)
        return self._windows(image, p, 0, 0, out), self._windows(inside, p, 0, 0, out)

    def _maxpool(self, p: Any, a: Any, out: Any) -> None:
        values, _ = self._pooled(p, a, out, fill=-1)
        largest = np.max(values, axis=0)
        assert largest.min() >= 0, "a window without a pixel"
        self.view(out)[...] = largest

    def _avgpool(self, p: Any, a: Any, out: Any) -> None:
        values, inside = self._pooled(p, a, out, fill=0)
        pixels = np.sum(inside, axis=0)
        total = np.sum(values, axis=0) - pixels * a.zero_point
        divisor = np.full_like(pixels, p.kernel_h * p.kernel_w) if p.count_include_pad else pixels
        multiplier = F32(p.in_scale) / (F32(p.out_scale) * divisor.astype(F32))
        self.view(out)[...] = requantize(total, multiplier, out.zero_point)

    def _resize(self, p: Any, a: Any, out: Any) -> None:
        rows = self._constant(p.rows, "<u4", out.h)
        columns = self._constant(p.columns, "<u4", out.w)
        assert rows.max() < a.h and columns.max() < a.w
        self.view(out)[...] = self.view(a)[:, rows][:, :, columns]

    def _softmax(self, p: Any, a: Any, out: Any) -> None:
        table = self._constant(p.table, "<f4", 256)
        values = self.view(a).astype(np.int32)
        terms = table[255 - values.max(axis=-1, keepdims=True) + values]
        total = np.zeros((*terms.shape[:-1], 1), F32)
        for channel in range(a.c):
            total += terms[..., channel : channel + 1]
        shares = np.rint(terms * F32(p.ratio) / total).astype(np.int64) + out.zero_point
        self.view(out)[...] = np.minimum(shares, 255)

    def _matrices(self, tensor: Any, heads: int, split: int) -> Array:
        """[n, h, rows, columns], where heads that lie side by side in the channels count as h."""
        image = self.view(tensor)
        if not split:
            return image
        assert split == 1 and tensor.h == 1 and tensor.c % heads == 0
        apart = image[:, 0].reshape(tensor.n, tensor.w, heads, tensor.c // heads)
        return apart.transpose(0, 2, 1, 3)

    def _matmul(self, p: Any, a: Any, b: Any, out: Any) -> None:
        left = self._matrices(a, p.heads, p.a_split).astype(np.int64) - a.zero_point
        right = self._matrices(b, p.heads, p.b_split).astype(np.int64) - b.zero_point
        total = left @ (right.swapaxes(-1, -2) if p.b_transposed else right)
        assert np.abs(total).max() < 1 << 31, "a sum left int32"
        multiplier = np.array(p.multiplier, F32)
        self._write_matrices(out, self._stored(p, requantize(total, multiplier, out.zero_point)), p)

    def _write_matrices(self, out: Any, values: Array, p: Any) -> None:
        n, h, rows, columns = values.shape
        if p.out_split:
            assert (out.n, out.w, out.c, h) == (n, rows, h * columns, p.heads)
            values = values.transpose(0, 2, 1, 3).reshape(n, 1, rows, h * columns)
        self.view(out)[...] = values

    def _layernorm(self, p: Any, a: Any, out: Any) -> None:
        values = self.view(a).astype(np.int64)
        mean = values.sum(axis=-1, keepdims=True) / np.float64(a.c)
        squares = (values * values).sum(axis=-1, keepdims=True) / np.float64(a.c)
        variance = np.maximum(squares - mean * mean, 0)
        factor = (1 / np.sqrt(variance + np.float64(p.epsilon))).astype(F32)
        normal = (values.astype(F32) - mean.astype(F32)) * factor
        gamma, beta = (self._constant(at, "<f4", out.c) for at in (p.gamma, p.beta))
        shape = normal.shape
        value = fma(normal, np.broadcast_to(gamma, shape), np.broadcast_to(beta, shape))
        self.view(out)[...] = saturate(value, out.zero_point)
