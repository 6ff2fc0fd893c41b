# SPDX-License-Identifier: Apache-2.0
"""onnxruntime on the host's processor, as everything here opens it.

On x86-64 without VNNI onnxruntime by default multiplies uint8 by int8 with an instruction that
saturates sums of two products to 16 bits, so that a quantized model's results differ from one
machine to another by many steps. Tepi asks for its exact kernels: what falls back from the card
then answers as the card would. https://onnxruntime.ai/docs/performance/model-optimizations/
quantization.html, "When and why do I need to try U8U8?"
"""

import onnx
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

_EXACT_PRODUCTS = "session.x64quantprecision"
_SPINNING = "session.intra_op.allow_spinning"
_PROVIDERS = ["CPUExecutionProvider"]


def open_session(
    model: bytes | str | onnx.ModelProto,
    threads: int = 1,
    *,
    exact: bool = True,
    spinning: bool = True,
    level: int | None = None,
) -> ort.InferenceSession:
    """A quiet session on `threads` threads; raises what onnxruntime raises.

    `exact` False leaves onnxruntime its faster, saturating products, which only a benchmark wants.
    Threads that spin between runs (`spinning`) answer sooner and take the core from others.
    `level` is a GraphOptimizationLevel, onnxruntime's default where None.
    """
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    options = _options(threads, spinning, level)
    if exact:
        options.add_session_config_entry(_EXACT_PRODUCTS, "1")
        try:
            return ort.InferenceSession(source, options, providers=_PROVIDERS)
        except NoKernel:
            # Where activations are int8, whose products are exact anyway, it turns the weights to
            # uint8 and then has no kernel for the pair.
            options = _options(threads, spinning, level)
    return ort.InferenceSession(source, options, providers=_PROVIDERS)


def _options(threads: int, spinning: bool, level: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not spinning:
        options.add_session_config_entry(_SPINNING, "0")
    if level is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel(level)
    return options
