"""Our curves and PyTorch's in one picture.

    python tests/peers/learn_plot.py --torch OUT/curves.json ... --ours RUN ... --out learning.png
        [--measure leave_one_out_euclid] [--evals FILE.json ...]

--torch: files of learn_distill.py or learn_moco.py. --ours: run folders (or their metrics.jsonl):
every line is one JSON object; `step` with `loss` gives the loss, `step` or `epoch` with `best_nn`
(or `knn.best_nn`, or the key named by --our-measure) the measurement. --evals: further points of ours,
`{"step": S, "seed": N, "best_nn": P}` one a line. Left: loss, each run thin and the mean of a side
thick (smoothed over --smooth steps); right: the measurement, mean and range of a side's seeds.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLORS = {"PyTorch": "#d1495b", "Seedling": "#00798c"}


def read_torch(path, measure):
    data = json.loads(Path(path).read_text())
    return list(enumerate(data["loss"], start=1)), [(e["step"], e[measure]) for e in data["evals"]]


def pick(record, *keys):
    for key in keys:
        value = record
        for part in [key] if key in record else key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, (int, float)):
            return value
    return None


def read_ours(path, key):
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    losses, points = [], []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        step = pick(record, "step")
        if step is None:
            continue
        loss, value = pick(record, "loss"), pick(record, key, "best_nn", "knn.best_nn")
        if loss is not None:
            losses.append((step, loss))
        if value is not None:
            points.append((step, value))
    return losses, points


def smooth(values, width):
    width = max(1, min(width, len(values)))
    return np.convolve(values, np.ones(width) / width, mode="valid")


def draw(runs, out, smoothing, title, label):
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    for side, curves in runs.items():
        color = COLORS[side]
        losses = [c[0] for c in curves if c[0]]
        for loss in losses:
            steps, values = np.array(loss).T
            left.plot(steps[len(steps) - len(smooth(values, smoothing)):], smooth(values, smoothing), color=color, alpha=0.3, linewidth=0.8)
        if losses:
            length = min(len(loss) for loss in losses)
            mean = smooth(np.mean([[v for _, v in loss[:length]] for loss in losses], axis=0), smoothing)
            steps = [s for s, _ in losses[0][:length]][length - len(mean):]
            left.plot(steps, mean, color=color, linewidth=2, label=f"{side} ({len(losses)} seeds)")
        by_step = defaultdict(list)
        for _, points in curves:
            for step, value in points:
                by_step[step].append(value)
        if by_step:
            steps = sorted(by_step)
            mean = [np.mean(by_step[s]) for s in steps]
            right.plot(steps, mean, "o-", color=color, markersize=3, label=f"{side}, end {mean[-1]:.1f}")
            right.fill_between(steps, [min(by_step[s]) for s in steps], [max(by_step[s]) for s in steps], color=color, alpha=0.2)
    left.set(xlabel="step", ylabel="loss", title=title)
    right.set(xlabel="step", ylabel="%", title=label)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(out, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", nargs="*", default=[])
    parser.add_argument("--ours", nargs="*", default=[])
    parser.add_argument("--evals", nargs="*", default=[])
    parser.add_argument("--measure", default="leave_one_out_euclid")
    parser.add_argument("--our-measure", default="best_nn")
    parser.add_argument("--smooth", type=int, default=15)
    parser.add_argument("--title", default="training loss")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    runs = {"PyTorch": [read_torch(p, args.measure) for p in args.torch],
            "Seedling": [read_ours(p, args.our_measure) for p in args.ours + args.evals]}
    draw({side: curves for side, curves in runs.items() if curves}, args.out, args.smooth, args.title, f"best-NN, {args.measure.replace('_', ' ')}")
    print(args.out)


if __name__ == "__main__":
    main()
