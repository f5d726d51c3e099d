"""Makes initial weights: MobileNetV3-Small and -Large taught by the same teacher pass, on GPU or processor.

    python models/distill.py SHARDS --teacher WEIGHTS --out OUT --seconds 2500 [--small INIT] [--openvino]
        [--final final=KEY:VALUE,...] [--try NAME=KEY:VALUE,... --try-seconds 30] [--albums FOLDER]

SEED lets a student rank photos as its teacher does, by way of a head that is thrown away. This does
so without the head, in PyTorch, until `seedling distill` can; nothing of the product depends on it.

- `near`: the student's own features rank the batch by distance as the teacher's rank it by cosine
  (cross entropy of the two soft rankings, the photo itself left out). What is measured and used
  later is just this ranking.
- `regress`: a linear map of the features predicts the teacher's direction (1 - cosine).
- `seed`: SEED's own loss, with a head of one hidden layer and a queue.
- Both see the same view: crop, flip, color, blur, quarter turns. With `clean` only the student sees
  color, blur and turns. The teacher sees the view enlarged to `teacher_size`. The share `mixed` of
  views are blends of two photos: the teacher's answer to what is no photo teaches too.
- The weights kept are an exponential average of the iterates. A student whose loss rises far above
  its best, or is no number, goes back to that average at half the learning rate.

SHARDS holds packed photos (`*.bin`, written by `pack_photos.py`): what stands before the first dot
names the group, and --mix says how often each group is drawn. Shards that arrive while it runs are
picked up. --albums names a folder of labeled ones (`eval.NAME.bin` and `.json`) to measure on.
"""

import argparse
import copy
import io
import json
import math
import struct
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "golden"))
sys.path.insert(0, str(ROOT / "tests" / "peers"))
from learning import IMAGENET, best_nn, normalize  # noqa: E402
from mobilenet_v2_teacher import load_teacher  # noqa: E402

# ---------------------------------------------------------------- photos

def records(path):
    data, at = Path(path).read_bytes(), 0
    while at + 4 <= len(data):
        n = struct.unpack_from("<I", data, at)[0]
        yield data[at + 4:at + 4 + n]
        at += 4 + n


def decode(encoded):
    return [np.asarray(Image.open(io.BytesIO(e)).convert("RGB")) for e in encoded]


class Group:
    """Photos of one group on the device: uint8 canvases (N, 3, side, side), and their own sizes."""

    def __init__(self, device):
        self.device, self.pixels, self.sizes = device, None, None
        self.lock, self.count = threading.Lock(), 0

    def add(self, arrays):
        side = max(max(a.shape[:2]) for a in arrays)
        side = 64 if side <= 64 else 216
        canvas = np.zeros((len(arrays), side, side, 3), np.uint8)
        for c, a in zip(canvas, arrays):
            h, w = a.shape[:2]
            c[:h, :w] = a[:side, :side]
        sizes = torch.tensor([(min(a.shape[0], side), min(a.shape[1], side)) for a in arrays], dtype=torch.float32, device=self.device)
        canvas = torch.from_numpy(canvas).to(self.device).permute(0, 3, 1, 2).contiguous()
        with self.lock:
            if self.count:  # one tensor a group: a batch is one gather
                canvas, sizes = torch.cat([self.pixels, canvas]), torch.cat([self.sizes, sizes])
            self.pixels, self.sizes = canvas, sizes
            self.count = len(sizes)

    def draw(self, n):
        with self.lock:
            pixels, sizes = self.pixels, self.sizes
        index = torch.randint(len(sizes), (n,), device=self.device)
        return pixels[index], sizes[index]


class Photos:
    """All groups; a thread decodes shards as they arrive."""

    def __init__(self, folder, device, workers):
        self.folder, self.device, self.groups, self.done = Path(folder), device, {}, set()
        self.pool = ProcessPoolExecutor(workers)
        self.scan()
        threading.Thread(target=self.watch, daemon=True).start()

    def scan(self):
        for path in sorted(self.folder.glob("*.bin")):
            if path in self.done:
                continue
            self.done.add(path)
            encoded = list(records(path))
            pieces = [encoded[i:i + 250] for i in range(0, len(encoded), 250)]
            arrays = [a for piece in self.pool.map(decode, pieces) for a in piece]
            group = path.name.split(".")[0]
            found = self.groups.get(group) or Group(self.device)
            found.add(arrays)
            self.groups[group] = found  # only now: whoever draws finds photos in it
            print(f"{time.strftime('%X')} {path.name}: {len(arrays)} photos, group {group} has {found.count}", flush=True)

    def watch(self):
        while True:
            time.sleep(1)
            self.scan()


