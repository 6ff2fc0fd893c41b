# SPDX-License-Identifier: Apache-2.0
"""The roofline plot is well-formed and puts its points where they belong."""

from xml.etree import ElementTree

from bench.plot import COLOURS, HEIGHT, WIDTH, Point, roofline

SVG = "{http://www.w3.org/2000/svg}"


def circles(text: str) -> list[dict[str, str]]:
    marks = ElementTree.fromstring(text).iter(f"{SVG}circle")
    return [dict(mark.attrib) for mark in marks if "fill-opacity" in mark.attrib]


def test_points_lie_inside_and_in_order() -> None:
    some = [Point(0.9, 7, 0.1), Point(30, 400, 0.6), Point(300, 450, 0.3)]
    found = circles(roofline({"a & b": some}, 460, 80, "title <1>"))
    across = [float(mark["cx"]) for mark in found]
    down = [float(mark["cy"]) for mark in found]
    assert across == sorted(across)
    assert down == sorted(down, reverse=True)
    assert all(0 < x < WIDTH for x in across)
    assert all(0 < y < HEIGHT for y in down)
    assert max(float(mark["r"]) for mark in found) == float(found[1]["r"])


def test_a_model_keeps_one_colour() -> None:
    many, all_of_them = len(COLOURS) + 1, len(COLOURS)
    some = {f"m{n}": [Point(10, 10, 0.5)] * 2 for n in range(many)}
    found = [mark["fill"] for mark in circles(roofline(some, 100, 10, "many"))]
    assert found == [COLOURS[n % all_of_them] for n in range(many) for _ in (1, 2)]


def test_the_limits_meet_at_the_knee() -> None:
    root = ElementTree.fromstring(roofline({"a": [Point(1, 1, 1)]}, 100, 10, "t"))
    slope, flat = (line.attrib for line in root.iter(f"{SVG}line") if "stroke-width" in line.attrib)
    assert (slope["x2"], slope["y2"]) == (flat["x1"], flat["y1"])
    assert flat["y1"] == flat["y2"]
    assert float(slope["y2"]) < float(slope["y1"])
