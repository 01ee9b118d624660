"""Conversion, prediction and the signature for encoded images follow the same rules for images."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageCms, ImageOps

from kseg.data.checked_images import BadInput, ImageRules
from kseg.data.images import read_image
from kseg.data.records import decode_image
from kseg.errors import UserError
from kseg.formats.image_headers import checked_header
from kseg.formats.requests import decode_batch
from tests.tfrecords_tools import folders
from tfrecords_tools import inputs

SIZE = (12, 9)


def scene(seed=0):
    """Smooth colours, since noise differs more after a JPEG."""
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(noise).resize(SIZE, Image.Resampling.BILINEAR)


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def with_alpha(mode="RGBA", alpha=255):
    picture = scene().convert(mode)
    picture.putalpha(alpha)
    return picture


def oriented(kind, orientation, seed=0, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(scene(seed), kind, exif=exif, **options)


def big_endian_exif(orientation):
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return (
        b"MM\0*"
        + struct.pack(">IH", 8, 2)
        + struct.pack(">HHII", 0x010F, 2, 1, 0)
        + entry
        + bytes(4)
    )


def late_exif():
    """A PNG whose EXIF block follows its pixels, as some editors write it."""
    contents = saved(scene(), "PNG")
    chunk = b"eXIf" + big_endian_exif(8)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return contents[:-12] + chunk + contents[-12:]


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() * 40


# What all three accept, and whether the signature takes the format.
ACCEPTED = {
    "jpeg": (saved(scene(), "JPEG"), True),
    "grey jpeg": (saved(scene().convert("L"), "JPEG"), True),
    "cmyk": (saved(scene().convert("CMYK"), "JPEG", quality=95), True),
    "progressive": (saved(scene(), "JPEG", progressive=True), True),
    "previews": (saved(scene(), "MPO", save_all=True, append_images=[scene(1)]), True),
    "profile": (saved(scene(), "JPEG", icc_profile=profile(), comment=b"Exif\0\0"), True),
    "upright": (oriented("JPEG", 1), True),
    "unknown orientation": (oriented("JPEG", 0), True),
    "upright png": (oriented("PNG", 1), True),
    "png": (saved(scene(), "PNG"), True),
    "palette": (saved(scene().quantize(7), "PNG"), True),
    "1 bit": (saved(scene().convert("1"), "PNG"), True),
    "2 bits": (folders.png(4, 1, 2, 0, b"\0\x1b"), True),
    "opaque": (saved(with_alpha(), "PNG"), True),
    "opaque grey": (saved(with_alpha("LA"), "PNG"), True),
    "name of a chunk": (saved(scene(), "PNG") + b"eXIf acTL", True),
    "bmp": (saved(scene(), "BMP"), False),
    "webp": (saved(scene(), "WEBP", lossless=True), False),
    "tiff": (saved(scene(), "TIFF"), False),
    "still gif": (saved(scene().quantize(7), "GIF"), False),
}
# What all three refuse, with a word of the reason.
REFUSED = {
    "16 bits": (folders.png(2, 1, 16, 2, bytes(13)), "8 bits"),
    "16 bits grey": (saved(Image.new("I;16", SIZE, 4000), "PNG"), "8 bits"),
    "one pixel": (saved(with_alpha(alpha=Image.new("L", SIZE, 254)), "PNG"), "transparent"),
    "palette entry": (saved(scene().quantize(7), "PNG", transparency=2), "transparent"),
    "colour key": (saved(Image.new("RGB", SIZE), "PNG", transparency=(0, 0, 0)), "transparent"),
    "animation": (saved(scene(), "PNG", save_all=True, append_images=[scene(1)]), "anim|2 images"),
    "animated webp": (saved(scene(), "WEBP", save_all=True, append_images=[scene(1)]), "2 images"),
    "pages": (saved(scene(), "TIFF", save_all=True, append_images=[scene(1)]), "2 images"),
    "gif": (saved(scene(), "GIF", save_all=True, append_images=[scene(1)]), "2 images"),
    "transparent webp": (saved(with_alpha(alpha=9), "WEBP"), "transparent"),
    "grey tiff": (saved(Image.new("I;16", SIZE, 4000), "TIFF"), "8 bits"),
    "lab tiff": (saved(Image.new("LAB", SIZE), "TIFF"), "RGB"),
    "tiff of another form": (
        saved(scene(), "TIFF").replace(b"\x08\0" * 3, b"\x0c\0" * 3),
        "8 bits",
    ),
}
# What the signature refuses, conversion asks about and prediction turns.
TURNED = {
    "jpeg": oriented("JPEG", 6),
    "upside down": oriented("JPEG", 3),
    "mirrored png": oriented("PNG", 2),
    "big endian": saved(scene(), "JPEG", exif=b"Exif\0\0" + big_endian_exif(8)),
    "after other segments": oriented("JPEG", 5, icc_profile=profile()),
    "after the pixels": late_exif(),
    "webp": oriented("WEBP", 7, lossless=True),
    "compressed tiff": oriented("TIFF", 6, compression="tiff_lzw"),
    **{f"tiff {orientation}": oriented("TIFF", orientation) for orientation in range(2, 9)},
}


def expected(contents, *, turned=False):
    picture = Image.open(io.BytesIO(contents))
    if picture.format == "TIFF" and not turned:
        return np.asarray(scene())  # Pillow turns a TIFF itself.
    picture = ImageOps.exif_transpose(picture) if turned else picture
    return np.asarray(picture.convert("RGB"))


def served(contents):
    return decode_batch(tf.constant([contents]), 10_000)[0].numpy()


@pytest.fixture
def file(tmp_path):
    """Writes contents into a file whose ending says nothing."""

    def write(contents):
        path = tmp_path / "a.png"
        path.write_bytes(contents)
        return path

    return write


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_image_has_the_same_pixels_everywhere(file, name):
    contents, is_served = ACCEPTED[name]
    path, pixels = file(contents), expected(contents)
    record, _, height, width = inputs.read_image(path)
    np.testing.assert_array_equal(decode_image(record), pixels)
    assert (height, width) == pixels.shape[:2]
    np.testing.assert_array_equal(read_image(path), pixels)
    if is_served:
        np.testing.assert_array_equal(served(contents), pixels)
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be JPEG or PNG"):
            served(contents)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_image_is_refused_everywhere(file, name):
    contents, reason = REFUSED[name]
    path = file(contents)
    with pytest.raises(BadInput, match=rf"a\.png: .*({reason})"):
        inputs.read_image(path)
    with pytest.raises(UserError, match=reason) as caught:
        read_image(path)
    assert "a.png" not in str(caught.value)
    is_png = contents.startswith(b"\x89PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason if is_png else "JPEG or PNG"):
        served(contents)


@pytest.mark.parametrize("name", TURNED)
def test_orientation_is_asked_about_applied_or_ignored(file, name):
    contents = TURNED[name]
    path = file(contents)
    with pytest.raises(BadInput, match=r"a\.png: .*--exif=apply.*--exif=ignore"):
        inputs.read_image(path)
    turned = expected(contents, turned=True)
    assert turned.shape != expected(contents).shape or (turned != expected(contents)).any()
    record, image_format, *size = inputs.read_image(path, ImageRules(exif="apply"))
    assert image_format == "png"
    np.testing.assert_array_equal(decode_image(record), turned)
    assert tuple(size) == turned.shape[:2]
    np.testing.assert_array_equal(read_image(path), turned)
    record, *_ = inputs.read_image(path, ImageRules(exif="ignore"))
    np.testing.assert_array_equal(decode_image(record), expected(contents))
    if name != "webp" and "tiff" not in name:
        assert record == contents
        with pytest.raises(tf.errors.InvalidArgumentError, match="EXIF orientation"):
            served(contents)


@pytest.mark.parametrize("name", ["one pixel", "palette entry", "colour key", "transparent webp"])
def test_transparent_pixels_are_composited_on_a_given_colour(file, name):
    contents, _ = REFUSED[name]
    path, matte = file(contents), (10, 20, 30)
    picture = np.asarray(Image.open(io.BytesIO(contents)).convert("RGBA"), np.float64)
    alpha = picture[..., 3:] / 255
    blended = picture[..., :3] * alpha + np.array(matte) * (1 - alpha)
    record, *_ = inputs.read_image(path, ImageRules(matte=matte))
    assert abs(decode_image(record).numpy() - blended).max() <= 1
    np.testing.assert_array_equal(read_image(path, matte=matte), decode_image(record))


@pytest.mark.parametrize("contents", [TURNED["jpeg"], TURNED["mirrored png"]])
def test_damaged_exif_block_never_breaks_the_check_of_a_header(contents):
    """Whatever the bytes are, the graph answers, or refuses the image with its own message."""
    start = max(contents.find(b"II*\0"), contents.find(b"MM\0*"))
    check = tf.function(checked_header, input_signature=[tf.TensorSpec((), tf.string)])
    for position in range(start, start + 24):
        for value in (0, 255):
            damaged = bytearray(contents)
            damaged[position] = value
            try:
                check(bytes(damaged))
            except tf.errors.InvalidArgumentError as error:
                assert "EXIF orientation" in error.message
    for length in range(2, start + 24):
        try:
            check(contents[:length])
        except tf.errors.InvalidArgumentError as error:
            assert "EXIF orientation" in error.message


def test_unknown_treatment_of_the_orientation_is_rejected():
    with pytest.raises(ValueError, match="`exif`.*'turn'"):
        ImageRules(exif="turn")
