# SPDX-License-Identifier: Apache-2.0
"""The accelerator card, from bits to one Python class: device.session.Session."""
