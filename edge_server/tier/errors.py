# SPDX-License-Identifier: Apache-2.0
"""What can go wrong where a node serves the nodes below it."""

from registry.errors import RegistryError


class TierError(RegistryError):
    """The base of them all."""


class CannotListen(TierError):
    """The tier's address cannot be used."""
