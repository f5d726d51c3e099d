"""Which label-free figure orders adapted weights as best-NN does: runs, weight interpolations and sabotage.

    cargo build --release
    python tests/peers/criterion_study.py ALBUM [ALBUM ...] --runs RUN_LIST --out study.json
    python tests/peers/criterion_study.py --table study.json

For every album (a folder with class subfolders, used for measuring only) and every run (a list of
settings joined by commas over `adapt`'s defaults), `seedling adapt` trains from the base weights,
and the result is interpolated with the base with weights 0 to 1, batch-norm buffers alike. Every interpolation is one
case: its features of the plain photos and of two fixed random views give the label-free figures,
its labels best-NN (leave-one-out). The table shows, for each figure, the mean rank correlation
with best-NN within an album, how often "better than the base" is right, and the mean best-NN that
one gets by letting the figure choose among a run's interpolations (the base is always one of them).

PyTorch, torchvision, scikit-learn and scipy: a referee beside the program, no part of it.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = (0.25, 0.5, 0.75, 1.0)


def photos(album):
    files = sorted(p for p in album.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return files, np.unique([p.parent.name for p in files], return_inverse=True)[1]


def inputs(album, size):
    """Plain photos and two views of each, as bytes (3, n, 3, size, size), and labels."""
    import torch
    from PIL import Image
    from torchvision import transforms as T

    plain = T.Compose([T.Resize(size * 256 // 224), T.CenterCrop(size), T.PILToTensor()])
    view = T.Compose([
        T.RandomResizedCrop(size, (0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        T.RandomGrayscale(0.2),
        T.RandomHorizontalFlip(),
        T.PILToTensor(),
    ])
    torch.manual_seed(0)
    files, labels = photos(album)
    sets = ([], [], [])
    for file in files:
        photo = Image.open(file).convert("RGB")
        for out, look in zip(sets, (plain, view, view)):
            out.append(look(photo))
    return torch.stack([torch.stack(s) for s in sets]), labels


def features(state, images):
    import torch
    import torchvision

    model = torchvision.models.mobilenet_v3_small(weights=None)
    model.classifier = model.classifier[:2]
    model.load_state_dict(state)
    model.eval()
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
    with torch.inference_mode():
        parts = [model((x.float() / 255 - mean) / std) for x in images.split(50)]
    return torch.cat(parts).numpy().astype(np.float64)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def nearest(x, among, k, own=True):
    """Indices of the k nearest rows of `among` to each row of x, Euclidean, never its own photo."""
    d = (among**2).sum(1)[None] - 2 * x @ among.T
    if own:
        np.fill_diagonal(d, np.inf)
    return np.argsort(d, axis=1)[:, :k]


def best_nn(x, labels):
    order = nearest(x, x, min(101, len(x) - 1))
    best = 0
    for k in (1, 3, 5, 7, 9, 11, 15, 21, 31, 51, 101):
        votes = labels[order[:, :k]]
        counts = np.stack([(votes == c).sum(1) for c in range(labels.max() + 1)], 1)
        best = max(best, (counts.argmax(1) == labels).mean())
    return 100 * best


def overlap(a, b):
    return np.mean([len(set(x) & set(y)) / len(x) for x, y in zip(a, b)])


def spectrum(x):
    return np.linalg.svd(x - x.mean(0), compute_uv=False)


def lidar(views):
    """Effective rank of the discriminant between photos and views (Thilak et al. 2023)."""
    stack = np.stack(views)
    means = stack.mean(0)
    within = stack - means
    # In the space of the photos' means: at most as many directions as photos.
    _, s, vt = np.linalg.svd(means - means.mean(0), full_matrices=False)
    k = min(100, len(s))
    b = (means - means.mean(0)) @ vt[:k].T
    w = within.reshape(-1, within.shape[-1]) @ vt[:k].T
    cov_w = w.T @ w / len(w) + 1e-4 * np.trace(w.T @ w) / len(w) / k * np.eye(k)
    values, vectors = np.linalg.eigh(cov_w)
    white = b @ vectors / np.sqrt(np.maximum(values, 1e-12))
    e = np.linalg.svd(white, compute_uv=False) ** 2
    p = e / e.sum()
    return np.exp(-(p * np.log(p + 1e-12)).sum())


def figures(plain, first, second, base):
    """Every label-free figure of one case; larger is meant to be better."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    p, a, b = unit(plain), unit(first), unit(second)
    q = unit(base)
    n = len(p)
    found = {}
    sims = a @ p.T
    found["instance discrimination"] = np.mean(sims.argmax(1) == np.arange(n))
    found["- alignment"] = -np.mean(((a - b) ** 2).sum(1))
    g = np.exp(-2 * (2 - 2 * p @ p.T))
    found["- uniformity"] = -np.log((g.sum() - n) / (n * (n - 1)))
    found["- alignment - uniformity"] = found["- alignment"] + found["- uniformity"]
    s = spectrum(plain)
    w = s / s.sum()
    found["RankMe"] = np.exp(-(w * np.log(w + 1e-12)).sum())
    idx = np.arange(4, min(100, len(s)))
    found["- alpha-ReQ from 1"] = -abs(1 + np.polyfit(np.log(idx + 1), np.log(s[idx] ** 2 + 1e-12), 1)[0])
    found["LiDAR"] = lidar([plain, first, second])
    for k in (5, 15):
        own, was = nearest(p, p, k), nearest(q, q, k)
        found[f"neighbors shared with the base, {k}"] = overlap(own, was)
        seen, again = nearest(a, p, k), nearest(b, p, k)
        found[f"neighbors stable under views, {k}"] = (overlap(own, seen) + overlap(own, again)) / 2
        found[f"neighbors of two views agree, {k}"] = overlap(seen, again)
        found[f"base's neighbors seen from views, {k}"] = (overlap(was, seen) + overlap(was, again)) / 2
    clusters = max(2, int(np.sqrt(n / 2)))
    kmeans = KMeans(clusters, n_init=3, random_state=0).fit(p)
    found["clusters stable under views"] = np.mean(np.r_[kmeans.predict(a) == kmeans.labels_, kmeans.predict(b) == kmeans.labels_])
    of_base = KMeans(clusters, n_init=3, random_state=0).fit(q).labels_
    found["silhouette of the base's clusters"] = silhouette_score(p, of_base)
    found["silhouette of its own clusters"] = silhouette_score(p, kmeans.labels_)
    found["best-NN of the base's clusters"] = best_nn(p, of_base)
    # How much farther other photos lie than views: the gap that search needs.
    order = nearest(p, p, 15)
    near = np.mean([p[i] @ p[order[i]].T for i in range(n)])
    found["neighbors near, rest far"] = near - (p @ p.T).mean()
    return found


