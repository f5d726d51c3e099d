"""A MoCo v2 step on a GPU beside PyTorch's on the same GPU, both measured in this run.

    cargo build --release -p seedling-server --features gpu
    python tests/peers/gpu_step.py [--program target/release/seedling] [--device cuda] [--out gpu.json]

Networks: MobileNetV3 Large and Small at 224 px, batch 512 (whole-batch statistics on both sides), head
`simple`, queue 65,536; with --quick only Large in bf16. Ours: `seedling bench --device`, bf16 and tf32. PyTorch:
torchvision's networks, channels last, bf16 autocast and f32 with TF32 products, eager and compiled. Both do the
same work on images that are already in the GPU's memory: query forward, the key encoder's average, key forward,
loss, backward, SGD with momentum and weight decay, enqueue. What ours does where images are sent at each step
stands beside it.

Each side is a process of its own, so that each has the whole GPU. A rate is that of the fastest step. Ours
is measured first, for every network; then PyTorch's as long as there is time. Where PyTorch or a GPU for it is
missing, only ours is measured, and that is said. Ends with 1 where something that was begun has failed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

CASES = [(network, precision) for precision in ["bf16", "tf32"] for network in ["mobilenet_v3_large", "mobilenet_v3_small"]]
# Seconds for one figure: kernels are compiled the first time, and cuDNN tries what is fastest.
LONGEST = {"ours": 150, "eager": 120, "compiled": 180}
QUEUE = 65_536


def torch_step(args):
    """PyTorch's side, in its own process: one JSON object on the last line."""
    import torch
    import torch.nn.functional as F
    import torchvision

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    gpu = torch.device("cuda")

    def encoder():
        net = getattr(torchvision.models, args.network)(weights=None)
        features = net.classifier[0].out_features
        head = [torch.nn.Linear(features, features), torch.nn.ReLU(), torch.nn.Linear(features, 128)]
        net.classifier = torch.nn.Sequential(net.classifier[0], net.classifier[1], *head)
        return net.to(gpu, memory_format=torch.channels_last).train()

    query_encoder, key_encoder = encoder(), encoder()
    key_encoder.load_state_dict(query_encoder.state_dict())
    key_encoder.requires_grad_(False)
    optimizer = torch.optim.SGD(query_encoder.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4)
    queue = F.normalize(torch.randn(QUEUE, 128, device=gpu), dim=1)
    shape = (args.batch, 3, args.image_size, args.image_size)
    views = [torch.randn(shape, device=gpu).to(memory_format=torch.channels_last) for _ in range(2)]
    target = torch.zeros(args.batch, dtype=torch.long, device=gpu)
    position = 0

    def both(first, second):
        with torch.autocast("cuda", torch.bfloat16, enabled=args.precision == "bf16"):
            query = query_encoder(first)
            with torch.no_grad():
                key = key_encoder(second)
        query, key = F.normalize(query.float(), dim=1), F.normalize(key.float(), dim=1)
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / 0.2
        return F.cross_entropy(logits, target), key

    run = torch.compile(both) if args.compiled else both

    def step():
        nonlocal position
        with torch.no_grad():
            torch._foreach_mul_(list(key_encoder.parameters()), 0.999)
            torch._foreach_add_(list(key_encoder.parameters()), list(query_encoder.parameters()), alpha=0.001)
        shuffle = torch.randperm(args.batch, device=gpu)
        loss, key = run(views[0], views[1][shuffle])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        queue[(position + torch.arange(args.batch, device=gpu)) % QUEUE] = key[shuffle.argsort()].detach()
        position = (position + args.batch) % QUEUE
        torch.cuda.synchronize()

    for _ in range(4):
        step()
    torch.cuda.reset_peak_memory_stats()
    times = []
    begun = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < args.seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({
        "images_per_second": args.batch / min(times),
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }))


def last_json(command, seconds, until):
    """The JSON on a command's last line, or what went wrong; nothing is begun that has no time left."""
    seconds = min(seconds, until - time.monotonic())
    if seconds < 10:
        return {"left_out": "no time was left"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {seconds:.0f} s"}
    except OSError as error:
        return {"failed": str(error)}
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {"failed": "said nothing that can be read"}


def has_torch():
    """Whether python3 has PyTorch with a GPU, or why not."""
    probe = "import torch; assert torch.cuda.is_available(), 'PyTorch sees no GPU'"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["PyTorch does not start"])[-1]


