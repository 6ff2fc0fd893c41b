# SPDX-License-Identifier: Apache-2.0
"""What this node holds, served to the nodes below it."""
