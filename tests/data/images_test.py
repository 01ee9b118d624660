"""What `--images` takes, the names of the outputs, and reading the images."""

import numpy as np
import pytest
from PIL import Image

from kseg.data.images import find_images, read_image
from kseg.errors import UserError


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 5)).save(path)
    return path


def test_names_of_outputs_keep_the_folders_under_the_wildcard(tmp_path):
    write_image(tmp_path / "in" / "x" / "a.png")
    write_image(tmp_path / "in" / "y" / "a.png")
    images = find_images(str(tmp_path / "in" / "*" / "a.png"), tmp_path / "out")
    assert list(images) == ["x/a", "y/a"]
    assert list(find_images(str(tmp_path / "in" / "x" / "a.png"), tmp_path)) == ["a"]


def test_outputs_of_an_earlier_run_are_no_input(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "out" / "labels" / "a.png")
    images = find_images(str(tmp_path / "**" / "*.png"), tmp_path / "out")
    assert list(images) == ["a"]


def test_two_images_that_would_write_one_file_are_refused(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"same outputs \(a\.png\): .*a\.jpg and .*a\.png"):
        find_images(str(tmp_path / "a.*"), tmp_path / "out")


def test_a_glob_without_match_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`--images` must match .*nothing\*"):
        find_images(str(tmp_path / "nothing*"), tmp_path)


def test_images_are_decoded_from_jpeg_as_pillow_does(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (33, 47, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=70)
    with Image.open(tmp_path / "a.jpg") as picture:
        expected = np.asarray(picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


def test_a_folder_stands_for_the_images_below_it(tmp_path):
    for name in ("b.PNG", "a.jpeg", "x/a.tif", "x/y/a.Jpg", "out/legend.png", "out/overlays/a.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "z.png").mkdir()
    images = find_images(str(tmp_path), tmp_path / "out")
    assert images == {
        "a": tmp_path / "a.jpeg",
        "b": tmp_path / "b.PNG",
        "x/a": tmp_path / "x/a.tif",
        "x/y/a": tmp_path / "x/y/a.Jpg",
    }
    (tmp_path / "z.png" / "notes.txt").touch()
    with pytest.raises(UserError, match="one file with the name of a JPEG, PNG or TIFF. No match"):
        find_images(str(tmp_path / "z.png"), None)


def test_a_list_gives_paths_relative_to_itself_in_its_own_order(tmp_path, monkeypatch):
    outside = write_image(tmp_path / "other" / "a.png")
    listed = tmp_path / "lists" / "val.txt"
    listed.parent.mkdir()
    listed.write_text(f"../in/b.png\n\n  ../in/missing.jpg \n{outside}\n../in/b.png\n")
    monkeypatch.chdir(tmp_path)
    for where in (str(listed), "lists/val.txt"):
        assert list(find_images(where, None).items()) == [
            ("in/b", tmp_path / "in" / "b.png"),  # Missing ones show when they are read.
            ("in/missing", tmp_path / "in" / "missing.jpg"),
            ("other/a", outside),
        ]
    listed.write_text("../in/b.png\n../in/c.png")
    assert list(find_images(str(listed), None)) == ["b", "c"], "below the deepest common folder"


def test_a_list_that_is_empty_missing_or_no_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xd8\xff")
    for name, message in (
        ("empty.txt", "must hold at least one path"),
        ("bytes.txt", "cannot be read as text"),
        ("none.txt", "must match at least one file"),
    ):
        with pytest.raises(UserError, match=f"`--images` .*{message}"):
            find_images(str(tmp_path / name), None)


def test_a_name_with_brackets_is_a_name(tmp_path):
    path = write_image(tmp_path / "a[1]" / "b[2].png")
    assert find_images(str(path), None) == {"b[2]": path}
    assert find_images(str(path.parent), None) == {"b[2]": path}


def test_a_missing_file_is_refused_by_what_is_wrong_with_it(tmp_path):
    with pytest.raises(UserError, match="^cannot be read: No such file"):
        read_image(tmp_path / "none.png")
