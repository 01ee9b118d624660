"""Finding images with `--images`, the names of their outputs, and reading them."""

import numpy as np
import pytest
from PIL import Image

from kseg.data.images import find_images, is_tiff, read_image
from kseg.errors import UserError


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 5)).save(path)
    return path


def test_names_of_outputs_keep_the_folders_matched_by_a_wildcard(tmp_path):
    write_image(tmp_path / "in" / "x" / "a.png")
    write_image(tmp_path / "in" / "y" / "a.png")
    images = find_images(str(tmp_path / "in" / "*" / "a.png"), tmp_path / "out")
    assert list(images) == ["x/a", "y/a"]
    assert list(find_images(str(tmp_path / "in" / "x" / "a.png"), tmp_path)) == ["a"]


def test_outputs_of_an_earlier_run_are_not_found(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "out" / "labels" / "a.png")
    images = find_images(str(tmp_path / "**" / "*.png"), tmp_path / "out")
    assert list(images) == ["a"]


def test_two_images_that_would_write_the_same_outputs_keep_their_suffixes(tmp_path):
    for name in ("a.png", "a.jpg", "b.png", "x/a.bmp"):
        write_image(tmp_path / name)
    assert list(find_images(str(tmp_path), tmp_path / "out")) == ["a.jpg", "a.png", "b", "x/a"]


def test_no_image_takes_the_name_that_another_one_keeps(tmp_path):
    for name in ("a.png", "a.jpg", "a.png.png", "b.jpg.png"):
        write_image(tmp_path / name)
    assert list(find_images(str(tmp_path), tmp_path / "out")) == [
        "a.jpg", "a.png", "a.png.png", "b.jpg"
    ]  # fmt: skip


def test_a_glob_without_a_match_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"`--images`.*nothing\*"):
        find_images(str(tmp_path / "nothing*"), tmp_path)


def test_a_jpeg_has_the_same_pixels_as_in_pillow(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (33, 47, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=70)
    with Image.open(tmp_path / "a.jpg") as picture:
        expected = np.asarray(picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


def test_a_folder_stands_for_all_images_below_it(tmp_path):
    for name in (
        "b.PNG",
        "a.jpeg",
        "x/a.tif",
        "x/b.BMP",
        "x/c.webp",
        "x/y/a.Jpg",
        "out/legend.png",
        "out/overlays/a.png",
    ):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "z.png").mkdir()
    images = find_images(str(tmp_path), tmp_path / "out")
    assert images == {
        "a": tmp_path / "a.jpeg",
        "b": tmp_path / "b.PNG",
        "x/a": tmp_path / "x/a.tif",
        "x/b": tmp_path / "x/b.BMP",
        "x/c": tmp_path / "x/c.webp",
        "x/y/a": tmp_path / "x/y/a.Jpg",
    }
    (tmp_path / "z.png" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"`--images`.*z\.png"):
        find_images(str(tmp_path / "z.png"), None)


def test_hidden_files_of_a_folder_are_not_images(tmp_path):
    folder = tmp_path / ".cache" / "images"
    for name in ("a.png", "._a.png", ".thumbs/a.png", "b/c.png", "b/._c.png"):
        write_image(folder / name)
    found = find_images(str(folder), None)
    assert found == {"a": folder / "a.png", "b/c": folder / "b" / "c.png"}


def test_a_list_contains_paths_relative_to_its_folder_and_keeps_their_order(tmp_path, monkeypatch):
    outside = write_image(tmp_path / "other" / "a.png")
    listed = tmp_path / "lists" / "val.txt"
    listed.parent.mkdir()
    listed.write_text(f"../in/b.png\n\n  ../in/missing.jpg \n{outside}\n../in/b.png\n")
    monkeypatch.chdir(tmp_path)
    for pattern in (str(listed), "lists/val.txt"):
        assert list(find_images(pattern, None).items()) == [
            ("in/b", tmp_path / "in" / "b.png"),  # Missing files are reported by `read_image`.
            ("in/missing", tmp_path / "in" / "missing.jpg"),
            ("other/a", outside),
        ]
    listed.write_text("../in/b.png\n../in/c.png")
    # Names are relative to the deepest common folder.
    assert list(find_images(str(listed), None)) == ["b", "c"]


def test_a_list_that_is_empty_missing_or_not_text_is_rejected(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xd8\xff")
    for name in ("empty.txt", "bytes.txt", "none.txt"):
        with pytest.raises(UserError, match=f"`--images`.*{name}"):
            find_images(str(tmp_path / name), None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_another_system_names_the_same_files(tmp_path, encoding):
    path = write_image(tmp_path / "photos" / "caf\u00e9 1.PNG")
    lines = ["photos\\caf\u00e9 1.PNG", ".\\photos\\cafe\u0301 1.png"]
    for line in lines:
        (tmp_path / "list.txt").write_bytes(f"{line}\r\n".encode(encoding))
        assert list(find_images(str(tmp_path / "list.txt"), None).values()) == [path]


def test_a_link_to_a_file_that_does_not_exist_is_found_and_named_when_it_is_read(tmp_path):
    (tmp_path / "a.png").symlink_to("gone.png")
    for pattern in (tmp_path, tmp_path / "*.png"):
        assert find_images(str(pattern), None) == {"a": tmp_path / "a.png"}
    with pytest.raises(UserError, match="link"):
        read_image(tmp_path / "a.png")


def test_a_file_name_with_brackets_is_not_a_glob(tmp_path):
    path = write_image(tmp_path / "a[1]" / "b[2].png")
    assert find_images(str(path), None) == {"b[2]": path}
    assert find_images(str(path.parent), None) == {"b[2]": path}


def test_a_tiff_is_recognised_by_its_first_bytes(tmp_path):
    Image.new("RGB", (9, 5)).save(tmp_path / "a.png", "TIFF")
    write_image(tmp_path / "b.tif.png")
    assert is_tiff(tmp_path / "a.png")
    assert not is_tiff(tmp_path / "b.tif.png")
    assert not is_tiff(tmp_path / "none.tif")


def test_a_file_that_cannot_be_read_is_rejected(tmp_path):
    """The error has no path, because the programs print it after the path."""
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (9, 5)).save(tmp_path / "a.ico")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "damaged.jpg")
    contents = (tmp_path / "damaged.jpg").read_bytes()
    (tmp_path / "damaged.jpg").write_bytes(contents[:900])
    # Pillow makes up for a missing end.
    (tmp_path / "endless.jpg").write_bytes(contents[:-2] + bytes(50))
    for name, reason in (
        ("none.png", "not found"),
        ("text.png", "is not an image"),
        ("a.ico", "ICO"),
        ("endless.jpg", "damaged"),
        ("damaged.jpg", "damaged"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            read_image(tmp_path / name)
        assert name not in str(caught.value)


def test_an_image_with_too_many_pixels_is_rejected(tmp_path):
    path = write_image(tmp_path / "a.png")
    assert read_image(path, max_pixels=45).shape == (5, 9, 3)
    with pytest.raises(UserError, match="`--max_pixels`"):
        read_image(path, max_pixels=44)


def test_links_to_folders_are_followed(tmp_path):
    write_image(tmp_path / "elsewhere" / "b.png")
    write_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(find_images(str(tmp_path / "in"), tmp_path / "out")) == ["a", "linked/b"]
