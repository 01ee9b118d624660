"""What becomes a record, and what is refused by name and reason."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import VOC, LabelSet
from kseg.data.records import decode_image
from kseg.errors import UserError
from tests.tfrecords_tools import folders
from tfrecords_tools import decode, inputs
from tfrecords_tools.inputs import BadInput, Sample
from tfrecords_tools.remap import Remap, read_remapped_mask

ROADS = LabelSet(("ground", "road"), ((0, 0, 0), (255, 255, 255)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def _png(width: int, height: int, depth: int = 8, colour_type: int = 0, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IEND", b"")


def _tiff(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """Grey, black is 0."""
    values = [width, height, depth, 1, 1, 122, 1, height, len(rows)]
    tags = (256, 257, 258, 259, 262, 273, 277, 278, 279)
    entries = [
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in zip(tags, values, strict=True)
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + rows


@pytest.mark.parametrize(
    ("name", "mode", "form"),
    [("a.jpg", "RGB", "jpeg"), ("a.jpg", "L", "jpeg"), ("a.png", "L", "png")],
)
def test_common_images_keep_their_bytes(tmp_path, name, mode, form):
    path = folders.image(tmp_path / name, mode=mode)
    assert inputs.read_image(path) == (path.read_bytes(), form, 9, 12)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "CMYK"), ("a.png", "P"), ("a.png", "1"), ("a.png", "RGBA"), ("a.bmp", "RGB")]
    + [("a.tif", "RGB"), ("a.webp", "RGB")],
)
def test_other_images_become_rgb_pngs_of_the_same_pixels(tmp_path, name, mode):
    path = folders.image(tmp_path / name, mode=mode)
    contents, form, height, width = inputs.read_image(path)
    assert (form, height, width) == ("png", 9, 12)
    assert Image.open(io.BytesIO(contents)).mode == "RGB"
    np.testing.assert_array_equal(decode_image(contents), Image.open(path).convert("RGB"))


def test_an_image_turned_by_exif_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folders.image(tmp_path / "a.jpg")).save(tmp_path / "b.jpg", exif=exif)
    with pytest.raises(BadInput, match=r"b\.jpg: EXIF orientation 6"):
        inputs.read_image(tmp_path / "b.jpg")
    exif[0x0112] = 1
    Image.open(tmp_path / "a.jpg").save(tmp_path / "c.jpg", exif=exif)
    assert inputs.read_image(tmp_path / "c.jpg")[1] == "jpeg"


def test_an_undefined_exif_orientation_is_no_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 0
    Image.open(folders.image(tmp_path / "a.jpg")).save(tmp_path / "b.jpg", exif=exif)
    assert Image.open(tmp_path / "b.jpg").getexif()[0x0112] == 0
    assert inputs.read_image(tmp_path / "b.jpg")[1] == "jpeg"
    Image.open(folders.mask(tmp_path / "a.png", 3)).save(tmp_path / "b.png", exif=exif)
    assert (inputs.read_index_mask(tmp_path / "b.png", VOC) == 3).all()


def test_transparent_pixels_are_refused(tmp_path):
    picture = Image.open(folders.image(tmp_path / "a.png", mode="RGBA"))
    picture.putpixel((3, 4), (1, 2, 3, 254))
    picture.save(tmp_path / "a.png")
    with pytest.raises(BadInput, match="transparent"):
        inputs.read_image(tmp_path / "a.png")


@pytest.mark.parametrize("colour_type", [0, 2])
def test_sixteen_bits_a_channel_are_refused(tmp_path, colour_type):
    row = b"\0" + bytes(2 * 2 * (3 if colour_type == 2 else 1))
    (tmp_path / "a.png").write_bytes(_png(2, 1, 16, colour_type, row))
    with pytest.raises(BadInput, match="more than 8 bits"):
        inputs.read_image(tmp_path / "a.png")


def test_sixteen_bits_a_channel_of_a_tiff_are_refused(tmp_path):
    """Pillow reads such a file as 8 bits without a word."""
    strip = bytes(6)
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, len(strip))]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    contents = header + struct.pack("<3H", 16, 16, 16) + strip
    (tmp_path / "a.tif").write_bytes(contents)
    assert (len(header), Image.open(tmp_path / "a.tif").mode) == (122, "RGB")
    for read in (inputs.read_image, lambda path: inputs.read_index_or_colour_mask(path, VOC)):
        with pytest.raises(BadInput, match="more than 8 bits"):
            read(tmp_path / "a.tif")


def test_a_mask_turned_by_exif_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(folders.mask(tmp_path / "a.png")).save(tmp_path / "b.png", exif=exif)
    with pytest.raises(BadInput, match=r"b\.png: EXIF orientation 3"):
        inputs.read_index_mask(tmp_path / "b.png", VOC)


def test_several_pictures_in_a_file_are_refused(tmp_path):
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(BadInput, match="holds 2 pictures"):
        inputs.read_image(tmp_path / "a.tif")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "a.png").write_bytes(_png(12000, 12000))
    (tmp_path / "b.png").write_bytes(_png(60000, 60000))
    for name in ("a.png", "b.png"):
        with pytest.raises(BadInput, match="decompression bomb"):
            inputs.read_image(tmp_path / name)
        with pytest.raises(BadInput, match="decompression bomb"):
            inputs.read_index_mask(tmp_path / name, VOC)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("lost", [1, 3, 12, 13, 200])
def test_a_truncated_image_is_refused(tmp_path, name, lost):
    path = folders.image(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(BadInput, match=f"{name}: is (truncated or damaged|not an image)"):
        inputs.read_image(path)


def test_a_flipped_bit_in_a_png_is_refused(tmp_path):
    path = folders.image(tmp_path / "a.png")
    whole = path.read_bytes()
    for position in range(8, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(BadInput):
            inputs.read_image(path)


def test_files_that_are_no_images_are_refused_with_a_reason_that_never_changes(tmp_path):
    (tmp_path / "a.jpg").write_text("not found")
    (tmp_path / "b.jpg").write_bytes(b"")
    reasons = set()
    for _ in range(2):
        with pytest.raises(BadInput, match=r"a\.jpg: is not an image") as caught:
            inputs.read_image(tmp_path / "a.jpg")
        reasons.add(str(caught.value))
    assert len(reasons) == 1
    with pytest.raises(BadInput, match="empty file"):
        inputs.read_image(tmp_path / "b.jpg")
    with pytest.raises(BadInput, match="image not found"):
        inputs.read_image(tmp_path / "c.jpg")


def test_a_palette_mask_gives_its_indices_and_not_its_luminance(tmp_path):
    ids = np.random.default_rng(0).choice(np.uint8([*range(21), 255]), (9, 12))
    read = inputs.read_index_mask(folders.mask(tmp_path / "a.png", ids), VOC)
    np.testing.assert_array_equal(read, ids)


def test_a_grey_mask_gives_its_values(tmp_path):
    ids = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(ids).save(tmp_path / "a.png")
    np.testing.assert_array_equal(inputs.read_index_mask(tmp_path / "a.png", VOC), ids)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_grey_mask_of_few_bits_gives_the_ids_as_stored(tmp_path, depth, suffix):
    """Pillow and TensorFlow stretch them: of 4 bits 1 becomes 17."""
    ids = np.random.default_rng(0).integers(0, min(2**depth, 21), (6, 7), np.uint8)
    bits = np.unpackbits(ids[..., np.newaxis], axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(6, -1), axis=1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        filtered = np.insert(rows, 0, 0, axis=1)
        path.write_bytes(_png(7, 6, depth, 0, filtered.tobytes()))
    else:
        path.write_bytes(_tiff(7, 6, depth, rows.tobytes()))
    np.testing.assert_array_equal(inputs.read_index_mask(path, VOC), ids)
    same = Remap({value: value for value in range(21)}, {})
    np.testing.assert_array_equal(read_remapped_mask(path, VOC, remap=same), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_mask_of_few_bits_gives_its_indices(tmp_path, bits):
    ids = np.random.default_rng(0).integers(0, 2**bits, (9, 12), np.uint8)
    path = folders.mask(tmp_path / "a.png", ids)
    Image.open(path).save(path, bits=bits)
    assert path.read_bytes()[24] == bits
    np.testing.assert_array_equal(inputs.read_index_mask(path, VOC), ids)


def test_a_palette_mask_saved_as_colours_is_refused_with_what_to_do(tmp_path):
    path = folders.mask(tmp_path / "a.png", 15)
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(
        BadInput, match="this one is RGB, a palette mask saved as colours"
    ) as caught:
        inputs.read_index_mask(path, VOC)
    assert "build_folder reads such masks by the colours in its classes file" in str(caught.value)
    assert "a --remap table" in str(caught.value)


def test_a_mask_with_a_renumbered_palette_is_refused(tmp_path):
    path = folders.mask(tmp_path / "a.png", 1)
    renumbered = Image.open(path)
    renumbered.putpalette([0, 0, 0, *VOC.colours[15]])
    renumbered.save(path)
    with pytest.raises(BadInput, match="index 1 is 'aeroplane' but has the colour of 'person'"):
        inputs.read_index_mask(path, VOC)


def test_a_lossy_mask_is_refused(tmp_path):
    Image.new("L", (8, 8), 1).save(tmp_path / "a.jpg")
    with pytest.raises(BadInput, match="without loss, as PNG; this is JPEG"):
        inputs.read_index_mask(tmp_path / "a.jpg", VOC)


def test_ids_outside_the_classes_are_named():
    ids = np.uint8([[0, 20, 255], [21, 128, 0]])
    with pytest.raises(BadInput, match="outside the classes: 21, 128; allowed are 0 to 20 and 255"):
        inputs.check_ids("m.png", ids, VOC)
    inputs.check_ids("m.png", ids[:1], VOC)


def test_an_rgb_mask_is_read_by_the_colours_of_the_classes(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1], pixels[1, 2] = 255, (9, 8, 7)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = inputs.read_index_or_colour_mask(tmp_path / "a.png", ROADS, ignore_colour=(9, 8, 7))
    np.testing.assert_array_equal(read, [[0, 1, 0], [0, 0, 255]])
    with pytest.raises(BadInput, match=r"holds 1 colours that no class has: \(9, 8, 7\)"):
        inputs.read_index_or_colour_mask(tmp_path / "a.png", ROADS)


def test_colours_are_read_in_bands_of_rows_and_counted_over_all_of_them(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).choice(np.uint8([0, 255]), (7, 3, 1)).repeat(3, axis=2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for band in (1, 6, 7, 100):
        monkeypatch.setattr(decode, "_BAND", band)
        read = inputs.read_index_or_colour_mask(tmp_path / "a.png", ROADS)
        np.testing.assert_array_equal(read, pixels[..., 0] // 255)
    pixels[:, 1] = np.arange(1, 8)[:, np.newaxis]
    pixels[6, 1] = 1
    Image.fromarray(pixels).save(tmp_path / "b.png")
    monkeypatch.setattr(decode, "_BAND", 6)
    with pytest.raises(BadInput, match=r"holds 6 colours .* \(5, 5, 5\) and 1 more"):
        inputs.read_index_or_colour_mask(tmp_path / "b.png", ROADS)
    Image.fromarray(np.dstack([pixels, np.uint8([[255] * 3] * 6 + [[255, 254, 255]])])).save(
        tmp_path / "c.png"
    )
    with pytest.raises(BadInput, match="transparent"):
        inputs.read_index_or_colour_mask(tmp_path / "c.png", ROADS)


def test_a_mask_of_ids_is_read_as_such_where_colours_are_allowed(tmp_path):
    path = folders.mask(tmp_path / "a.png", 15)
    assert (inputs.read_index_or_colour_mask(path, VOC) == 15).all()


def test_preparing_gives_the_label_as_one_channel_and_counts_it(tmp_path):
    ids = np.zeros((9, 12), np.uint8)
    ids[0], ids[1] = 20, 255
    sample = Sample("a", folders.image(tmp_path / "a.jpg"), folders.mask(tmp_path / "a.png", ids))
    prepared, problems = inputs.prepare(sample, VOC, inputs.read_index_mask)
    assert problems == []
    stored = Image.open(io.BytesIO(prepared.label))
    assert stored.mode == "L"
    np.testing.assert_array_equal(stored, ids)
    assert {i: int(n) for i, n in enumerate(prepared.pixels) if n} == {0: 84, 20: 12, 255: 12}


def test_preparing_tells_the_problems_of_image_and_mask_together(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    sample = Sample("a", tmp_path / "a.jpg", folders.mask(tmp_path / "a.png", 99))
    prepared, problems = inputs.prepare(sample, VOC, inputs.read_index_mask)
    assert prepared is None
    assert [str(problem).split(": ")[1][:12] for problem in problems] == [
        "is not an im",
        "ids outside ",
    ]


def test_a_list_gives_names_and_tells_lines_that_are_none(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\r\n\n  b-1.x \n../c\n/d\ne f\n..\ng\\h\nC:i\nj\0\n".encode())
    problems = []
    assert inputs.read_names(path, problems) == ["a", "b-1.x"]
    assert [one.split("line ")[1][:1] for one in problems] == ["4", "5", "6", "7", "8", "9", "1"]
    assert "not the id of an image: '../c'" in problems[0]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"list\.txt must be a text file, a name a line"):
        inputs.read_names(path, problems)


def test_the_module_needs_no_tensorflow():
    code = "import sys, tfrecords_tools.inputs; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
