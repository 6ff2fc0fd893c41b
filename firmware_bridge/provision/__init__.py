# SPDX-License-Identifier: Apache-2.0
"""A node's certificate: enrolled with a token and a card that vouches, renewed by itself."""
