# SPDX-License-Identifier: Apache-2.0
"""A management controller in software: what a card's microcontroller does, behind a pty."""
