# SPDX-License-Identifier: Apache-2.0
"""float32 models to int8 ones, with an account of what was lost and what was won."""
