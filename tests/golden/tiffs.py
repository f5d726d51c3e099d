"""TIFFs of every kind that scanners, microscopes and cameras write, and what Pillow shows of them.

    python tests/golden/tiffs.py            (needs Pillow, numpy, tifffile, imagecodecs, safetensors)
"""
import io
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from safetensors.numpy import save_file

WIDTH, HEIGHT = 37, 29


def picture():
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    waves = [np.sin(x / 5 + 0.3) * np.cos(y / 7), np.sin(x / 11 - y / 6 + 1), np.cos((x + 2 * y) / 13)]
    return (127.5 + 120 * np.stack(waves, 2)).round().clip(0, 255).astype(np.uint8)


def by_pillow(image, **how):
    out = io.BytesIO()
    image.save(out, "TIFF", **how)
    return out.getvalue()


def by_tifffile(data, **how):
    out = io.BytesIO()
    tifffile.imwrite(out, data, metadata=None, **how)
    return out.getvalue()


def files():
    rgb = picture()
    gray = rgb[..., 1]
    image = Image.fromarray(rgb)
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"):
        yield f"rgb {compression}", by_pillow(image, compression=compression)
    yield "rgb webp", by_tifffile(rgb, photometric="rgb", compression="webp", compressionargs={"lossless": True})
    yield "rgb jpeg", by_pillow(image, compression="jpeg", quality=95)
    yield "gray jpeg", by_pillow(image.convert("L"), compression="jpeg", quality=95)
    yield "palette", by_pillow(image.quantize(50))
    yield "palette lzw", by_pillow(image.quantize(200), compression="tiff_lzw")
    yield "bilevel", by_pillow(image.convert("1"))
    yield "bilevel group4", by_pillow(image.convert("1"), compression="group4")
    yield "bilevel group3", by_pillow(image.convert("1"), compression="group3")
    yield "cmyk", by_pillow(image.convert("CMYK"))
    yield "rgba", by_pillow(Image.fromarray(np.dstack([rgb, 255 - gray])))
    yield "gray alpha", by_pillow(Image.fromarray(np.dstack([gray, 255 - gray]), "LA"))
    yield "turned", by_pillow(image, tiffinfo={274: 6})
    yield "ycbcr", by_pillow(image.convert("YCbCr"))
    yield "float", by_tifffile(gray.astype(np.float32))
    yield "double deflate", by_tifffile(gray.astype(np.float64), compression="zlib")
    yield "int16", by_tifffile(gray.astype(np.int16))
    yield "uint32", by_tifffile(gray.astype(np.uint32))
    yield "uint16 rgb", by_tifffile(rgb.astype(np.uint16) * 257, photometric="rgb")
    yield "big", by_tifffile(rgb, photometric="rgb", bigtiff=True)
    yield "big palette", by_tifffile(np.asarray(image.quantize(30)), photometric="palette", bigtiff=True,
                                     colormap=(np.arange(768).reshape(3, 256) * 85).astype(np.uint16))
    yield "big-endian", by_tifffile(rgb, photometric="rgb", byteorder=">")
    yield "tiled lzw", by_tifffile(rgb, photometric="rgb", tile=(16, 16), compression="lzw")
    yield "tiled lzw predictor", by_tifffile(rgb, photometric="rgb", tile=(16, 16), compression="lzw", predictor=True)
    yield "tiled palette", by_tifffile(np.asarray(image.quantize(30)), photometric="palette", tile=(16, 16), compression="zlib",
                                       colormap=(np.arange(768).reshape(3, 256) * 85).astype(np.uint16))
    yield "planes", by_tifffile(np.moveaxis(rgb, 2, 0), photometric="rgb", planarconfig="separate")
    yield "white is zero", by_tifffile(gray, photometric="miniswhite")
    yield "float predictor", by_tifffile(gray.astype(np.float32), compression="zlib", predictor=3)


def shown(data):
    with Image.open(io.BytesIO(data)) as image:
        from PIL import ImageOps
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA"):
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            return np.asarray(white.convert("RGB"))
        if image.mode.startswith("I;16"):
            return np.repeat((np.asarray(image).astype(float) / 257).round().astype(np.uint8)[..., None], 3, 2)
        return np.asarray(image.convert("RGB"))


def main():
    tensors = {}
    for name, data in files():
        try:
            tensors[f"{name}.rgb"] = np.ascontiguousarray(shown(data))
        except Exception as problem:
            # Pillow reads no such file: what was written is what there is to be seen.
            print(f"{name}: {problem}")
            gray = np.repeat(picture()[..., 1][..., None], 3, 2)
            tensors[f"{name}.rgb"] = picture() if "rgb" in name or name == "planes" else np.ascontiguousarray(gray)
        tensors[f"{name}.tiff"] = np.frombuffer(data, np.uint8)
    save_file(tensors, Path(__file__).with_suffix(".safetensors"))
    print(len(tensors) // 2)


if __name__ == "__main__":
    main()
