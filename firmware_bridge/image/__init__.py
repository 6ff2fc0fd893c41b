# SPDX-License-Identifier: Apache-2.0
"""MCUboot images: what they say, whether they are whole, who signed them."""
