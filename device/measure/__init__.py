# SPDX-License-Identifier: Apache-2.0
"""What a model costs on the card: instruction by instruction, and against onnxruntime."""
