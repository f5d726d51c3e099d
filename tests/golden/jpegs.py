"""JPEGs of every sampling, scan order and restart interval that libjpeg writes, and what Pillow shows of them.

    python tests/golden/jpegs.py                a selection, into jpegs.safetensors beside this file
    python tests/golden/jpegs.py --all FOLDER   all of them, NAME.jpg and NAME.rgb (height, width: 4 bytes each, pixels)

Needs Pillow, numpy and libjpeg-turbo's `cjpeg`; the selection also safetensors. Without cjpeg, --all makes what
Pillow writes itself, and says so.
"""
import io
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [(33, 27), (16, 16), (61, 45), (8, 8), (1, 1), (17, 5)]
LUMA = ["1x1", "2x1", "1x2", "2x2", "4x1", "4x2"]
CHROMA = [("1x1", "1x1"), ("2x1", "2x1"), ("1x2", "1x2"), ("2x2", "2x2"), ("2x1", "1x1"), ("1x1", "2x2")]
SCANS = {"one": None, "three": "0;1;2;", "back": "2;1;0;", "luma-chroma": "0;1 2;", "chroma-luma": "1 2;0;", "pair": "0 2;1;", "progressive": "p",
         "bands": "0 1 2: 0-0, 0, 0; 2: 1-63, 0, 0; 0: 1-5, 0, 1; 1: 1-63, 0, 0; 0: 6-63, 0, 1; 0: 1-63, 1, 0;"}
RESTARTS = ["0", "1B", "3B", "1"]


def picture(width, height):
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / 5 + 0.3) * np.cos(y / 7), np.sin(x / 11 - y / 6 + 1), np.cos((x + 2 * y) / 13)]
    return Image.fromarray((127.5 + 120 * np.stack(waves, 2)).round().clip(0, 255).astype(np.uint8))


def cjpeg(image, luma, chroma, scans, restart, folder, *more):
    image.save(folder / "x.ppm")
    command = ["cjpeg", "-quality", "90", "-sample", ",".join([luma, *chroma]), *more]
    if scans == "p":
        command.append("-progressive")
    elif scans:
        (folder / "scans").write_text(scans)
        command += ["-scans", str(folder / "scans")]
    if restart != "0":
        command += ["-restart", restart]
    done = subprocess.run([*command, str(folder / "x.ppm")], capture_output=True)
    # Combinations that libjpeg refuses (blocks of an MCU are limited) are none.
    return done.stdout if done.returncode == 0 else None


def by_pillow():
    for width, height in SIZES:
        image = picture(width, height)
        for mode in ("RGB", "L", "CMYK"):
            for subsampling in (0, 1, 2):
                for progressive in (False, True):
                    for restart in ({}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}):
                        out = io.BytesIO()
                        image.convert(mode).save(out, "JPEG", quality=90, subsampling=subsampling, progressive=progressive, **restart)
                        name = f"pillow {width}x{height} {mode} {subsampling} {'progressive' if progressive else 'baseline'} {' '.join(restart)}".strip()
                        yield name, out.getvalue()


def everything():
    yield from by_pillow()
    if not shutil.which("cjpeg"):
        print("no cjpeg here: Pillow's own files alone", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        n = 0
        for luma in LUMA:
            for chroma in CHROMA:
                for scans, script in SCANS.items():
                    for restart in RESTARTS:
                        n += 1
                        width, height = SIZES[n % len(SIZES)]
                        data = cjpeg(picture(width, height), luma, chroma, script, restart, Path(folder))
                        if data:
                            yield f"cjpeg {width}x{height} {luma},{','.join(chroma)} {scans} {restart}", data
        for width, height in SIZES:
            data = cjpeg(picture(width, height), "1x1", [], None, "0", Path(folder), "-rgb")
            if data:
                yield f"cjpeg {width}x{height} rgb", data


def reference(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def main():
    if sys.argv[1:2] == ["--all"]:
        folder, count = Path(sys.argv[2]), 0
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in everything():
            pixels = reference(data)
            (folder / f"{name}.jpg").write_bytes(data)
            (folder / f"{name}.rgb").write_bytes(struct.pack("<II", *pixels.shape[:2]) + pixels.tobytes())
            count += 1
        print(count)
        return
    from safetensors.numpy import save_file
    tensors, kinds = {}, {}
    for name, data in everything():
        # Of each sampling and scan order two, of Pillow's own every fifth.
        maker, _, *rest = name.split()
        kind = (maker, *rest[:2]) if maker == "cjpeg" else (maker, len(kinds) % 5 == 0)
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] > (1 if maker == "cjpeg" else 12):
            continue
        tensors[f"{name}.jpg"] = np.frombuffer(data, np.uint8)
        tensors[f"{name}.rgb"] = reference(data)
    save_file(tensors, Path(__file__).with_suffix(".safetensors"))
    print(len(tensors) // 2)


if __name__ == "__main__":
    main()
