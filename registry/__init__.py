# SPDX-License-Identifier: Apache-2.0
"""The central registry's side: packages, publishing, trust, deltas and an origin to serve them."""
