"""Writes photos.safetensors: small image files of many kinds, and what Pillow decodes them to.

    python tests/golden/photos.py

Tensor `<name>` is the file, byte by byte; `<name>.rgb` (height, width, 3) the upright picture
over white.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

WIDTH, HEIGHT = 40, 24


def picture():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    rgb = np.stack([x / WIDTH, y / HEIGHT, 1 - x / WIDTH * y / HEIGHT], -1) * 255
    rgb[2:9, 3:12] = [230, 30, 20]
    return Image.fromarray(rgb.astype(np.uint8))


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def main():
    base = picture()
    alpha = base.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(base.size))
    deep = Image.fromarray((np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 68).astype(np.uint16))
    cmyk = encode(base.convert("CMYK"), "JPEG", quality=95)
    # Same file, its color transform declared as YCCK: other colors, decoded by the other path.
    adobe = cmyk.index(b"Adobe")
    ycck = cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12:]
    files = {
        "baseline.jpg": encode(base, "JPEG", quality=92, subsampling=0),
        "subsampled.jpg": encode(base, "JPEG", quality=92, subsampling=2),
        "progressive.jpg": encode(base, "JPEG", quality=92, progressive=True, subsampling=0),
        "gray.jpg": encode(base.convert("L"), "JPEG", quality=92),
        "cmyk.jpg": cmyk,
        "ycck.jpg": ycck,
        "plain.png": encode(base, "PNG"),
        "palette.png": encode(base.quantize(32), "PNG"),
        "bits.png": encode(base.convert("1"), "PNG"),
        "deep.png": encode(deep, "PNG"),
        "alpha.png": encode(alpha, "PNG"),
        "gray_alpha.png": encode(alpha.convert("LA"), "PNG"),
        "plain.bmp": encode(base, "BMP"),
        "plain.gif": encode(base, "GIF"),
        "frames.gif": encode(base, "GIF", save_all=True,
                             append_images=[ImageOps.invert(base)], duration=50),
        "plain.tiff": encode(base, "TIFF"),
        "cmyk.tiff": encode(base.convert("CMYK"), "TIFF"),
        "lzw.tiff": encode(base, "TIFF", compression="tiff_lzw"),
        "lossless.webp": encode(base, "WEBP", lossless=True),
        "alpha.webp": encode(alpha, "WEBP", lossless=True, exact=True),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"turned{orientation}.jpg"] = encode(base, "JPEG", quality=92, subsampling=0, exif=exif)
    tensors = {}
    for name, data in files.items():
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if name == "deep.png":
            gray = (np.array(image).astype(np.uint32) * 255 + 32895) >> 16
            image = Image.fromarray(gray.astype(np.uint8))
        if "A" in image.mode:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        tensors[name] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        tensors[name + ".rgb"] = torch.from_numpy(np.array(image.convert("RGB")))
    out = Path(__file__).with_suffix(".safetensors")
    save_file(tensors, out)
    print(out, out.stat().st_size)


if __name__ == "__main__":
    main()