# ---------------------------------------------------------------- views

def uniform(n, low, high, device):
    return torch.rand(n, device=device) * (high - low) + low


def crops(pixels, sizes, size, smallest):
    """Random resized crops with flips, (n, 3, size, size) in [0, 1]."""
    n, _, side, _ = pixels.shape
    device = pixels.device
    h, w = sizes[:, 0], sizes[:, 1]
    area = uniform(n, smallest, 1.0, device) * h * w
    ratio = torch.exp(uniform(n, math.log(3 / 4), math.log(4 / 3), device))
    cw = torch.minimum((area * ratio).sqrt(), w)
    ch = torch.minimum((area / ratio).sqrt(), h)
    x0 = torch.rand(n, device=device) * (w - cw)
    y0 = torch.rand(n, device=device) * (h - ch)
    flip = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0] = flip * cw / side
    theta[:, 0, 2] = (2 * x0 + cw) / side - 1
    theta[:, 1, 1] = ch / side
    theta[:, 1, 2] = (2 * y0 + ch) / side - 1
    grid = F.affine_grid(theta, (n, 3, size, size), align_corners=False)
    return F.grid_sample(pixels.float().div_(255), grid, mode="bilinear", padding_mode="border", align_corners=False).clamp_(0, 1)


def blends(x, share):
    """For each of that share of the views: mixed with the one before it, in a random proportion."""
    own = torch.where(torch.rand(len(x), device=x.device) < share, torch.rand(len(x), device=x.device), 1.0).reshape(-1, 1, 1, 1)
    return x * own + x.roll(1, 0) * (1 - own)


def soften(x, share):
    """The first `share` of the batch (it is shuffled) at half the resolution and back."""
    n = int(len(x) * share)
    if n:
        half = F.avg_pool2d(x[:n], 2)
        if torch.rand(()) < 0.4:
            half = F.avg_pool2d(half, 3, 1, 1)
        x = torch.cat([F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False), x[n:]])
    return x


def colors(x, strength):
    """ColorJitter's four, with probability 0.8 a photo, as one matrix each; then gray with 0.1."""
    n, device = len(x), x.device
    on = (torch.rand(n, device=device) < 0.8).float() * strength
    view = lambda v: v.reshape(n, 1, 1, 1)  # noqa: E731
    x = x * view(1 + on * uniform(n, -0.5, 0.4, device))
    gray = x.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    luma = (x * gray).sum(1, keepdim=True)
    x = (x - luma.mean((2, 3), keepdim=True)) * view(1 + on * uniform(n, -0.4, 0.4, device)) + luma.mean((2, 3), keepdim=True)
    luma = (x * gray).sum(1, keepdim=True)
    color = torch.where(torch.rand(n, device=device) < 0.1, torch.zeros(n, device=device), 1 + on * uniform(n, -0.4, 0.4, device))
    x = (x - luma) * view(color) + luma
    # The camera's white balance, and a turn of the hue about the gray axis.
    x = x * (1 + on[:, None] * (torch.rand(n, 3, device=device) - 0.5) * 0.4).reshape(n, 3, 1, 1)
    angle = on * uniform(n, -0.07, 0.07, device) * 2 * math.pi
    c, s = angle.cos(), angle.sin()
    third, root = (1 - c) / 3, s / math.sqrt(3)
    rows = torch.stack([c + third, third - root, third + root, third + root, c + third, third - root, third - root, third + root, c + third], 1).reshape(n, 3, 3)
    return torch.einsum("nij,njhw->nihw", rows, x).clamp(0, 1)


def student_view(x, cfg):
    x = soften(colors(x, cfg["color"]), cfg["blur"])
    n = int(len(x) * cfg["turn"])
    if n:
        turned = torch.rot90(x[-n:], 1 if torch.rand(()) < 0.5 else -1, (2, 3))
        x = torch.cat([x[:-n], turned])
    return x


# ---------------------------------------------------------------- networks

