"""Our weights in torchvision, without renaming: the same features as `seedling embed`.

    python tests/peers/load_in_torchvision.py RUN/weights.safetensors PHOTOS [--binary seedling]

Loads the file with a strict `load_state_dict` into torchvision's model (its classifier cut to
[0], [1]; num_batches_tracked, which carries no function, is the only thing that may be missing),
runs it on PHOTOS and compares with what `seedling embed` writes. Differences come from resizing
alone; with --inputs FILE (`inputs` (N, 3, H, W) f32 and `features` (N, F) in one safetensors file)
the network alone is compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torchvision
from PIL import Image, ImageOps
from safetensors import safe_open
from torchvision.transforms import functional as TF

ROOT = Path(__file__).resolve().parents[2]


def load(path):
    """(model, metadata): torchvision's network with our weights, in eval mode."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        state = {name: file.get_tensor(name).float() for name in file.keys()}
    arch = metadata["arch"]
    model = getattr(torchvision.models, arch)(weights=None)
    if arch.startswith("mobilenet_v3"):
        model.classifier = model.classifier[:2]
    elif arch == "mobilenet_v2":
        model.classifier = torch.nn.Identity()
    else:
        sys.exit(f"no torchvision twin is known for {arch}")
    head = [name for name in state if name.startswith(("projection_head.", "head."))]
    for name in head:
        del state[name]
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, value)
    model.load_state_dict(state, strict=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = float(metadata.get("bn_eps", 1e-3))
    return model.eval(), metadata


def numbers(metadata, key, default):
    return json.loads(metadata[key]) if key in metadata else default


def compare(ours, theirs, what):
    difference = (ours - theirs).norm(dim=1) / theirs.norm(dim=1)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs)
    print(f"{what}: {len(ours)} rows, relative difference median {difference.median():.2e}, worst {difference.max():.2e}; cosine at least {cosine.min():.6f}")
    return difference


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "seedling"))
    parser.add_argument("--features", type=Path, help="a file `seedling embed` wrote earlier")
    parser.add_argument("--inputs", type=Path, help="network inputs and our features, to compare without images")
    parser.add_argument("--resize", choices=["squash", "crop", "fit"], default="crop", help="crop: shorter side to size*256/224, center crop; fit: shorter side to size, center crop")
    parser.add_argument("--size", type=int, help="image size (default: the file's)")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--tolerance", type=float, default=0.05, help="largest median difference allowed with images")
    args = parser.parse_args()
    model, metadata = load(args.weights)
    print(f"loaded strictly into torchvision.models.{metadata['arch']}: {sum(p.numel() for p in model.parameters()):,} parameters")
    if args.inputs:
        with safe_open(args.inputs, "pt") as file, torch.no_grad():
            difference = compare(file.get_tensor("features"), model(file.get_tensor("inputs")), "same inputs")
        assert difference.max() < 1e-4
    if args.photos is None:
        return
    size = args.size or int(metadata.get("image_size", 224))
    mean, std = numbers(metadata, "mean", [0.485, 0.456, 0.406]), numbers(metadata, "std", [0.229, 0.224, 0.225])
    with tempfile.TemporaryDirectory() as folder:
        path = args.features or Path(folder) / "features.safetensors"
        if not args.features:
            subprocess.run([args.binary, "embed", args.photos, "--weights", args.weights, "--out", path], check=True)
        with safe_open(path, "pt") as file:
            ours, ids = file.get_tensor("features"), json.loads(file.metadata()["ids"])
    ours, ids = ours[: args.limit], ids[: args.limit]
    rows = []
    with torch.no_grad():
        for name in ids:
            image = ImageOps.exif_transpose(Image.open(args.photos / name)).convert("RGB")
            if args.resize == "squash":
                image = image.resize((size, size), Image.BILINEAR)
            else:
                side = round(size * 256 / 224) if args.resize == "crop" else size
                image = TF.center_crop(TF.resize(image, side, antialias=True), size)
            rows.append(model(TF.normalize(TF.to_tensor(image), mean, std)[None])[0])
    difference = compare(ours, torch.stack(rows), "same photos")
    if difference.median() > args.tolerance:
        sys.exit("the features differ by more than resizing explains")


if __name__ == "__main__":
    main()
