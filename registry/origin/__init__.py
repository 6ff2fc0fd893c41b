# SPDX-License-Identifier: Apache-2.0
"""An OCI registry for one machine, and the pull side that regional boxes share with it."""