def cases(args, album, run, folder, seen):
    import torch
    from safetensors.torch import load_file

    out = Path(folder) / f"{album.name}-{run.replace('=', '_').replace(',', '-')}"
    command = [args.binary, "adapt", str(album), "--out", str(out), "--threads", str(args.threads), "-q", "--init", str(args.base)]
    command += [] if run == "default" else [part for setting in run.split(",") for part in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{' '.join(command)}\n{done.stderr}", flush=True)
        return
    images, labels = seen
    base, adapted = load_file(args.base), load_file(str(out / "weights.safetensors"))
    adapted = {k: v.float() if v.is_floating_point() else v for k, v in adapted.items()}
    base = {k: v.float() if v.is_floating_point() else v for k, v in base.items()}
    for weight in WEIGHTS:
        state = {k: torch.lerp(base[k], v, weight) if v.is_floating_point() else v for k, v in adapted.items()}
        plain, first, second = (features(state, x) for x in images)
        yield {"album": album.name, "run": run, "weight": weight, "best_nn": best_nn(plain, labels), **figures(plain, first, second, args.of_base[album])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("albums", type=Path, nargs="*")
    parser.add_argument("--base", help="weights to start from")
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "seedling"))
    parser.add_argument("--runs", nargs="+", default=["default"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, nargs="+")
    args = parser.parse_args()
    if args.table:
        table([json.loads(line) for file in args.table for line in file.read_text().splitlines()])
        return
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    torch.set_num_threads(args.threads)
    args.of_base = {}
    base = {k: v.float() if v.is_floating_point() else v for k, v in load_file(args.base).items()}
    with safe_open(args.base, "pt") as file:
        size = int(file.metadata()["image_size"])
    with tempfile.TemporaryDirectory() as folder, open(args.out, "a") as log:
        write = lambda case: print(json.dumps(case), file=log, flush=True)
        seen = {}
        for album in args.albums:
            seen[album] = inputs(album, size)
            plain, first, second = (features(base, x) for x in seen[album][0])
            args.of_base[album] = plain
            write({"album": album.name, "run": "base", "weight": 0.0, "best_nn": best_nn(plain, seen[album][1]), **figures(plain, first, second, plain)})
        for run in args.runs:
            for album in args.albums:
                for case in cases(args, album, run, folder, seen[album]):
                    write(case)
                    print({k: case[k] for k in ("album", "run", "weight", "best_nn")}, flush=True)


def table(rows):
    from scipy.stats import spearmanr

    names = [k for k in rows[0] if k not in ("album", "run", "weight", "best_nn")]
    albums = sorted({r["album"] for r in rows})
    base = {a: next(r for r in rows if r["album"] == a and r["run"] == "base") for a in albums}
    tried = [r for r in rows if r["run"] != "base"]
    runs = sorted({(r["album"], r["run"]) for r in tried})
    print(f"{len(tried)} cases of {len(runs)} runs on {len(albums)} albums\n")
    print("| figure | rank correlation | " + " | ".join(albums) + " | better than the base? right | chosen interpolation: mean gain | worst |")
    print("|---|---|" + "---|" * len(albums) + "---|---|---|")

    def line(name, value):
        rho = []
        for a in albums:
            here = [r for r in tried if r["album"] == a]
            rho.append(spearmanr([value(r) for r in here], [r["best_nn"] for r in here])[0])
        right, gains = [], []
        for r in tried:
            d = r["best_nn"] - base[r["album"]]["best_nn"]
            if d:
                right.append((value(r) > value(base[r["album"]])) == (d > 0))
        for a, run in runs:
            options = [base[a]] + [r for r in tried if (r["album"], r["run"]) == (a, run)]
            gains.append(max(options, key=value)["best_nn"] - base[a]["best_nn"])
        print(f"| {name} | {np.mean(rho):+.2f} | " + " | ".join(f"{x:+.2f}" for x in rho) + f" | {100 * np.mean(right):.0f} % | {np.mean(gains):+.1f} | {min(gains):+.1f} |")

    line("(best-NN itself)", lambda r: r["best_nn"])
    line("(always all of it)", lambda r: r["weight"])
    for name in names:
        line(name, lambda r: r[name])
    print("\n| album | run | " + " | ".join(f"{s:.0%}" for s in (0.0, *WEIGHTS)) + " |\n|---|---|" + "---|" * 5)
    for a, run in runs:
        mine = {r["weight"]: r["best_nn"] for r in tried if (r["album"], r["run"]) == (a, run)}
        print(f"| {a} | {run} | {base[a]['best_nn']:.1f} | " + " | ".join(f"{mine.get(s, float('nan')):.1f}" for s in WEIGHTS) + " |")


if __name__ == "__main__":
    main()
