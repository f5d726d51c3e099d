"""Speed and peak memory of one MoCo v2 step beside PyTorch, both measured in this run.

    cargo build --release
    python tests/peers/moco_step.py [--binary target/release/seedling] [--threads 2] [--out FILE.json]

PyTorch: torchvision's MobileNetV3-Large, eager, channels last, f32, head `simple`
(1280-1280-128), queue 4,096, one full batch (statistics over the whole batch). Ours:
`seedling bench` with the same network, size, batch, queue and threads, in groups of --bn-group. Both
do the same work on images that are already in memory: query forward, key encoder update, key
forward, loss, backward, SGD with momentum and weight decay, enqueue.

Also two aug+ views of one photo at 224 px on one core: torchvision on Pillow images, from the
decoded photo and with decoding, beside our `views` figure.

Each measurement is a fresh process, the two sides alternate `--rounds` times, and the table shows
the median of the rounds; a process gives the rate of its fastest step, because what else a machine
does only ever adds time. Peak memory is the process's own VmHWM; for PyTorch the memory of the
imports alone is shown too, so that nothing hides in the ratio.
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


def vm_hwm_mb():
    """This process's peak resident memory in MiB, the unit of `seedling bench`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def torch_step(args):
    """PyTorch's side, in its own process: prints one JSON object."""
    import torch
    import torch.nn.functional as F
    import torchvision

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    imports_mb = vm_hwm_mb()

    def encoder():
        net = torchvision.models.mobilenet_v3_large(weights=None)
        head = torch.nn.Sequential(torch.nn.Linear(1280, 1280), torch.nn.ReLU(), torch.nn.Linear(1280, 128))
        net.classifier = torch.nn.Sequential(net.classifier[0], net.classifier[1], head)
        return net.to(memory_format=torch.channels_last).train()

    query_encoder, key_encoder = encoder(), encoder()
    key_encoder.load_state_dict(query_encoder.state_dict())
    key_encoder.requires_grad_(False)
    optimizer = torch.optim.SGD(query_encoder.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    queue = F.normalize(torch.randn(args.queue, 128), dim=1)
    shape = (args.batch, 3, args.image_size, args.image_size)
    views = [torch.randn(shape).to(memory_format=torch.channels_last) for _ in range(2)]
    target = torch.zeros(args.batch, dtype=torch.long)
    position = 0

    def step():
        nonlocal position
        query = F.normalize(query_encoder(views[0]), dim=1)
        with torch.no_grad():
            torch._foreach_mul_(list(key_encoder.parameters()), 0.999)
            torch._foreach_add_(list(key_encoder.parameters()), list(query_encoder.parameters()), alpha=0.001)
            shuffle = torch.randperm(args.batch)
            key = F.normalize(key_encoder(views[1][shuffle]), dim=1)[shuffle.argsort()]
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / 0.2
        loss = F.cross_entropy(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        queue[(position + torch.arange(args.batch)) % args.queue] = key
        position = (position + args.batch) % args.queue

    for _ in range(args.warm_up):
        step()
    times = []
    for _ in range(args.steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({"images_per_second": args.batch / min(times), "peak_memory_mb": vm_hwm_mb(), "imports_mb": imports_mb}))


def torch_views(args):
    """Two aug+ views a photo, one thread; photos a second from decoded images and from files."""
    import random

    import torch
    from PIL import Image, ImageFilter
    from torchvision import transforms as T

    torch.set_num_threads(1)

    class Blur:
        def __call__(self, image):
            return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    view = T.Compose([
        T.RandomResizedCrop(args.image_size, scale=(0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.4)], p=0.8),
        T.RandomGrayscale(p=0.5),
        T.RandomApply([Blur()], p=0.5),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])
    files = sorted(args.photos.glob("**/*.jpg"))[:200]
    photos = [Image.open(f).convert("RGB") for f in files]

    def rate(get):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < args.seconds:
            photo = get(done % len(files))
            view(photo), view(photo)
            done += 1
        return done / (time.perf_counter() - start)

    rate(lambda i: photos[i])
    print(json.dumps({"decoded": rate(lambda i: photos[i]), "with_decoding": rate(lambda i: Image.open(files[i]).convert("RGB"))}))


def last_json(command, environment=None):
    """Runs a command and parses the last line of its stdout; its own peak memory comes along."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    result = json.loads(output.strip().splitlines()[-1])
    result["ru_maxrss_mb"] = usage.ru_maxrss / 1024
    return result


def ours(args, batch):
    command = [args.binary, "bench", "--json", "--arch", "mobilenet_v3_large", "--image-size", str(args.image_size), "--batch-size", str(batch),
               "--bn-group", str(args.bn_group), "--threads", str(args.threads), "--set", f"queue_size={args.queue}"]
    command += [str(args.photos)] if args.photos.exists() else []
    return last_json(command + args.bench_arguments.split())


def measure(args):
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads))
    me = [sys.executable, str(Path(__file__).resolve())]
    common = ["--threads", str(args.threads), "--image-size", str(args.image_size), "--queue", str(args.queue), "--steps", str(args.steps), "--warm-up", str(args.warm_up)]
    have_binary = Path(args.binary).exists()
    if not have_binary:
        print(f"{args.binary} is missing: PyTorch only")
    rounds = []
    for number in range(args.rounds):
        for batch in args.batches:
            row = {"round": number, "batch": batch, "torch": last_json(me + ["--part", "step", "--batch", str(batch)] + common, environment)}
            if have_binary:
                row["ours"] = ours(args, batch)
            rounds.append(row)
            print(json.dumps(row), flush=True)
    if args.photos.exists():
        one = dict(os.environ, OMP_NUM_THREADS="1")
        views = last_json(me + ["--part", "views", "--photos", str(args.photos), "--image-size", str(args.image_size)], one)
    else:
        views = None
    return rounds, views


def table(args, rounds, views):
    median = lambda rows, side, *keys: statistics.median(_dig(r[side], keys) for r in rows)
    lines = [f"MobileNetV3-Large, {args.image_size} px, {args.threads} threads, f32, queue {args.queue}; PyTorch: full batch, ours: micro-batches of {args.bn_group}",
             f"{'':12}{'torch img/s':>12}{'ours img/s':>12}{'ratio':>8}{'torch MB':>10}{'ours MB':>10}{'share':>8}"]
    summary = {}
    for batch in args.batches:
        rows = [r for r in rounds if r["batch"] == batch]
        speed, memory = median(rows, "torch", "images_per_second"), median(rows, "torch", "peak_memory_mb")
        entry = summary[f"batch_{batch}"] = {"torch_images_per_second": speed, "torch_peak_memory_mb": memory}
        line = f"batch {batch:<6}{speed:>12.1f}"
        if "ours" in rows[0]:
            our_speed = median(rows, "ours", "moco_step", "fastest_images_per_second")
            our_memory = max(median(rows, "ours", "moco_step", "peak_memory_mb"), 0.0)
            entry |= {"ours_images_per_second": our_speed, "ours_peak_memory_mb": our_memory, "speed_ratio": our_speed / speed,
                      "memory_share": our_memory / memory, "ours_process_maxrss_mb": median(rows, "ours", "ru_maxrss_mb")}
            line += f"{our_speed:>12.1f}{our_speed / speed:>7.2f}x{memory:>10.0f}{our_memory:>10.0f}{our_memory / memory:>8.2f}"
        else:
            line += f"{'':>12}{'':>8}{memory:>10.0f}"
        lines.append(line)
    lines.append(f"PyTorch's imports alone: {median(rounds, 'torch', 'imports_mb'):.0f} MB")
    if views:
        summary["views"] = dict(views)
        line = f"two aug+ views, one core: torchvision + Pillow {views['decoded']:.1f} photos/s ({views['with_decoding']:.1f} with decoding)"
        if "ours" in rounds[0]:
            our_views = median(rounds, "ours", "views", "photos_per_second_per_core")
            summary["views"] |= {"ours": our_views, "ratio": our_views / views["decoded"], "ratio_with_decoding": our_views / views["with_decoding"]}
            line += f", ours {our_views:.1f}: {our_views / views['decoded']:.2f}x"
        lines.append(line)
    return "\n".join(lines), summary


def _dig(value, keys):
    for key in keys:
        value = value[key]
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "seedling"))
    parser.add_argument("--bench-arguments", default="", help="further arguments for `seedling bench`")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--bn-group", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--photos", type=Path, default=ROOT.parent / "shared" / "data" / "photos")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=["step", "views"], help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        return torch_step(args) if args.part == "step" else torch_views(args)
    rounds, views = measure(args)
    text, summary = table(args, rounds, views)
    print(text)
    if args.out:
        args.out.write_text(json.dumps({"summary": summary, "rounds": rounds, "views": views, "threads": args.threads, "bn_group": args.bn_group}, indent=1))


if __name__ == "__main__":
    main()
