# SPDX-License-Identifier: Apache-2.0
"""Bytes from origins and peers into the store, as a CDN fills its cache."""
