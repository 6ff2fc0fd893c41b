# SPDX-License-Identifier: Apache-2.0
"""Who may say what is current: TUF keys and metadata, made centrally and checked on a node."""
