# SPDX-License-Identifier: Apache-2.0
"""What a model is when it travels: a ModelPack artifact in an OCI layout."""