def devices(args):
    """What the GPU and its driver call themselves."""
    ask = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    for command in [ask, [args.program, "devices"]]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    return "?"


def measure(args):
    until = time.monotonic() + args.limit
    cases = CASES[:1] if args.quick else CASES
    rows = [{"network": network, "precision": precision} for network, precision in cases]
    found = {"gpu": devices(args), "image_size": args.image_size, "batch": args.batch, "rows": rows}

    def keep(row, side, command):
        row[side] = last_json(command, LONGEST[side], until)
        print(json.dumps({"network": row["network"], "precision": row["precision"], side: row[side]}), flush=True)
        args.out.write_text(json.dumps(found, indent=1))

    for row in rows:
        keep(row, "ours", [
            args.program, "bench", "--json", "--arch", row["network"], "--image-size", str(args.image_size),
            "--batch-size", str(args.batch), "--bn-group", str(args.batch), "--device", args.device,
            "--seconds", str(args.seconds), "--set", f"queue_size={QUEUE}",
            "--set", f"precision={row['precision']}", "--set", f"device_mb={args.device_mb}",
        ])
    missing = has_torch()
    for side in ["eager", "compiled"]:
        for row in rows:
            if missing:
                row[side] = {"left_out": missing}
                continue
            command = [sys.executable, __file__, "--part", "torch", "--network", row["network"],
                       "--precision", row["precision"], "--batch", str(args.batch),
                       "--image-size", str(args.image_size), "--seconds", str(args.seconds)]
            keep(row, side, command + ["--compiled"] * (side == "compiled"))
    args.out.write_text(json.dumps(found, indent=1))
    return found


def table(args, found):
    """The table in Markdown, and whether everything that was begun has gone well."""
    print(f"\n{found['gpu']}: a MoCo v2 step at {found['image_size']} px, batch {found['batch']}, {args.device}, "
          "images a second of the fastest step\n")
    print("| network | precision | ours | PyTorch eager | compiled | ours / best | images sent | ours MB | PyTorch MB "
          "| launches | host ms | two views, photos/s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    said, well = [], True
    show = lambda x, digits=0: "-" if x is None else f"{x:.{digits}f}"
    for row in found["rows"]:
        ours, step = row["ours"], row["ours"].get("moco_step", {})
        gpu, sent = step.get("gpu") or {}, row["ours"].get("moco_step_images_sent") or {}
        speed = step.get("fastest_images_per_second")
        others = [row[side].get("images_per_second") for side in ["eager", "compiled"]]
        best = max((other for other in others if other), default=None)
        views = ours.get("views", {}).get("photos_per_second_on_gpu")
        peak = min((row[side]["peak_mb"] for side in ["eager", "compiled"] if "peak_mb" in row[side]), default=None)
        cells = [row["network"], row["precision"], show(speed), *map(show, others),
                 show(speed / best if speed and best else None, 2), show(sent.get("fastest_images_per_second")),
                 show(gpu.get("peak_mb")), show(peak), show(gpu.get("launches_per_step")),
                 show(gpu.get("host_ms_per_step"), 1), show(views)]
        print("| " + " | ".join(cells) + " |")
        for side in ["ours", "eager", "compiled"]:
            for why in ["failed", "left_out"]:
                if why in row[side]:
                    said.append(f"{row['network']} {row['precision']} {side} {why.replace('_', ' ')}: {row[side][why]}")
                    well &= why == "left_out"
    print("\n" + "\n".join(said))
    return well


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/seedling")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--device-mb", type=int, default=0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--limit", type=float, default=270, help="seconds for all of it")
    parser.add_argument("--quick", action="store_true", help="only MobileNetV3-Large in bf16")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--part", choices=["torch"], help=argparse.SUPPRESS)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "torch":
        return torch_step(args)
    if not table(args, measure(args)):
        sys.exit(1)


if __name__ == "__main__":
    main()
