# SPDX-License-Identifier: Apache-2.0
"""Firmware from a file into a card, so that it can be interrupted at every step."""
