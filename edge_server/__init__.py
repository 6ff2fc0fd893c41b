# SPDX-License-Identifier: Apache-2.0
"""One appliance: the gRPC service, its engines and its model repository."""
