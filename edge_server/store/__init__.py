# SPDX-License-Identifier: Apache-2.0
"""The blobs that a node holds: content-addressed, crash-safe, bounded."""
