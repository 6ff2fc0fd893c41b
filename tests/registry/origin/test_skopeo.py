# SPDX-License-Identifier: Apache-2.0
"""skopeo writes to the origin and reads from it; what comes back is what was sent."""

from pathlib import Path

import pytest

from registry.digest import digest_of
from registry.oci import EMPTY, EMPTY_JSON, Manifest, describe
from registry.origin.users import add_user, make_user
from registry.package.layout import Layout
from tests.e2e.docker_registry import need, skopeo
from tests.registry.origin.test_command import serving

LAYER = bytes(range(256)) * 8192


def make_layout(path: Path) -> str:
    """A package of one layer under the tag v1; its digest."""
    layout = Layout(path, create=True)
    config = layout.add(EMPTY_JSON, EMPTY)
    layer = layout.add(LAYER, "application/vnd.cncf.model.weight.v1.raw")
    entry, data = describe(Manifest(config, (layer,), "application/x.model"))
    layout.add(data, entry.media_type)
    layout.tag("v1", entry)
    return entry.digest


@pytest.mark.parametrize("password", [False, True])
def test_skopeo_copies_there_and_back(tmp_path: Path, password: bool) -> None:
    need("skopeo")
    digest = make_layout(tmp_path / "out")
    options: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    if password:
        (tmp_path / "registry").mkdir()
        add_user(tmp_path / "registry/users", make_user("ci", "push", "correct horse"))
        options, to = ("--anonymous-pull",), ("--dest-creds", "ci:correct horse")
    with serving(tmp_path / "registry", *options) as (address, _log):
        there = f"docker://{address.removeprefix('http://')}/vision/digits:v1"
        skopeo("copy", "--dest-tls-verify=false", *to, f"oci:{tmp_path}/out:v1", there)
        raw = skopeo("inspect", "--raw", "--tls-verify=false", there)
        assert digest_of(raw.encode()) == digest
        skopeo("copy", "--src-tls-verify=false", there, f"oci:{tmp_path}/back:v1")
    back = Layout(tmp_path / "back")
    assert back.tags()["v1"].digest == digest
    assert back.blob_path(digest_of(LAYER)).read_bytes() == LAYER
