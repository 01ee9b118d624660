"""The program that compares the papers' numbers with ours."""

import sys

import pytest

from kseg import papers
from kseg.errors import UserError
from kseg.papers import Row
from tests.program_calls import call_main


@pytest.mark.slow
def test_all_numbers_of_the_papers_agree(tmp_path, capsys):
    path = tmp_path / "figure.png"
    status = call_main(papers, f"--figure={path}")
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "DISAGREES" not in printed
    assert path.read_bytes().startswith(b"\x89PNG")
    for paper in papers.PAPERS:
        assert sum(line.startswith(paper) for line in printed.splitlines()) >= 3, paper


@pytest.mark.parametrize("paper", ["Vortex", "LKSPP"])
def test_the_numbers_of_a_paper_agree(paper):
    rows = list(papers.PAPERS[paper]())
    assert len(rows) >= 4
    assert [row for row in rows if not row.agrees] == []


def test_vortex_variant_b_must_see_every_pixel(monkeypatch):
    seen = {65: 65**2 - 1, 129: 81**2 - 1}
    monkeypatch.setattr(papers, "_pixels_seen", lambda layer, size: seen[size])
    *_, fraction, pixels = papers.PAPERS["Vortex"]()
    assert (fraction.printed, fraction.agrees) == ("1", False)
    assert (pixels.printed, pixels.agrees) == ("6561", False)


def test_missing_matplotlib_is_reported_before_anything_is_counted(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(papers, "rows", lambda: pytest.fail("rows were counted"))
    with pytest.raises(UserError, match="--figure.*figures"):
        call_main(papers, "--figure=figure.png")


def test_a_row_that_disagrees_fails_the_program(monkeypatch, capsys):
    wrong = Row("KSAC", "Table 1", "a count", "3.0 M", "4.0 M", agrees=False)
    monkeypatch.setattr(papers, "rows", lambda: iter([wrong]))
    assert call_main(papers, "--figure=") == 1
    assert "DISAGREES" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("printed", "ours", "agrees"),
    [("4.5", 4.5235, True), ("4.5", 4.61, False), ("260", 260.694, True), ("260", 261.0, False)],
)
def test_a_count_agrees_within_one_unit_of_its_last_digit(printed, ours, agrees):
    assert papers._row("P", "T", "w", printed, ours).agrees is agrees
