"""The ImageNet teacher on the album: which preprocessing gives its 95.5 % nearest neighbors.

    python tests/peers/mobilenet_v2_teacher.py [--data ../shared/data] [--weights FILE]

Features: torchvision's mobilenet_v2 up to global pooling, TensorFlow's SAME padding, batch norm
eps 1e-3. Best-NN train -> test is the best of k = 1, 3, ..., 101, Euclidean distance on the
unnormalized features, plain majority vote, ties to the smallest label. The 95.5 belongs to the
shorter side resized to 256 (bilinear, antialiased), the center 224 x 224, x * 2 - 1, with k = 1; the whole
photo squashed to 224 x 224 gives 98.0 (Pillow's bilinear). Golden features of the same weights on hashed images come from tests/golden/networks.py.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import functional as TF

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))
from common import MobileNetV2  # noqa: E402


def load_teacher(path):
    model = MobileNetV2(same=True, eps=1e-3)
    state = {k: v.float() for k, v in load_file(path).items() if k.startswith("features.")}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(k.endswith("num_batches_tracked") for k in missing)
    return model.eval()


def squash(image):
    return image.resize((224, 224), Image.BILINEAR)


def center_crop(resize, crop, mode):
    def apply(image):
        return TF.center_crop(TF.resize(image, resize, interpolation=mode, antialias=True), crop)
    return apply


PREPROCESSING = {
    "squash to 224 (bilinear)": squash,
    "shorter side 256, center crop 224 (bilinear)": center_crop(256, 224, TF.InterpolationMode.BILINEAR),
    "shorter side 224, center crop 224 (bilinear)": center_crop(224, 224, TF.InterpolationMode.BILINEAR),
    "shorter side 256, center crop 224 (bicubic)": center_crop(256, 224, TF.InterpolationMode.BICUBIC),
}


def features(model, root, preprocess):
    """Features and labels of a class-folder tree, in sorted order."""
    files = sorted(root.glob("*/*.jpg"))
    classes = sorted({f.parent.name for f in files})
    out = []
    with torch.no_grad():
        for start in range(0, len(files), 20):
            batch = [TF.to_tensor(preprocess(Image.open(f).convert("RGB"))) for f in files[start:start + 20]]
            out.append(model(torch.stack(batch) * 2 - 1).float())
    return torch.cat(out), torch.tensor([classes.index(f.parent.name) for f in files])


def best_nn(distances, train_labels, labels, ks=range(1, 102, 2)):
    """(percent, k): the best k of majority votes over the nearest columns of `distances`."""
    order = distances.argsort(dim=1, stable=True)
    votes = torch.nn.functional.one_hot(train_labels[order[:, :max(ks)]]).cumsum(dim=1)
    scores = [((votes[:, k - 1].argmax(dim=1) == labels).double().mean().item() * 100, -k) for k in ks if k <= votes.shape[1]]
    score, k = max(scores)
    return score, -k


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared" / "weights" / "mobilenet_v2_imagenet.safetensors")
    parser.add_argument("--only", type=int, help="just this row of the table")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_teacher(args.weights).to(memory_format=torch.channels_last)
    for i, (name, preprocess) in enumerate(PREPROCESSING.items()):
        if args.only is not None and i != args.only:
            continue
        train, train_labels = features(model, args.data / "photos" / "train", preprocess)
        test, labels = features(model, args.data / "photos" / "test", preprocess)
        score, k = best_nn(torch.cdist(test.double(), train.double()), train_labels, labels)
        one, _ = best_nn(torch.cdist(test.double(), train.double()), train_labels, labels, [1])
        print(json.dumps({"preprocessing": name, "best_nn": round(score, 2), "k": k, "nn_1": round(one, 2)}), flush=True)


if __name__ == "__main__":
    main()
