# SPDX-License-Identifier: Apache-2.0
"""`tepi provision`: the commands, of the authority's side and of the node's."""

from __future__ import annotations

from firmware_bridge.provision.authority_command import deny, init_ca, serve, sign_csr, token
from firmware_bridge.provision.node_command import enroll, export_csr, import_cert, renew
from firmware_bridge.provision.status_command import status

__all__ = [
    "deny",
    "enroll",
    "export_csr",
    "import_cert",
    "init_ca",
    "renew",
    "serve",
    "sign_csr",
    "status",
    "token",
]
