"""Finds the images that an instances JSON names: in one folder, by the names that tools write.

Tools write the name of a file with or without its folders, as an absolute path, as the path of a
URL, and with the separators of the system they run on.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

from kseg.data import names
from kseg.data.checked_images import SUFFIXES


class ImageFolder:
    """The folder of the images of a split.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._absolute = Path(os.path.abspath(path))
        self._real = Path(os.path.realpath(path))
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> Path | None:
        """Finds an image.

        Args:
            name: The name in the JSON. What it may be, in this order: a path in the folder; one
                that begins with the last folders of the path of the folder, as in `train/a.jpg`
                for `coco/train`; an absolute path of a file in the folder; any of these as in a
                URL, with `%20` for a space. Otherwise it is matched as in `names.find`.

        Returns:
            The file, or where it would be, as a path that begins with that of the folder. None if
            the name leads out of the folder or cannot be the name of a file.
        """
        if not names.is_text(name) or any(character in name for character in "\0\n"):
            return None
        missing = None
        for candidate in self._candidates(name):
            file = names.find(self._absolute, candidate, self._listings)
            if file == self._absolute or not file.is_relative_to(self._absolute):
                continue
            found = self.path / file.relative_to(self._absolute)
            if os.path.lexists(found):
                return found
            missing = missing or found
        return missing

    def problem_of(self, file: Path) -> str:
        """Returns why a file that `find` returned cannot be read, or an empty text.

        A missing file of a plain name has no problem here: its reader says so.
        """
        if file.suffix.lower() not in SUFFIXES:
            return f"{file.name} must end in {' or '.join(SUFFIXES)}"
        is_plain = file.parent == self.path
        if is_plain or os.path.lexists(file):
            return ""
        return not_in_folder(file.relative_to(self.path).as_posix(), self.path)

    def sample_name(self, file: Path) -> str:
        """Returns the name of the record of a file in the folder: one for all of its spellings."""
        relative = file.relative_to(self.path).as_posix()
        return names.canonical(relative.removesuffix(file.suffix))

    def _candidates(self, name: str) -> Iterator[str]:
        for text in dict.fromkeys((name, unquote(name))):
            yield text
            path = Path(text.replace("\\", "/"))
            if path.is_absolute() and path.is_relative_to(self._real):
                yield str(path.relative_to(self._real))
            for count in range(1, len(path.parts)):
                if path.parts[:count] == self._absolute.parts[-count:]:
                    yield str(Path(*path.parts[count:]))


def not_in_folder(name: object, folder: Path) -> str:
    """Returns the message that a name is not that of a file in the folder, and what to do."""
    return (
        f"{name!r} is not the name of a file in the folder of images, {folder}. Put the file "
        "there, or strip what stands before the path in this folder from the names in the JSON"
    )


def size_in_file(file: Path) -> tuple[int, int]:
    """Returns the height and width in the header of an image file, or zeros if there are none."""
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except Exception:  # Pillow raises errors of many kinds for damaged files.
        return 0, 0
