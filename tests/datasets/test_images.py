"""Any kind of image file becomes the bytes that an eye would expect."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kshot.datasets.images import ImageFormat, is_image
from kshot.datasets.raw import UnreadableError
from kshot.errors import ConfigError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def two_halves(left, right, mode="RGB", side=8):
    """An image with a left and a right half, each of one colour."""
    image = Image.new(mode, (side, side), left)
    image.paste(right, (side // 2, 0, side, side))
    return image


def test_colour_and_grey():
    data = encoded(two_halves((255, 0, 0), (0, 0, 255)))
    colour = ImageFormat(8).decode(data)
    assert colour.shape == (3, 8, 8)
    assert colour.dtype == np.uint8
    assert colour.flags.c_contiguous
    assert colour[:, 0, 0].tolist() == [255, 0, 0]
    assert colour[:, 0, 7].tolist() == [0, 0, 255]
    grey = ImageFormat(8, channels=1).decode(data)
    assert grey.shape == (1, 8, 8)
    assert grey[0, 0, 0] == 76  # 0.299 of red
    assert ImageFormat(8).decode(encoded(Image.new("L", (8, 8), 9))).tolist() == [[[9] * 8] * 8] * 3


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF", "JPEG"])
def test_all_kinds_of_files(kind):
    pixels = ImageFormat(8).decode(encoded(Image.new("RGB", (8, 8), (200, 100, 0)), kind))
    assert np.abs(pixels[:, 4, 4].astype(int) - [200, 100, 0]).max() <= 4


@pytest.mark.parametrize(("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bits_are_scaled_and_not_cut_off(kind, dtype):
    ramp = np.linspace(0, 65535, 64).astype(dtype).reshape(8, 8)
    pixels = ImageFormat(8, channels=1).decode(encoded(Image.fromarray(ramp), kind))
    assert np.abs(pixels[0].astype(float) - ramp / 257).max() <= 1
    assert pixels.max() == 255
    assert len(np.unique(pixels)) == 64


def test_palettes():
    image = two_halves((250, 10, 10), (10, 10, 250)).convert("P")
    assert image.mode == "P"
    pixels = ImageFormat(8).decode(encoded(image))
    assert pixels[0, 0, 0] > 200 > 50 > pixels[0, 0, 7]


def test_a_transparent_colour_of_a_palette_is_white():
    image = two_halves(1, 0, "P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    pixels = ImageFormat(8).decode(encoded(image, transparency=0))
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert pixels[:, 0, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "clear", "half"), [("RGBA", (0, 0, 0, 0), (0, 0, 0, 128)), ("LA", (0, 0), (0, 128))]
)
def test_transparency_becomes_white(mode, clear, half):
    pixels = ImageFormat(8).decode(encoded(two_halves(clear, half, mode)))
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 0, 7].tolist() == [127, 127, 127]


def test_printers_colours():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    red, green, blue = ImageFormat(8).decode(data)[:, 4, 4].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


def test_the_cameras_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    data = encoded(two_halves(0, 255, "L"), "JPEG", exif=exif, quality=95)
    pixels = ImageFormat(8, channels=1).decode(data)
    assert pixels[0, 0].max() < 30  # left came to the top
    assert pixels[0, 7].min() > 225


def test_one_bit_stays_one_bit_only_with_nearest():
    image = Image.fromarray(np.random.default_rng(0).random((105, 105)) < 0.5)
    assert image.mode == "1"
    data = encoded(image)
    assert set(np.unique(ImageFormat(28, 1, "nearest").decode(data))) == {0, 255}
    for smooth in ("bilinear", "lanczos"):
        assert len(np.unique(ImageFormat(28, 1, smooth).decode(data))) > 50


def test_turning_and_nearest_neighbours_can_be_swapped():
    bits = np.random.default_rng(0).random((105, 105)) < 0.5
    form = ImageFormat(28, 1, "nearest")
    straight = form.decode(encoded(Image.fromarray(bits)))
    for k in range(4):
        turned = form.decode(encoded(Image.fromarray(np.rot90(bits, k).copy())))
        assert np.array_equal(turned[0], np.rot90(straight[0], k))


def test_the_centre_is_cut_out_of_what_is_not_square():
    wide = Image.new("L", (24, 8), 0)
    wide.paste(255, (8, 0, 16, 8))
    for image in (wide, wide.transpose(Image.Transpose.ROTATE_90)):
        assert ImageFormat(8, 1).decode(encoded(image)).min() == 255


def test_resizing_keeps_the_mean():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    for resize in ("bilinear", "lanczos"):
        pixels = ImageFormat(16, 1, resize).decode(encoded(image))
        assert pixels.shape == (1, 16, 16)
        assert pixels.mean() == pytest.approx(np.asarray(image).mean(), abs=2)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for keep in (5, 30, len(data) // 2):
        with pytest.raises(UnreadableError):
            ImageFormat(8).decode(data[:keep])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "zero bytes"),
        (b"hello", "none of PNG, JPEG, .*or cut short"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n", "none of PNG, JPEG"),
        (encoded(Image.new("F", (8, 8)), "TIFF"), "pixels of 32 bits"),
        (encoded(Image.new("I", (8, 8), 70_000), "TIFF"), "pixels of 32 bits"),
    ],
)
def test_files_that_are_no_usable_image(data, says):
    with pytest.raises(UnreadableError, match=says):
        ImageFormat(8).decode(data)


def test_a_decompression_bomb_is_not_unpacked():
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    with pytest.raises(UnreadableError, match="decompression bomb"):
        ImageFormat(8).decode(data)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 5000},
        {"size": "84"},
        {"size": True},
        {"channels": 4},
        {"resize": "cubic"},
    ],
)
def test_impossible_formats(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ImageFormat(**{"size": 84, **options})


def test_images_are_known_by_their_endings():
    assert is_image("a/b.PNG")
    assert is_image("b.jpeg")
    assert not is_image("b.txt")
    assert not is_image("png")
