# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a package once it is here."""

from registry.errors import RegistryError


class Unfit(RegistryError):
    """The package does not do on this node what its golden vectors say, or cannot be loaded. No
    further attempt will make it better."""


class NotInstalling(RegistryError):
    """Nothing new may be installed now: what says what is current cannot be trusted. What is served
    goes on."""
