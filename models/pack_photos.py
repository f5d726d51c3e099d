"""Packs photos for `distill.py`: one shard of small WebPs a group.

    python models/pack_photos.py FOLDER GROUP.bin [--short 144] [--long 216] [--quality 60] [--without ALBUM] [--limit N]

Photos are reduced until the shorter side has --short pixels, their longer one is cut to --long; a
fixed random order; photos whose bytes are also in ALBUM are left out. A shard is a little-endian
u32 length and the WebP, again and again.
"""

import argparse
import hashlib
import io
import random
import struct
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def photos(folder):
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)


def packed(job):
    path, short, long, quality = job
    try:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    except Exception as error:
        print(f"{path}: {error}")
        return None
    scale = min(1, short / min(image.size))
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.LANCZOS, reducing_gap=3.0)
    w, h = image.size
    left, top = max(0, w - long) // 2, max(0, h - long) // 2
    image = image.crop((left, top, left + min(w, long), top + min(h, long)))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--short", type=int, default=144)
    parser.add_argument("--long", type=int, default=216)
    parser.add_argument("--quality", type=int, default=60)
    parser.add_argument("--without", type=Path)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    digest = lambda path: hashlib.sha256(path.read_bytes()).digest()  # noqa: E731
    unwanted = {digest(p) for p in photos(args.without)} if args.without else set()
    files = [p for p in photos(args.folder) if not unwanted or digest(p) not in unwanted]
    random.Random(0).shuffle(files)
    jobs = [(p, args.short, args.long, args.quality) for p in files[:args.limit]]
    count = size = 0
    with open(args.out, "wb") as out, ProcessPoolExecutor() as pool:
        for webp in pool.map(packed, jobs, chunksize=64):
            if webp:
                out.write(struct.pack("<I", len(webp)) + webp)
                count, size = count + 1, size + len(webp)
    print(f"{args.out}: {count} photos, {size / 1e6:.1f} MB, {len(unwanted)} unwanted ones")


if __name__ == "__main__":
    main()
