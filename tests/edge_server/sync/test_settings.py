# SPDX-License-Identifier: Apache-2.0
"""The settings file: what it may say, and that every mistake names its key."""

from pathlib import Path

import pytest

from edge_server.sync.settings import SettingsError, parse_bytes, parse_settings, read_settings

_LEAST = 'state = "s"\nroot = "root.json"\nring = "stable"\n'
_FULL = (
    _LEAST
    + """
poll_seconds = 5
[store]
max_bytes = "50 GiB"
reserve_bytes = 1000
[fill]
rate = "20 MB/s"
window = "01:00-05:00"
deltas = false
[tier]
listen = "0.0.0.0:5051"
[[origins]]
url = "https://eu.example/"
region = "eu"
credentials = "auth.json"
[[origins]]
url = "http://127.0.0.1:5000"
name = "near"
[[peers]]
url = "http://10.0.0.7:5051"
"""
)


def written(folder: Path, text: str) -> Path:
    path = folder / "sync.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_least_file(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, _LEAST))
    assert settings.state == tmp_path / "s" and settings.models == tmp_path / "s" / "models"
    assert settings.origins == () and settings.poll_seconds == 60 and settings.rate is None
    assert settings.reserve_bytes == 1 << 30


def test_every_key(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, _FULL))
    assert settings.max_bytes == 50 << 30 and settings.reserve_bytes == 1000
    assert settings.rate == 20_000_000 and settings.window == "01:00-05:00"
    assert not settings.deltas and settings.tier_listen == "0.0.0.0:5051"
    far, near = settings.origins
    assert (far.url, far.name, far.region) == ("https://eu.example", "eu.example", "eu")
    assert far.credentials == tmp_path / "auth.json" and far.ca_file is None
    assert near.name == "near" and settings.peers[0].url == "http://10.0.0.7:5051"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ('ring = "stable"', "state is missing"),
        (_LEAST + "pol_seconds = 3", "pol_seconds is no key of ours"),
        (_LEAST + "poll_seconds = 0", "poll_seconds 0 is not between"),
        (_LEAST + "poll_seconds = true", "poll_seconds is not a int or float"),
        (_LEAST.replace("stable", "../up"), "ring '../up' is not"),
        (_LEAST + '[fill]\nrate = "fast"', "fill.rate"),
        (_LEAST + "[store]\nmax_bytes = -1", "store.max_bytes"),
        (_LEAST + "[store]\nmax_byte = 1", "store.max_byte is no key"),
        (_LEAST + '[[origins]]\nurl = "ftp://x"', "origins[0].url 'ftp://x'"),
        (_LEAST + "[[origins]]\n", "origins[0].url is missing"),
        (_LEAST + '[[peers]]\nurl = "http://a"\nport = 1', "peers[0].port is no key"),
        (_LEAST + "origins = [1]", "origins is to be written as"),
        ("state = ", "sync.toml"),
        ("\xff", "sync.toml"),
    ],
)
def test_a_mistake_names_its_key(tmp_path: Path, change: str, named: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings(written(tmp_path, change))
    assert named in str(error.value) and "sync.toml" in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_settings(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [(7, 7), ("7", 7), ("1.5 MB", 1_500_000), ("2GiB", 2 << 30), ("10 kb/s", 10_000)],
)
def test_bytes(text: str | int, value: int) -> None:
    assert parse_bytes(text) == value


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(SettingsError, match="ring is missing"):
        parse_settings({}, Path(), "x")
