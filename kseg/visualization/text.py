"""Text in pictures, drawn in a font that has its letters, or else romanised.

Pillow's built-in font has little more than ASCII. For other text the fonts of matplotlib and of the
system are searched. If none of them has all letters of a text, it is written in ASCII, and a note
is printed once.
"""

import bisect
import functools
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

# Pillow finds these names in the font folders of Linux, macOS and Windows.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
    "malgun.ttf",
)
_NO_CHARACTER = "\uffff"  # Fonts draw it as the glyph that stands for missing characters.
_note_printed = False

_CYRILLIC = dict(
    zip(
        "абвгдежзийклмнопрстуфхцчшщыэюяєіґ",
        "a b v g d e zh z i y k l m n o p r s t u f kh ts ch sh shch y e yu ya ye i g".split(),
        strict=True,
    )
)
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρσςτυφχψω",
        "a v g d e z i th i k l m n x o p r s s t y f ch ps o".split(),
        strict=True,
    )
)
_LATIN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "ı": "i", "þ": "th"}
_ROMAN = _CYRILLIC | _GREEK | _LATIN | {"ъ": "", "ь": "", "–": "-", "—": "-"}


def draw(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    *,
    fill: str = "black",
    anchor: str = "la",
) -> None:
    """Draws one line of text.

    Args:
        pen: Pillow's drawing context of the picture.
        place: Left and top in pixels, unless `anchor` says otherwise.
        text: The text, in any script.
        size: Font size in pixels.
        fill: Colour name. Defaults to black.
        anchor: Which point of the text lies at `place`, as in Pillow. Defaults to "la", left and
            top.
    """
    shown, font = _legible(text, size)
    pen.text(place, shown, fill=fill, font=font, anchor=anchor)


def width(text: str, size: int) -> int:
    """Returns the number of pixels that `draw` needs from left to right."""
    shown, font = _legible(text, size)
    return int(font.getlength(shown)) + 1


def shortened(text: str, size: int, max_width: int) -> str:
    """Replaces the middle of a text by two dots where it is wider than `max_width` pixels."""
    if len(text) < 2 or width(text, size) <= max_width:
        return text

    def with_letters(kept: int) -> str:
        return f"{text[: kept - kept // 2]}..{text[len(text) - kept // 2 :]}"

    # The greatest number of letters that fits, found by bisection; at least one.
    kept = bisect.bisect_right(
        range(2, len(text)), max_width, key=lambda kept: width(with_letters(kept), size)
    )
    return with_letters(kept + 1)


def romanised(text: str) -> str:
    r"""Writes a text in ASCII.

    Accents are dropped, and Cyrillic, Greek and special Latin letters are replaced by Latin ones.
    Characters of other scripts become their code points, such as \u9053, so that names that differ
    stay different.

    Args:
        text: The text, in any script.

    Returns:
        Text of ASCII characters.
    """
    parts = []
    for character in unicodedata.normalize("NFC", text):
        letters = unicodedata.normalize("NFKD", character.lower())
        plain = "".join(
            _ROMAN.get(letter, letter) for letter in letters if not unicodedata.combining(letter)
        )
        if not plain.isascii():
            plain = character.encode("ascii", "backslashreplace").decode()
        elif character != character.lower():
            plain = plain.capitalize()
        parts.append(plain)
    return "".join(parts)


@functools.cache
def _legible(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Returns the text as it can be drawn, and the first font that has its characters."""
    text = unicodedata.normalize("NFC", text)
    if not text.isascii():
        for font in _fonts(text, size):
            if _has_characters(font, text):
                return text, font
        _print_note(text)
        text = romanised(text)
    return text, ImageFont.load_default(size)


def _fonts(text: str, size: int) -> Iterator[ImageFont.FreeTypeFont]:
    for file in _font_files(text):
        try:
            yield ImageFont.truetype(file, size)
        except OSError:  # Not installed, or not a font that FreeType can scale.
            continue


def _font_files(text: str) -> Iterator[str]:
    """Yields fonts to try: that of matplotlib, fontconfig's choice, then well-known names."""
    if matplotlib := find_spec("matplotlib"):
        yield str(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")
    charset = " ".join(sorted({f"{ord(character):x}" for character in text}))
    try:
        match = subprocess.run(
            ["fc-match", "--format=%{file}", f"sans:charset={charset}"],
            capture_output=True,
            encoding="utf-8",
            timeout=10,
        )
        yield match.stdout
    except (OSError, subprocess.SubprocessError):  # fontconfig is not installed, or hangs.
        pass
    yield from _SYSTEM_FONTS


def _has_characters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = bytes(font.getmask(_NO_CHARACTER))
    return all(
        character.isspace() or bytes(font.getmask(character)) != missing for character in set(text)
    )


def _print_note(text: str) -> None:
    """Prints a note for the first text of the process that no font has."""
    global _note_printed
    if not _note_printed:
        print(
            f'note: no installed font has all letters of "{text}". Pictures show such text in '
            f'ASCII, here as "{romanised(text)}". The extra "figures" brings a font with Latin, '
            "Greek and Cyrillic letters; other scripts need a font of the system, such as Noto "
            "Sans CJK.",
            file=sys.stderr,
        )
        _note_printed = True