class OpenVino(torch.nn.Module):
    """The teacher compiled for the CPU: the same numbers, three times as fast."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher, self.compiled = [teacher], {}

    def forward(self, x):
        import openvino

        shape = tuple(x.shape)
        if shape not in self.compiled:
            model = openvino.convert_model(self.teacher[0], example_input=torch.rand(shape), input=list(shape))
            self.compiled[shape] = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
        return torch.from_numpy(self.compiled[shape](x.contiguous().numpy())[0].copy())


class Student(torch.nn.Module):
    """MobileNetV3 up to classifier.1 (1,024 or 1,280 features), with the heads that teach it."""

    def __init__(self, arch, teacher_dim, init=None):
        super().__init__()
        net = getattr(torchvision.models, arch)(weights=None)
        self.arch = arch
        self.features, self.classifier = net.features, torch.nn.Sequential(net.classifier[0], net.classifier[1])
        self.dim = self.classifier[0].out_features
        torch.nn.init.normal_(self.classifier[0].weight, 0, (2 / self.classifier[0].in_features) ** 0.5)
        torch.nn.init.zeros_(self.classifier[0].bias)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.1
        if init:
            state = {k: v.float() for k, v in load_file(init).items() if k.startswith(("features.", "classifier."))}
            missing, unexpected = self.load_state_dict(state, strict=False)
            assert not unexpected and all(k.endswith("num_batches_tracked") for k in missing), (missing, unexpected)
        self.regress = torch.nn.Linear(self.dim, teacher_dim)
        self.head = torch.nn.Sequential(torch.nn.Linear(self.dim, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 128))
        self.sharpness = torch.nn.Parameter(torch.tensor(2.0))

    def backbone(self, x):
        return self.classifier(self.features(x).mean(dim=(2, 3)))

    def save(self, path, image_size, made=""):
        state = {k: v.detach().cpu() for k, v in self.state_dict().items() if k.startswith(("features.", "classifier."))}
        # Kernels in half precision, what is added or normalized by in single: as they ship.
        state = {k: (v.half() if v.dim() >= 2 else v.float() if v.is_floating_point() else torch.zeros_like(v)).contiguous() for k, v in state.items()}
        header = {"arch": self.arch, "feature_dim": self.dim, "image_size": image_size, "mean": list(IMAGENET[0]), "std": list(IMAGENET[1]), "bn_eps": 0.001,
                  "padding": "symmetric", "se_order": "activation_first", "made": made}
        save_file(state, path, metadata={k: str(v) for k, v in header.items()})


def ranking_loss(student, teacher, sharpness, temperature):
    """`near`: cross entropy of soft rankings of the batch, by the teacher's cosine and the student's distance."""
    # Centered first, no square root, and the scale has its gradient: a common part may drown the
    # differences in rounding, and under a detached scale features may grow without end. Runs with
    # neither diverged; which of the two it was has not been separated.
    student = student.float() - student.float().mean(0)
    norms = student.square().sum(1)
    squared = (norms[:, None] + norms[None] - 2 * student @ student.T).clamp_min(0)
    scale = squared.sum() / (len(student) * (len(student) - 1))
    self_ = torch.eye(len(student), dtype=torch.bool, device=student.device)
    logits = (-squared / scale * sharpness.clamp(max=3).exp()).masked_fill(self_, -1e4)
    target = (teacher @ teacher.T / temperature).masked_fill(self_, -1e4).softmax(1)
    return -(target * logits.log_softmax(1)).sum(1).mean() + (target * target.clamp_min(1e-12).log()).sum(1).mean()


class Queue:
    def __init__(self, size, dim, device):
        self.rows, self.at = F.normalize(torch.randn(size, dim, device=device), dim=1), 0

    def push(self, rows):
        index = (self.at + torch.arange(len(rows), device=rows.device)) % len(self.rows)
        self.rows[index] = rows
        self.at = (self.at + len(rows)) % len(self.rows)


DEFAULT = dict(batch=1024, lr=1e-3, weight_decay=0.02, optimizer="adamw", near=1.0, regress=1.0, seed=0.0, temperature=0.07, teacher_size=160, size=128,
               crop=0.25, color=1.0, blur=0.2, turn=0.1, mixed=0.0, clean=0, average=0.998, compile=0, arch="small+large", warmup=0.04)


def optimizer_of(parameters, cfg):
    groups = [dict(params=[p for p in parameters if p.dim() >= 2], weight_decay=cfg["weight_decay"]),
              dict(params=[p for p in parameters if p.dim() < 2], weight_decay=0.0)]
    if cfg["optimizer"] == "adamw":
        return torch.optim.AdamW(groups, lr=cfg["lr"], betas=(0.9, 0.99))
    return torch.optim.SGD(groups, lr=cfg["lr"], momentum=0.9, nesterov=True)


def batch_of(photos, mix, n, cfg):
    groups = [g for g in mix if g in photos.groups]
    total = sum(mix[g] for g in groups)
    parts = []
    for group in groups:
        count = int(round(n * mix[group] / total))
        if count:
            parts.append(crops(*photos.groups[group].draw(count), cfg["size"], cfg["crop"]))
    x = torch.cat(parts)[:n] if len(parts) > 1 else parts[0]
    return x[torch.randperm(len(x), device=x.device)]


def train(photos, teacher, albums, cfg, args, seconds, device, out=None):
    torch.manual_seed(0)
    names = {"small": "mobilenet_v3_small", "large": "mobilenet_v3_large"}
    students = [Student(names[a], 1280, getattr(args, a)).to(device, memory_format=torch.channels_last).train() for a in cfg["arch"].split("+")]
    averages = [copy.deepcopy(s).requires_grad_(False) for s in students]
    parameters = [list(s.parameters()) for s in students]
    optimizers = [optimizer_of(p, cfg) for p in parameters]
    slower, best = [1.0] * len(students), [math.inf] * len(students)
    amp = lambda: torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")  # noqa: E731
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    forwards = [torch.compile(s.backbone) if cfg["compile"] else s.backbone for s in students]
    projection = torch.randn(1280, 128, generator=torch.Generator().manual_seed(12345)).to(device) / 1280**0.5
    queue = Queue(4096 * 4, 128, device)

    @torch.no_grad()
    def teach(x):
        x = F.interpolate(x.to(half), size=cfg["teacher_size"], mode="bilinear", align_corners=False)
        with amp():
            return teacher((x * 2 - 1).contiguous(memory_format=torch.channels_last)).float()

    def keep():
        for a in averages if out else []:
            a.save(out / f"{a.arch}.safetensors", args.image_size, args.made)

    def draw():
        x = batch_of(photos, args.mix, cfg["batch"], cfg)
        x = blends(x, cfg["mixed"]) if cfg["mixed"] else x
        v = student_view(x, cfg)
        t = teach(x if cfg["clean"] else v)
        return normalize(v, *IMAGENET).to(half).contiguous(memory_format=torch.channels_last), t

    mean = torch.cat([draw()[1] for _ in range(4)]).mean(0)
    healthy = [copy.deepcopy(a.state_dict()) for a in averages]
    step, seen, losses, start = 0, 0, [], time.time()
    last = measured = start
    while True:
        progress = (time.time() - start) / seconds
        if progress >= 1 or step == args.steps:
            break
        lr = cfg["lr"] * (min(1, progress / cfg["warmup"]) if progress < cfg["warmup"] else 0.5 * (1 + math.cos(math.pi * (progress - cfg["warmup"]) / (1 - cfg["warmup"]))))
        for optimizer, factor in zip(optimizers, slower):
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            x, t = draw()
            t = F.normalize(t - mean, dim=1)
            p = F.normalize(t @ projection, dim=1)
        row = []
        for student, forward in zip(students, forwards):
            with amp():
                s = forward(x)
                predicted = student.regress(s) if cfg["regress"] else None
                embedded = student.head(s) if cfg["seed"] else None
            loss = 0.0
            if cfg["near"]:
                loss = loss + cfg["near"] * ranking_loss(s, t, student.sharpness, cfg["temperature"])
            if cfg["regress"]:
                loss = loss + cfg["regress"] * (1 - (F.normalize(predicted.float(), dim=1) * t).sum(1)).mean()
            if cfg["seed"]:
                z = F.normalize(embedded.float(), dim=1)
                target = (torch.cat([(p * p).sum(1, keepdim=True), p @ queue.rows.T], 1) / 0.01).softmax(1)
                logits = torch.cat([(z * p).sum(1, keepdim=True), z @ queue.rows.T], 1) / 0.2
                loss = loss - cfg["seed"] * (target * logits.log_softmax(1)).sum(1).mean()
            loss.backward()
            row.append(loss.detach())
        for ps, optimizer in zip(parameters, optimizers):
            if torch.isfinite(torch.nn.utils.clip_grad_norm_(ps, 1.0)):
                optimizer.step()
        if cfg["seed"]:
            queue.push(p)
        decay = min(cfg["average"], (1 + step) / (10 + step))
        with torch.no_grad():
            for a, s in zip(averages, students):
                pairs = [(u, v) for u, v in zip(a.state_dict().values(), s.state_dict().values()) if u.is_floating_point()]
                torch._foreach_lerp_([u for u, _ in pairs], [v for _, v in pairs], 1 - decay)
        step, seen = step + 1, seen + len(x)
        losses.append(row)
        if time.time() - last > args.report_every:
            recent = torch.tensor([[float(v) for v in r] for r in losses[-20:]]).mean(0).tolist()
            print(f"{time.strftime('%X')} step {step} views {seen} {seen / (time.time() - start):.0f}/s lr {lr:.5f} loss {[round(v, 4) for v in recent]}", flush=True)
            last = time.time()
            for i, loss in enumerate(recent):
                if loss < best[i]:
                    best[i], healthy[i] = loss, copy.deepcopy(averages[i].state_dict())
                elif not loss < best[i] + max(0.3, 0.3 * best[i]):
                    slower[i] /= 2
                    print(f"{students[i].arch} diverged: back to its average, learning rate times {slower[i]}", flush=True)
                    students[i].load_state_dict(healthy[i])
                    averages[i].load_state_dict(healthy[i])
                    optimizers[i] = optimizer_of(parameters[i], cfg)
            keep()
            if albums and out and time.time() - measured > args.measure_every:
                measured = time.time()
                for a in averages:
                    print(f"{a.arch} {json.dumps(albums.measure(a, device))}", flush=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall = time.time() - start
    keep()
    return averages, dict(steps=step, views=seen, seconds=round(wall, 1), views_per_second=round(seen / wall), loss=[round(float(v), 4) for v in losses[-1]])


# ---------------------------------------------------------------- measuring

class Albums:
    def __init__(self, folder):
        self.albums = {}
        for path in sorted(Path(folder).glob("eval.*.bin")):
            meta = json.loads(path.with_suffix(".json").read_text())
            x = torch.from_numpy(np.stack(decode(records(path)))).permute(0, 3, 1, 2)
            self.albums[path.name.split(".")[1]] = x, torch.tensor([m[0] for m in meta]), torch.tensor([bool(m[1]) for m in meta])

    @torch.no_grad()
    def measure(self, student, device):
        was, out = student.training, {}
        student.eval()
        for name, (x, labels, train) in self.albums.items():
            f = torch.cat([student.backbone(normalize(b.to(device).float() / 255, *IMAGENET)).float() for b in x.split(100)]).cpu().double()
            unit = F.normalize(f, dim=1)
            for metric, g in (("", f), ("cos ", unit)):
                if train.any() and not train.all():
                    out[metric + name] = round(best_nn(torch.cdist(g[~train], g[train]), labels[train], labels[~train]), 1)
                else:
                    out[metric + name] = round(best_nn(torch.cdist(g, g).fill_diagonal_(float("inf")), labels, labels, one_out=True), 1)
        student.train(was)
        return out


def settings(text):
    name, _, rest = text.partition("=")
    cfg = dict(DEFAULT)
    for pair in filter(None, rest.split(",")):
        key, value = pair.split(":")
        cfg[key] = type(DEFAULT[key])(value)
    return name, cfg


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="SHARDS")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--albums", type=Path)
    parser.add_argument("--small", type=Path, help="weights that the small one starts from")
    parser.add_argument("--large", type=Path)
    parser.add_argument("--openvino", action="store_true", help="the teacher's pass by OpenVINO (CPUs only)")
    parser.add_argument("--mix", default="caltech:0.3,sample:0.05,nette:0.15,tiny:0.45,cifar:0.05")
    parser.add_argument("--final", default="final=", help="settings of the run that is kept")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--image-size", type=int, default=128, help="side at which the weights are to be used, written into the file")
    parser.add_argument("--made", default="", help="a sentence for the file's header")
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--try", dest="tries", nargs="*", default=[])
    parser.add_argument("--try-seconds", type=float, default=30)
    parser.add_argument("--report-every", type=float, default=10)
    parser.add_argument("--measure-every", type=float, default=60, help="seconds between measurements on the albums in the run that is kept")
    parser.add_argument("--workers", type=int, default=14)
    args = parser.parse_args()
    args.mix = {k: float(v) for k, v in (p.split(":") for p in args.mix.split(","))}
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    photos = Photos(args.data, device, args.workers)
    teacher = load_teacher(args.teacher)
    teacher = OpenVino(teacher) if args.openvino else teacher.to(device, memory_format=torch.channels_last).requires_grad_(False)
    albums = Albums(args.albums) if args.albums else None
    jobs = [(*settings(t), args.try_seconds, None) for t in args.tries]
    if args.seconds:
        jobs.append((*settings(args.final), args.seconds, args.out))
    for name, cfg, seconds, out in jobs:
        try:
            averages, facts = train(photos, teacher, albums, cfg, args, seconds, device, out)
        except Exception as error:  # one bad try must not end the others
            if out:
                raise
            print(f"RESULT {name} failed: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        facts["photos"] = {k: g.count for k, g in photos.groups.items()}
        facts["settings"] = cfg
        if albums:
            facts["best_nn"] = {a.arch: albums.measure(a, device) for a in averages}
        print(f"RESULT {name} {json.dumps({k: facts[k] for k in facts if k not in ('settings', 'photos')})}", flush=True)
        if out:
            (out / "facts.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
