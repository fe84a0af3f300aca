"""What a benchmark says of what it measured: medians, tables, the chart."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.bench.chart import draw_chart
from tests.bench.results import Results, document, quantity_text, tables
from tests.bench.running import Taken

SVG = "{http://www.w3.org/2000/svg}"


def two_programs() -> dict[str, Results]:
    own, other = Results("backthen 1"), Results("other <2>")
    for wall_s in (1.0, 9.0, 2.0):
        own.record("small", Taken(wall_s, 3.0, 50 << 20, 1000))
    other.record("small", Taken(8.0, 6.0, 100 << 20, 4000))
    other.record("walk-cold", Taken(0.5))
    return {"backthen": own, "other": other}


def test_a_table_has_medians_and_how_many_times_more_the_others_took() -> None:
    lines = list(tables(two_programs()))
    assert "| Wall time | backthen 1 | other <2> |" in lines
    assert "| first snapshot, small files | 2.00 s | 8.00 s (4 \N{MULTIPLICATION SIGN}) |" in lines
    assert "| first snapshot, small files | 50.0 MiB | 100 MiB (2 \N{MULTIPLICATION SIGN}) |" in lines
    assert "| mount: walk with stat of all small files | - | 0.50 s |" in lines


def test_figures_have_units() -> None:
    assert ["12.3 s", "1.50 s", "50 ms", "360 \N{MICRO SIGN}s"] == [
        quantity_text(s, "wall_s") for s in (12.3, 1.5, 0.05, 0.00036)
    ]
    sizes = (0, 1023, 2048, 200 << 20)
    assert ["0 B", "1,023 B", "2.0 KiB", "200 MiB"] == [quantity_text(size, "stored_bytes") for size in sizes]


def test_the_document_has_every_run() -> None:
    programs = document(two_programs(), {"runs": 3})["programs"]
    assert isinstance(programs, dict)
    assert [1.0, 9.0, 2.0] == [taken["wall_s"] for taken in programs["backthen"]["steps"]["small"]]


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    root = ElementTree.fromstring(draw_chart(two_programs(), "a & b"))
    first = [bar for bar in root.iter(f"{SVG}rect") if bar.get("height") == "12"][:2]
    assert ["bar0", "bar1"] == [bar.get("class") for bar in first]
    assert float(first[1].get("width") or 0) == 4 * float(first[0].get("width") or 0)


def test_the_chart_names_programs_and_figures_inside_its_borders() -> None:
    root = ElementTree.fromstring(draw_chart(two_programs(), "a & b"))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a & b", "backthen 1", "other <2>", "2.00 s"} <= set(texts)
    places = [float(text.get("y") or 0) for text in root.iter(f"{SVG}text")]
    assert max(places) < float(root.get("height") or 0)
