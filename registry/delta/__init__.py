# SPDX-License-Identifier: Apache-2.0
"""What two versions have in common: block indexes and deltas, made at publish, applied at fetch."""
