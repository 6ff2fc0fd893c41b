# SPDX-License-Identifier: Apache-2.0
"""Simple Management Protocol (MCUmgr): frames, messages and groups, without I/O."""
