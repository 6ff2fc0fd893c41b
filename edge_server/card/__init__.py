# SPDX-License-Identifier: Apache-2.0
"""The server's hold on its accelerator card: what state it is in, and whether to trust it."""
