"""What the two learning recipes share: photos, views, the student, measurements, curves."""

import io
import json
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from safetensors.torch import load_file, save_file
from torchvision import transforms as T
from torchvision.transforms import functional as TF

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo_files(folder):
    """All photos under a folder, in sorted order."""
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))


class Blur:
    """Gaussian blur, sigma U(0.1, 2), as MoCo's program does it."""

    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def standard_view(size):
    """The recipe `standard`, up to a tensor in [0, 1]."""
    return T.Compose([
        T.RandomResizedCrop(size, scale=(0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([Blur()], p=0.5),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
    ])


class Views(torch.utils.data.Dataset):
    """`count` standard views of each photo; the files' bytes are held in memory."""

    def __init__(self, files, size, count):
        self.bytes = [Path(f).read_bytes() for f in files]
        self.view, self.count = standard_view(size), count

    def __len__(self):
        return len(self.bytes)

    def __getitem__(self, index):
        image = Image.open(io.BytesIO(self.bytes[index])).convert("RGB")
        return torch.stack([self.view(image) for _ in range(self.count)]), index


def seed_worker(_):
    value = torch.initial_seed() % 2**32
    random.seed(value)
    np.random.seed(value)


def loader(files, size, views, batch, workers, seed):
    """Shuffled batches (B, views, 3, size, size) and photo indices; incomplete batches dropped."""
    random.seed(seed)
    generator = torch.Generator().manual_seed(seed)
    return torch.utils.data.DataLoader(Views(files, size, views), batch, shuffle=True, drop_last=True, num_workers=workers, generator=generator,
                                       worker_init_fn=seed_worker, persistent_workers=workers > 0)


def normalize(x, mean, std):
    mean, std = (torch.tensor(v, device=x.device).reshape(3, 1, 1) for v in (mean, std))
    return (x - mean) / std


class Encoder(torch.nn.Module):
    """MobileNetV3-Small, batch norm momentum 0.1, and a head d-hidden-128 (0: d-128).

    `linear_init` is of classifier.0 and the head: `he` is N(0, sqrt(2 / inputs)) with zero bias, as
    Seedling's; `torch` is torch.nn.Linear's own; `normal` is N(0, 0.01) with zero bias; `mixed`
    torchvision's (classifier.0 normal, the head torch). With N(0, 0.01) the
    features start near 0 and nearly equal for all photos, and at lr 0.1 the embedding collapses
    first: most of a short run is lost.
    """

    def __init__(self, hidden, dropout, linear_init="torch"):
        super().__init__()
        net = torchvision.models.mobilenet_v3_small(weights=None)
        self.features, self.classifier = net.features, torch.nn.Sequential(net.classifier[0], net.classifier[1])
        self.dropout = torch.nn.Dropout(dropout)
        layers = [torch.nn.Linear(1024, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 128)] if hidden else [torch.nn.Linear(1024, 128)]
        self.projection_head = torch.nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.1
        linears = [m for m in self.modules() if isinstance(m, torch.nn.Linear)]
        for module in linears:
            if linear_init == "torch":
                module.reset_parameters()
            elif linear_init == "he":
                torch.nn.init.normal_(module.weight, 0, (2 / module.in_features) ** 0.5)
                torch.nn.init.zeros_(module.bias)
            elif linear_init == "normal":
                torch.nn.init.normal_(module.weight, 0, 0.01)
                torch.nn.init.zeros_(module.bias)

    def backbone(self, x):
        return self.classifier(self.features(x).mean(dim=(2, 3)))

    def forward(self, x):
        return torch.nn.functional.normalize(self.projection_head(self.dropout(self.backbone(x))), dim=1)

    def save(self, path, **metadata):
        state = {k: v.contiguous().cpu() for k, v in self.state_dict().items() if k.startswith(("features.", "classifier.")) and not k.endswith("num_batches_tracked")}
        save_file(state, path, metadata={"arch": "mobilenet_v3_small", "bn_eps": "0.001", **metadata})

    def load(self, path):
        state = {k: v.float() for k, v in load_file(path).items() if k.startswith(("features.", "classifier."))}
        missing, unexpected = self.load_state_dict(state, strict=False)
        wrong = [k for k in missing if not k.startswith("projection_head.") and not k.endswith("num_batches_tracked")]
        assert not wrong and not unexpected, (wrong, unexpected)


class LabeledPhotos:
    """The labeled album, for measuring."""

    def __init__(self, folder, size, preprocessing):
        files = photo_files(folder)
        self.is_test = torch.tensor([f.parent.parent.name == "test" for f in files])
        classes = sorted({f.parent.name for f in files})
        self.labels = torch.tensor([classes.index(f.parent.name) for f in files])
        self.images = torch.stack([self.prepare(f, size, preprocessing) for f in files])

    @staticmethod
    def prepare(path, size, preprocessing):
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        if preprocessing == "squash":
            image = image.resize((size, size), Image.BILINEAR)
        else:
            image = TF.center_crop(TF.resize(image, round(size * 256 / 224), antialias=True), size)
        return (TF.to_tensor(image) * 255).round().to(torch.uint8)

    @torch.no_grad()
    def measure(self, encoder, device):
        """Best-NN in percent: train -> test, and leave-one-out over the whole album."""
        encoder.eval()
        features = torch.cat([encoder.backbone(normalize(x.to(device).float() / 255, *IMAGENET)).float().cpu() for x in self.images.split(100)]).double()
        encoder.train()
        unit = torch.nn.functional.normalize(features, dim=1)
        train, test = ~self.is_test, self.is_test
        out = {}
        for name, f in (("euclid", features), ("cosine", unit)):
            if test.any():
                out[f"train_test_{name}"] = best_nn(torch.cdist(f[test], f[train]), self.labels[train], self.labels[test])
            distances = torch.cdist(f, f).fill_diagonal_(float("inf"))
            out[f"leave_one_out_{name}"] = best_nn(distances, self.labels, self.labels, one_out=True)
        return out


def best_nn(distances, train_labels, labels, one_out=False):
    """max over k = 1, 3, ..., 101 of plain majority votes, ties to the smallest label; percent."""
    limit = min(101, distances.shape[1] - one_out)
    order = distances.argsort(dim=1, stable=True)[:, :limit]
    votes = torch.nn.functional.one_hot(train_labels[order]).cumsum(dim=1)
    return max((votes[:, k - 1].argmax(dim=1) == labels).double().mean().item() * 100 for k in range(1, limit + 1, 2))


def learning_rate(step, steps, base, warm_up):
    """Linear warm-up to `base`, then cosine to 0, per step (from 0)."""
    if step < warm_up:
        return base * (step + 1) / warm_up
    return base * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class Curves:
    """Losses per step and measurements per epoch, written as JSON after every epoch."""

    def __init__(self, path, recipe, args):
        self.path, self.start = Path(path), time.time()
        config = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        self.data = {"recipe": recipe, "side": "pytorch", "seed": args.seed, "config": config, "loss": [], "evals": []}

    def measured(self, epoch, figures):
        self.data["evals"].append({"epoch": epoch, "step": len(self.data["loss"]), **figures})
        self.data["seconds"] = time.time() - self.start
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.data))
        loss = np.mean(self.data["loss"][-50:]) if self.data["loss"] else float("nan")
        print(f"{self.data['recipe']} seed {self.data['seed']} epoch {epoch:3} loss {loss:.4f}", {k: round(v, 2) for k, v in figures.items()}, f"{self.data['seconds']:.0f} s", file=sys.stderr, flush=True)


def common_arguments(parser):
    parser.add_argument("--album", type=Path, default=SHARED / "data" / "photos")
    parser.add_argument("--out", type=Path, required=True, help="folder for curves.json and weights.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--preprocessing", choices=["crop", "squash"], default="crop", help="of the album when measuring: center crop of the shorter side * 256/224, or squashed")
    parser.add_argument("--measure-every", type=int, default=1, help="epochs")
    parser.add_argument("--dropout", type=float, default=0.0, help="before the projection head")
    parser.add_argument("--linear-init", choices=["he", "torch", "normal", "mixed"], default="he")
    parser.add_argument("--steps", type=int, help="stop after so many steps (the schedule is not shortened)")


def prepare(args):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return torch.device(args.device)
