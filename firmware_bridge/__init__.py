# SPDX-License-Identifier: Apache-2.0
"""The serial link to a card's management controller, its firmware, and the identity of the node."""
