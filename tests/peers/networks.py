"""Every network beside PyTorch in one run: a MoCo v2 step and features, speed and peak memory.

    cargo build --release
    python tests/peers/networks.py [NAME ...] [--binary target/release/seedling] [--threads 2] [--out FILE.json]

PyTorch: torchvision's network (DeiT: timm's, six heads), channels last, f32, head `simple`, queue 4,096, one
full batch; eager, and by torch.compile (both forward passes; its own time to compile does not count). Ours:
`seedling bench` with the same network, size, batch, queue and threads, in groups of --bn-group. The step is
query forward, key encoder update, key forward, loss, backward, SGD with momentum and weight decay, enqueue, on
images in memory; features are of one batch in evaluation mode, as ours are of `seedling bench`'s.

Each measurement is a process of its own; the sides take turns, --rounds times. A process gives the rate of its
fastest step; the table has the median of the rounds. Peak memory is the process's VmHWM after the steps; the
ratio is ours to the best of PyTorch's two.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "resnet18", "resnet50", "deit_tiny"]


def vm_hwm_mb():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def network(name):
    """The features of a network and their length."""
    import torch
    from torch import nn

    if name == "deit_tiny":
        import timm

        net = timm.create_model("deit_tiny_patch16_224", num_heads=6, num_classes=0, dynamic_img_size=True)
        for parameter in net.patch_embed.parameters():
            parameter.requires_grad = False
        return net, 192
    import torchvision

    net = getattr(torchvision.models, name)(weights=None)
    for module in net.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    if name.startswith("resnet"):
        width, net.fc = net.fc.in_features, nn.Identity()
    elif name == "efficientnet_b0":
        width, net.classifier = 1280, nn.Identity()
    else:
        width = net.classifier[0].out_features
        net.classifier = net.classifier[:2]
    return net, width


def pytorch(args):
    """PyTorch's side, in its own process: prints one JSON object."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    def encoder():
        net, width = network(args.names[0])
        head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))
        return nn.Sequential(net, head).to(memory_format=torch.channels_last).train()

    query_encoder, key_encoder = encoder(), encoder()
    key_encoder.load_state_dict(query_encoder.state_dict())
    key_encoder.requires_grad_(False)
    trained = [p for p in query_encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9, weight_decay=1e-4)
    queue = F.normalize(torch.randn(args.queue, 128), dim=1)
    shape = (args.batch, 3, args.image_size, args.image_size)
    views = [torch.randn(shape).to(memory_format=torch.channels_last) for _ in range(2)]
    target = torch.zeros(args.batch, dtype=torch.long)
    query, key, look = query_encoder, key_encoder, query_encoder[0]
    if args.side == "compiled":
        query, key, look = torch.compile(query), torch.compile(key), torch.compile(look)

    def step():
        q = F.normalize(query(views[0]), dim=1)
        with torch.no_grad():
            torch._foreach_mul_(list(key_encoder.parameters()), 0.999)
            torch._foreach_add_(list(key_encoder.parameters()), list(query_encoder.parameters()), alpha=0.001)
            shuffle = torch.randperm(args.batch)
            k = F.normalize(key(views[1][shuffle]), dim=1)[shuffle.argsort()]
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.2
        loss = F.cross_entropy(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        queue[: args.batch] = k

    def fastest(work):
        work(), work()
        times, end = [], time.perf_counter() + args.seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return args.batch / min(times)

    steps = fastest(step)
    memory = vm_hwm_mb()
    query_encoder.eval()
    with torch.no_grad():
        features = fastest(lambda: look(views[0]))
    print(json.dumps({"step": steps, "features": features, "memory_mb": memory}))


def last_json(command, environment=None):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args, name, side):
    if side == "ours":
        command = [args.binary, "bench", "--json", "--arch", name, "--image-size", args.image_size, "--batch-size", args.batch,
                   "--bn-group", args.bn_group, "--threads", args.threads, "--seconds", args.seconds, "--set", f"queue_size={args.queue}"]
        found = last_json(command)
        return {"step": found["moco_step"]["fastest_images_per_second"], "features": found["features"]["fastest_images_per_second"],
                "memory_mb": found["moco_step"]["peak_memory_mb"]}
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads))
    command = [sys.executable, Path(__file__).resolve(), name, "--side", side]
    for flag in ("threads", "image_size", "queue", "batch", "seconds"):
        command += ["--" + flag.replace("_", "-"), getattr(args, flag)]
    return last_json(command, environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "seedling"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bn-group", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--without-compiled", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=["eager", "compiled"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return pytorch(args)
    sides = ["eager", "ours"] if args.without_compiled else ["eager", "compiled", "ours"]
    rows = {}
    for name in args.names:
        found = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side in sides:
                found[side].append(measure(args, name, side))
                print(name, side, json.dumps(found[side][-1]), file=sys.stderr, flush=True)
        rows[name] = {side: {key: statistics.median(r[key] for r in all_rounds) for key in all_rounds[0]} for side, all_rounds in found.items()}
    print(f"{args.image_size} px, batch {args.batch}, {args.threads} threads, f32; ours in micro-batches of {args.bn_group}\n")
    print("| network | step: PyTorch eager, compiled | ours | ratio | features: eager, compiled | ours | ratio | MiB: PyTorch | ours | share |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        theirs = [row[side] for side in sides if side != "ours"]
        cells = [name]
        for key in ("step", "features"):
            best = max(r[key] for r in theirs)
            cells += [", ".join(f"{r[key]:.1f}" for r in theirs), f"{row['ours'][key]:.1f}", f"{row['ours'][key] / best:.2f}"]
        least = min(r["memory_mb"] for r in theirs)
        cells += [f"{least:.0f}", f"{row['ours']['memory_mb']:.0f}", f"{row['ours']['memory_mb'] / least:.2f}"]
        print("| " + " | ".join(cells) + " |")
    if args.out:
        args.out.write_text(json.dumps({"settings": {k: str(v) for k, v in vars(args).items()}, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
