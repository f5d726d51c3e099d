"""Writes views.safetensors: torchvision's (Pillow's) outputs for views with fixed parameters.

    python tests/golden/views.py

One procedurally made picture, then each operation alone, whole chains and the evaluation view.
The metadata key `cases` lists the parameters of every stored output.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image
from safetensors.torch import save_file

WIDTH, HEIGHT = 97, 71


def picture():
    """Smooth gradients, hard edges, every hue, grays and noise."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    planes = [
        127 + 120 * np.sin(x / 9 + y / 31),
        127 + 120 * np.sin(y / 7 - x / 40 + 2),
        127 + 120 * np.sin((x + y) / 13 + 4),
    ]
    image = np.stack(planes, -1) + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    image[20:40, 30:50] = [250, 20, 30]
    image[45:60, 10:30] = 128
    image[5:12, 60:90] = 0
    image[50:70, 70:90] = 255
    return image.clip(0, 255).astype(np.uint8)


STEPS = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


def view(image, case):
    left, top, width, height = case["crop"]
    size = case["size"]
    image = F.resized_crop(image, top, left, height, width, [size, size],
                           F.InterpolationMode.BILINEAR, antialias=True)
    for step, factor in case["jitter"]:
        image = STEPS[step](image, factor)
    if case["gray"]:
        image = F.rgb_to_grayscale(image, 3)
    if case["blur"]:
        kernel = size // 10 | 1
        image = F.gaussian_blur(image, [kernel, kernel], [case["blur"]] * 2)
    if case["flip"]:
        image = F.hflip(image)
    return image


def main():
    pixels = picture()
    image = Image.fromarray(pixels)
    same = [10, 3, 64, 64]

    def case(name, crop=same, size=64, jitter=(), gray=False, blur=None, flip=False):
        return dict(name=name, crop=list(crop), size=size, jitter=[list(j) for j in jitter],
                    gray=gray, blur=blur, flip=flip)

    cases = [
        case("resize/enlarge", [7, 11, 41, 29], 50),
        case("resize/reduce", [0, 0, 97, 71], 31),
        case("resize/reduce_much", [1, 2, 95, 67], 13),
        case("resize/mixed", [30, 5, 20, 66], 48),
        case("resize/tiny", [60, 60, 2, 3], 33),
        case("resize/pixel", [33, 25, 1, 1], 9),
        case("brightness/dark", jitter=[("brightness", 0.37)]),
        case("brightness/bright", jitter=[("brightness", 1.71)]),
        case("contrast/soft", jitter=[("contrast", 0.23)]),
        case("contrast/hard", jitter=[("contrast", 1.77)]),
        case("saturation/pale", jitter=[("saturation", 0.31)]),
        case("saturation/gaudy", jitter=[("saturation", 1.63)]),
        case("hue/none", jitter=[("hue", 0.0)]),
        case("hue/plus", jitter=[("hue", 0.29)]),
        case("hue/minus", jitter=[("hue", -0.17)]),
        case("gray", gray=True),
        case("blur/slight", blur=0.4),
        case("blur/strong", [0, 0, 97, 71], 70, blur=1.9),
        case("flip", flip=True),
        case("chain/1", [5, 9, 63, 51], 56, [("hue", -0.33), ("contrast", 1.4),
             ("brightness", 0.6), ("saturation", 1.7)], blur=1.3, flip=True),
        case("chain/2", [20, 0, 70, 71], 50, [("saturation", 0.4), ("brightness", 1.5),
             ("hue", 0.12), ("contrast", 0.5)], gray=True, blur=0.8),
        case("chain/3", [0, 30, 50, 41], 45, [("contrast", 0.7), ("saturation", 1.2),
             ("hue", 0.4), ("brightness", 0.9)], flip=True),
    ]
    tensors = {"photo": torch.from_numpy(pixels)}
    for c in cases:
        tensors[c["name"]] = torch.from_numpy(np.array(view(image, c))).contiguous()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    for size in (32, 45, 56):
        side = math.floor(size * 256 / 224 + 0.5)
        cut = F.center_crop(F.resize(image, side, antialias=True), [size, size])
        floats = F.normalize(F.to_tensor(cut), mean, std)
        tensors[f"evaluation/{size}"] = floats.permute(1, 2, 0).contiguous()
    out = Path(__file__).with_suffix(".safetensors")
    save_file(tensors, out, metadata={"cases": json.dumps(cases)})
    print(out, out.stat().st_size)


if __name__ == "__main__":
    main()
