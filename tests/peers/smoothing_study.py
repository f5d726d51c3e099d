"""How much of MoCo's target should go to the nearest keys, to how many, and at which rate (preset `smoothed`).

    python tests/peers/smoothing_study.py TRAIN.tar.gz TEST.tar.gz [--epochs 120] [--at-once 8] [--out FILE.json]

PyTorch on a GPU. MobileNetV3-Large from random weights on small labeled pictures (archives of
CLASS/NAME.jpg; 32 px, shown at 64), head d-2048-128, queue 4,096, temperature 0.1, key momentum 0.99, batch
512, cosine after five epochs of warm-up, crops, flips, color and grayscale. The target puts 1 - weight on the
positive and weight / keys on each of the keys nearest to the query. Each arm is a process of its own; it is
judged by kNN (best of k, cosine) from the training to the test pictures, and by a linear probe on the same
features. One seed an arm unless --seeds says more.
"""

import argparse
import io
import json
import math
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ARMS = [(0.0, 1, 0.06), (0.1, 5, 0.06), (0.2, 5, 0.06), (0.2, 10, 0.06), (0.2, 30, 0.06), (0.4, 10, 0.06), (0.6, 10, 0.06),
        (0.4, 30, 0.06), (0.0, 1, 0.12), (0.2, 10, 0.12), (0.4, 10, 0.12), (0.0, 1, 0.03), (0.2, 10, 0.03), (0.4, 10, 0.03)]


def pictures(path):
    import numpy as np
    import torch
    from PIL import Image

    images, labels, classes = [], [], {}
    with tarfile.open(path) as archive:
        for member in sorted((m for m in archive if m.isfile()), key=lambda m: m.name):
            label = classes.setdefault(member.name.split("/")[-2], len(classes))
            image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
            images.append(np.asarray(image))
            labels.append(label)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


