# SPDX-License-Identifier: Apache-2.0
"""What the controller answers, one module for each group of commands."""
