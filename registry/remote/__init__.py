# SPDX-License-Identifier: Apache-2.0
"""A client of any OCI registry: push, pull, list, with its credentials."""
