"""Text in any script: the letters of a font that has them, or ASCII."""

import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kseg.visualization import confusion_matrix, sheets, text

SIZE = 14


def drawn(line):
    picture = Image.new("L", (200, 30), 255)
    text.draw(ImageDraw.Draw(picture), (5, 5), line, SIZE)
    return np.asarray(picture)


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine where only Pillow's own font is installed."""
    monkeypatch.setattr(text, "_font_files", lambda _: iter(["missing.ttf"]))
    monkeypatch.setattr(text, "_note_printed", False)
    text._legible.cache_clear()
    yield
    text._legible.cache_clear()


@pytest.mark.parametrize("letters", ["äößé", "дорга", "λόγς", "łđşğ"])
def test_letters_beyond_ascii_are_drawn_as_different_glyphs(letters, capsys):
    pytest.importorskip("matplotlib")
    pictures = {drawn(letter).tobytes() for letter in letters}
    assert len(pictures) == len(letters)
    assert text._legible(letters, SIZE)[0] == letters
    assert capsys.readouterr().err == ""


def test_a_letter_has_its_accent_whether_composed_or_decomposed():
    pytest.importorskip("matplotlib")
    decomposed = unicodedata.normalize("NFD", "Bäume")
    np.testing.assert_array_equal(drawn(decomposed), drawn("Bäume"))
    assert (drawn("Bäume") != drawn("Baume")).any()


def test_fonts_of_the_system_are_tried_for_other_scripts(monkeypatch, tmp_path):
    """`fc-match` stands for fontconfig; its font is used only if it has the letters."""
    matplotlib = pytest.importorskip("matplotlib")
    font = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    program = tmp_path / "fc-match"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nprintf %s {font}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(text, "find_spec", lambda _: None)
    monkeypatch.setattr(text, "_SYSTEM_FONTS", ())
    text._legible.cache_clear()
    assert text._legible("Bäume", SIZE)[1].path == font
    assert "sans:charset=42 65 6d 75 e4" in (tmp_path / "arguments").read_text()
    assert text._legible("道路", SIZE)[0] == r"\u9053\u8def"
    text._legible.cache_clear()


def test_without_a_font_for_it_a_name_is_drawn_in_ascii_with_one_note(no_fonts, capsys):
    np.testing.assert_array_equal(drawn("дорога"), drawn("doroga"))
    assert text.width("дорога", SIZE) == text.width("doroga", SIZE)
    note = capsys.readouterr().err
    assert "дорога" in note and "doroga" in note and note.count("\n") == 1
    np.testing.assert_array_equal(drawn("道路"), drawn(r"\u9053\u8def"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("route pavée", "route pavee"),
        ("Straße", "Strasse"),
        ("Æble, Łódź", "Aeble, Lodz"),
        ("Ёлка и Щука", "Elka i Shchuka"),
        ("объём", "obem"),
        ("Οδός", "Odos"),
        ("道路 (2 м)", r"\u9053\u8def (2 m)"),
        ("도로", r"\ub3c4\ub85c"),
    ],
)
def test_names_are_romanised(name, expected):
    assert text.romanised(name) == expected


@pytest.mark.parametrize(
    "draw",
    [
        lambda name: sheets.legend([name], [(9, 9, 9)]),
        lambda name: sheets.contact_sheet(
            [[np.zeros((9, 9, 3), np.uint8)]], [name], names=[name], colours=[(9, 9, 9)],
            row_titles=[name],
        ),
        lambda name: confusion_matrix.draw(np.eye(2), [name, "a"]),
    ],
    ids=("legend", "contact sheet", "confusion matrix"),
)  # fmt: skip
def test_all_pictures_draw_names_alike(draw, no_fonts):
    np.testing.assert_array_equal(np.asarray(draw("Bäume")), np.asarray(draw("Baume")))


def test_a_shortened_text_fits_and_keeps_its_start_and_end():
    line = "voc_animals_mobilenet_v2_ksac_seed_1"
    short = text.shortened(line, SIZE, 150)
    assert text.width(short, SIZE) <= 150 < text.width(line, SIZE)
    start, end = short.split("..")
    assert line.startswith(start) and line.endswith(end) and len(start) - len(end) in (0, 1)
    assert text.shortened(line, SIZE, 1000) == line
