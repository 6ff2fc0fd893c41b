# SPDX-License-Identifier: Apache-2.0
"""Follows what the registry wants this node to run."""
