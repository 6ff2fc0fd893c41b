# SPDX-License-Identifier: Apache-2.0
"""What runs a model: the accelerator card or onnxruntime, behind one small interface."""
