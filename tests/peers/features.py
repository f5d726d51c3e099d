"""Features of every network beside PyTorch (eager, compiled) and ONNX Runtime, all in one run.

    cargo build --release
    python tests/peers/features.py [NAME ...] [--binary target/release/seedling] [--threads 1 2] [--out FILE.json]

Networks are torchvision's, in evaluation mode, f32, on images in memory. PyTorch's are channels last. ONNX
Runtime computes the graph that `seedling convert --to onnx` writes of the same weights, with all its
optimizations, after two warm-up passes. Ours is `seedling bench`. Each measurement is a process of its own, the sides
take turns --rounds times, a process gives the rate of its fastest pass, and the table has the median of the
rounds; the ratio is ours to the best of the others. Needs torch, torchvision, onnxruntime, safetensors.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from networks import ROOT, last_json, network

NAMES = ["mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0"]
SIDES = ["eager", "compiled", "onnxruntime", "ours"]


def fastest(work, batch, seconds):
    work(), work()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return batch / min(times)


def pytorch(args, threads):
    import torch

    torch.set_num_threads(threads)
    net = network(args.names[0])[0].eval().to(memory_format=torch.channels_last)
    images = torch.randn(args.batch, 3, args.image_size, args.image_size).to(memory_format=torch.channels_last)
    look = torch.compile(net) if args.side == "compiled" else net
    with torch.inference_mode():
        return fastest(lambda: look(images), args.batch, args.seconds)


def onnx_runtime(args, threads):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(args.graph, options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((args.batch, 3, args.image_size, args.image_size), dtype=np.float32)
    return fastest(lambda: session.run(["features"], {"images": images}), args.batch, args.seconds)


def write_graph(args, name, folder):
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None)
    weights, graph = Path(folder, name + ".safetensors"), Path(folder, name + ".onnx")
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, weights)
    command = [args.binary, "convert", weights, "--to", "onnx", "--out", graph, "--image-size", args.image_size, "--arch", name]
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
    return graph


def measure(args, name, side, threads, graph):
    if side == "ours":
        command = [args.binary, "bench", "--json", "--arch", name, "--image-size", args.image_size, "--batch-size", args.batch,
                   "--bn-group", args.batch, "--threads", threads, "--seconds", args.seconds]
        return last_json(command)["features"]["fastest_images_per_second"]
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    command = [sys.executable, Path(__file__).resolve(), name, "--side", side, "--threads", threads, "--graph", graph,
               "--image-size", args.image_size, "--batch", args.batch, "--seconds", args.seconds]
    return last_json(command, environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "seedling"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--without-compiled", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=SIDES[:3], help=argparse.SUPPRESS)
    parser.add_argument("--graph", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        threads = args.threads[0]
        print(json.dumps((onnx_runtime if args.side == "onnxruntime" else pytorch)(args, threads)))
        return
    sides = [side for side in SIDES if side != "compiled" or not args.without_compiled]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names:
            graph = write_graph(args, name, folder)
            for threads in args.threads:
                found = {side: [] for side in sides}
                for _ in range(args.rounds):
                    for side in sides:
                        found[side].append(measure(args, name, side, threads, graph))
                        print(name, threads, side, f"{found[side][-1]:.1f}", file=sys.stderr, flush=True)
                rows.append((name, threads, {side: statistics.median(rates) for side, rates in found.items()}))
    print(f"images/s at {args.image_size} px, batch {args.batch}, f32\n")
    print("| network | threads | " + " | ".join(sides) + " | ratio |")
    print("|---" * (len(sides) + 3) + "|")
    for name, threads, row in rows:
        best = max(rate for side, rate in row.items() if side != "ours")
        print(f"| {name} | {threads} | " + " | ".join(f"{row[side]:.1f}" for side in sides) + f" | {row['ours'] / best:.2f} |")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
