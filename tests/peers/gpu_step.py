"""A MoCo v2 step on a GPU beside PyTorch's on the same GPU, both measured in this run.

    cargo build --release -p seedling-server --features gpu
    python tests/peers/gpu_step.py [--program target/release/seedling] [--device cuda] [--out gpu.json]

Networks: MobileNetV3 Small and Large at 224 px, batch 512 (whole-batch statistics on both sides), head
`simple`, queue 65,536. Ours: `seedling bench --device`, f32 and bf16. PyTorch: torchvision's networks,
channels last, f32 (TF32 products allowed) and bf16 autocast, eager and compiled. Both do the same work
on images that are already in the GPU's memory (ours are sent each step, which counts): query forward,
the key encoder's average, key forward, loss, backward, SGD with momentum and weight decay, enqueue.

Each side is a process of its own, so that each has the whole GPU. A rate is that of the fastest step.
Where PyTorch or a GPU for it is missing, only ours is measured, and that is said.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

NETWORKS = ["mobilenet_v3_small", "mobilenet_v3_large"]
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
        return {"failed": "no time was left"}
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


def measure(args):
    rows, until = [], time.monotonic() + args.limit
    for network in NETWORKS:
        for precision in ["f32", "bf16"]:
            ours = last_json([
                args.program, "bench", "--json", "--arch", network, "--image-size", str(args.image_size),
                "--batch-size", str(args.batch), "--bn-group", str(args.batch), "--device", args.device,
                "--seconds", str(args.seconds), "--set", f"queue_size={QUEUE}", "--set", f"precision={precision}",
                "--set", f"device_mb={args.device_mb}",
            ], 60, until)
            row = {"network": network, "precision": precision, "ours": ours}
            for compiled in [False, True]:
                command = [sys.executable, __file__, "--part", "torch", "--network", network, "--precision", precision,
                           "--batch", str(args.batch), "--image-size", str(args.image_size), "--seconds", str(args.seconds)]
                row["compiled" if compiled else "eager"] = last_json(command + ["--compiled"] * compiled, 90, until)
            rows.append(row)
            print(json.dumps(row), flush=True)
            args.out.write_text(json.dumps({"image_size": args.image_size, "batch": args.batch, "rows": rows}, indent=1))
    return rows


def table(args, rows):
    print(f"\nMoCo step, {args.image_size} px, batch {args.batch}, {args.device}, images a second of the fastest step:\n")
    print("| network | precision | ours | PyTorch eager | compiled | ours / best | ours MB | PyTorch MB | launches | host ms | views/s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    failed = []
    for row in rows:
        ours, step = row["ours"], row["ours"].get("moco_step", {})
        gpu = step.get("gpu") or {}
        speed = step.get("fastest_images_per_second")
        others = [row[side].get("images_per_second") for side in ["eager", "compiled"]]
        best = max((other for other in others if other), default=None)
        show = lambda x, digits=0: "-" if x is None else f"{x:.{digits}f}"
        views = ours.get("views", {}).get("photos_per_second_on_gpu")
        peak = min((row[side]["peak_mb"] for side in ["eager", "compiled"] if "peak_mb" in row[side]), default=None)
        cells = [row["network"], row["precision"], show(speed), *map(show, others),
                 show(speed / best if speed and best else None, 2), show(gpu.get("peak_mb")), show(peak),
                 show(gpu.get("launches_per_step")), show(gpu.get("host_ms_per_step"), 1), show(views)]
        print("| " + " | ".join(cells) + " |")
        for side in ["ours", "eager", "compiled"]:
            if "failed" in row[side]:
                failed.append(f"{row['network']} {row['precision']} {side}: {row[side]['failed']}")
    print("\n" + "\n".join(failed))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/seedling")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--device-mb", type=int, default=0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--limit", type=float, default=270, help="seconds for all of it")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--part", choices=["torch"], help=argparse.SUPPRESS)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "torch":
        return torch_step(args)
    table(args, measure(args))


if __name__ == "__main__":
    main()
