"""Two aug+ views of 224 pixels from one photo: torchvision + Pillow beside `seedling bench`.

    python tests/peers/views_speed.py [--photos FOLDER] [--seedling BINARY] [--seconds S]

Both sides use one core, in turn, on the same photos: read the file, decode, draw two views,
normalized floats. torchvision is measured with each of the two blurs in use (Pillow's box
approximation, as MoCo's program has it, and torchvision's own Gaussian); the faster one counts.
"""

import argparse, io, json, os, random, subprocess, time
from pathlib import Path

import torch
import torchvision.transforms as T
from PIL import Image, ImageFilter

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]


class PillowBlur:
    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def recipe(blur):
    return T.Compose([
        T.RandomResizedCrop(224, scale=(0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.4)], p=0.8),
        T.RandomGrayscale(p=0.5),
        T.RandomApply([blur], p=0.5),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])


def torchvision_speed(files, transform, seconds):
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        image = Image.open(io.BytesIO(files[done % len(files)].read_bytes())).convert("RGB")
        transform(image), transform(image)
        done += 1
    return done / (time.perf_counter() - start)


def main():
    default = os.environ.get("SEEDLING_DATA", ROOT.parent / "shared" / "data")
    args = argparse.ArgumentParser()
    args.add_argument("--photos", type=Path, default=Path(default) / "photos")
    args.add_argument("--seedling", default=str(ROOT / "target/release/seedling"))
    args.add_argument("--seconds", type=float, default=5.0)
    args = args.parse_args()
    files = sorted(args.photos.rglob("*.jpg"))
    result = {
        "torchvision_pillow_blur": torchvision_speed(files, recipe(PillowBlur()), args.seconds),
        "torchvision_own_blur": torchvision_speed(
            files, recipe(T.GaussianBlur(23, (0.1, 2.0))), args.seconds),
    }
    bench = subprocess.run(
        ["taskset", "-c", "0", args.seedling, "bench", str(args.photos), "--json"],
        check=True, capture_output=True, text=True)
    ours = json.loads(bench.stdout.strip().splitlines()[-1])
    result["seedling"] = ours["views"]["photos_per_second_per_core"]
    best = max(v for k, v in result.items() if k != "seedling")
    result["ratio"] = result["seedling"] / best
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