def arm(args):
    import torch
    import torch.nn.functional as F
    import torchvision
    from torch import nn

    weight, keys, lr = args.arm
    keys = int(keys)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    (train, train_labels), (test, test_labels) = [tuple(t.to(device) for t in pictures(p)) for p in args.data]
    mean, std = [torch.tensor(v, device=device).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    side = args.side

    def views(x):
        n = len(x)
        rand = lambda low=0.0, high=1.0: torch.rand(n, device=device) * (high - low) + low
        area, ratio = rand(0.2, 1.0), torch.exp(rand(math.log(3 / 4), math.log(4 / 3)))
        w, h = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        flip = torch.where(rand() < 0.5, -1.0, 1.0)
        theta = torch.zeros(n, 2, 3, device=device)
        theta[:, 0, 0], theta[:, 1, 1] = w * flip, h
        theta[:, 0, 2], theta[:, 1, 2] = rand(-1, 1) * (1 - w), rand(-1, 1) * (1 - h)
        x = F.grid_sample(x, F.affine_grid(theta, (n, 3, side, side), align_corners=False), align_corners=False, padding_mode="reflection")
        c = lambda v: v.view(n, 1, 1, 1)
        gray = lambda x: (x * torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1)).sum(1, keepdim=True)
        y = (x * c(rand(0.6, 1.4))).clamp(0, 1)
        m = gray(y).mean((2, 3), keepdim=True)
        y = ((y - m) * c(rand(0.6, 1.4)) + m).clamp(0, 1)
        g = gray(y)
        y = ((y - g) * c(rand(0.6, 1.4)) + g).clamp(0, 1)
        x = torch.where(c(rand() < 0.8), y, x)
        x = torch.where(c(rand() < 0.2), gray(x).expand_as(x), x)
        return (x - mean) / std

    def encoder():
        net = torchvision.models.mobilenet_v3_large(weights=None)
        net.classifier = net.classifier[:2]
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.eps = 0.1, 1e-5
        return nn.Sequential(net, nn.Sequential(nn.Linear(1280, 2048), nn.ReLU(), nn.Linear(2048, 128))).to(device)

    query, key = encoder(), encoder()
    key.load_state_dict(query.state_dict())
    key.requires_grad_(False)
    own, slow = list(query.parameters()), list(key.parameters())
    optimizer = torch.optim.SGD(own, lr=lr, momentum=0.9, weight_decay=1e-4)
    queue, place = F.normalize(torch.randn(args.queue, 128, device=device), dim=1), 0
    per_epoch = len(train) // args.batch
    total, warm, step, start = args.epochs * per_epoch, 5 * per_epoch, 0, time.time()
    for _ in range(args.epochs):
        order = torch.randperm(len(train), device=device)
        for i in range(per_epoch):
            photos = train[order[i * args.batch:(i + 1) * args.batch]]
            for group in optimizer.param_groups:
                group["lr"] = lr * (step + 1) / warm if step < warm else lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            q = F.normalize(query(views(photos)), dim=1)
            with torch.no_grad():
                torch._foreach_mul_(slow, 0.99)
                torch._foreach_add_(slow, own, alpha=0.01)
                shuffle = torch.randperm(args.batch, device=device)
                k = F.normalize(key(views(photos)[shuffle]), dim=1)[shuffle.argsort()]
            similarities = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1)
            logs = (similarities / 0.1).log_softmax(1)
            near = similarities[:, 1:].detach().topk(keys, dim=1).indices + 1
            loss = -((1 - weight) * logs[:, 0] + weight * logs.gather(1, near).mean(1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            queue[(place + torch.arange(args.batch, device=device)) % args.queue] = k
            place, step = (place + args.batch) % args.queue, step + 1

    query.eval()
    with torch.no_grad():
        plain = lambda x: torch.cat([query[0]((F.interpolate(c, size=(side, side), mode="bilinear") - mean) / std) for c in x.split(512)])
        a, b = plain(train), plain(test)
        ua, ub = F.normalize(a, dim=1), F.normalize(b, dim=1)
        nearest = train_labels[(ub @ ua.T).topk(101, dim=1).indices]
        classes = int(train_labels.max()) + 1
        votes = lambda n: F.one_hot(nearest[:, :n], classes).sum(1).argmax(1)
        knn = max((votes(n) == test_labels).float().mean().item() for n in (1, 5, 11, 21, 51, 101))
    probe = nn.Linear(1280, classes).to(device)
    fit = torch.optim.LBFGS(probe.parameters(), max_iter=200)
    center, spread = a.mean(0), a.std(0) + 1e-6

    def close():
        fit.zero_grad()
        value = F.cross_entropy(probe((a - center) / spread), train_labels) + 1e-3 * probe.weight.square().sum()
        value.backward()
        return value

    fit.step(close)
    linear = (probe((b - center) / spread).argmax(1) == test_labels).float().mean().item()
    print(json.dumps({"weight": weight, "keys": keys, "lr": lr, "seed": args.seed, "knn": round(100 * knn, 2), "linear": round(100 * linear, 2),
                      "loss": round(loss.item(), 4), "seconds": round(time.time() - start)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs=2, type=Path)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--arm", type=float, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        return arm(args)
    waiting = [(seed, *a) for seed in range(args.seeds) for a in ARMS]
    running, rows = [], []
    while waiting or running:
        while waiting and len(running) < args.at_once:
            seed, *how = waiting.pop(0)
            command = [sys.executable, __file__, *map(str, args.data), "--seed", str(seed), "--arm", *map(str, how)]
            for flag in ("epochs", "batch", "queue", "side"):
                command += [f"--{flag}", str(getattr(args, flag))]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for process in [p for p in running if p.poll() is not None]:
            running.remove(process)
            text = process.stdout.read().strip()
            if process.returncode == 0 and text:
                rows.append(json.loads(text.splitlines()[-1]))
                print(text, flush=True)
                if args.out:
                    args.out.write_text(json.dumps(rows, indent=1))
        time.sleep(0.5)


if __name__ == "__main__":
    main()
