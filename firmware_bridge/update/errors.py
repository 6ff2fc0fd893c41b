# SPDX-License-Identifier: Apache-2.0
"""What ends an update, apart from what the link and the image say themselves."""

from firmware_bridge.errors import BridgeError


class Reverted(BridgeError):
    """The new firmware did not pass; the card runs the one before."""

    exit_code = 20


class Incompatible(BridgeError):
    """The image is for another driver, or for another format of programs."""

    exit_code = 21


class Older(BridgeError):
    """The image is of an earlier version than what runs, and --allow-downgrade was not given."""

    exit_code = 22


class TrialRuns(BridgeError):
    """Another image is on trial: what the card would go back to lies where an upload would go."""

    exit_code = 23


class NotBack(BridgeError):
    """The card does not answer after it was told to restart."""

    exit_code = 17


class NothingToDo(BridgeError):
    """A card has no image on trial, no image to go back to, or no image in its second slot."""


class NoCards(BridgeError):
    """No card was found, or more than one where one was meant."""
