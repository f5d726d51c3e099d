"""The closed form and the index by the panel, over albums with class folders; nothing is trained.

    python -m venv venv && venv/bin/pip install torch torchvision safetensors numpy pillow
    venv/bin/python tests/peers/closed_form_study.py ALBUM [ALBUM ...] --cache features/ [--part linear index tta]

Features are torchvision's from models/, of the photo and of its mirror image, kept in --cache. Every figure is a
change against the shipped weights' plain features, in points: the mean over albums, and the worst album in
parentheses. Parts:

    linear   linear layers fitted to one half of an album and asked about the other half, alone (two halvings);
             at the end the choice that each album's absence would make (leave-one-album-out) and what it gives
             on that album
    index    the whole album, leave-one-out: neighbor averages and diffusion behind the layer
    outside  one half is the index, the other half asks
    tta      several views of a photo, and two networks
"""
import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from safetensors.torch import load_file

MODELS = Path(__file__).parents[2] / "models"
FIGURES = ["best-NN", "P@10", "mAP", "1-shot", "5-shot"]
DRAWS = 20


# Features

def network(arch):
    weights = load_file(MODELS / f"{arch}.safetensors")
    model = getattr(torchvision.models, arch)(weights=None)
    model.classifier = model.classifier[:2]
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return model.eval()


def view(path, size):
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    transform = torchvision.transforms.Compose([
        torchvision.transforms.Resize((size * 256 + 112) // 224),
        torchvision.transforms.CenterCrop(size),
        torchvision.transforms.ToTensor(),
        torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])
    return transform(photo)


def features(album, arch, size, cache):
    """(plain, mirrored, labels)"""
    file = cache / f"{album.name}-{arch}-{size}.npz"
    if not file.exists():
        paths = sorted(p for p in album.glob("*/*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
        model, rows = network(arch), []
        with torch.inference_mode():
            for start in range(0, len(paths), 32):
                images = torch.stack([view(p, size) for p in paths[start:start + 32]])
                rows.append(torch.stack([model(images), model(images.flip(3))], 1))
        classes = sorted({p.parent.name for p in paths})
        labels = np.array([classes.index(p.parent.name) for p in paths])
        both = torch.cat(rows).numpy()
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, plain=both[:, 0], mirrored=both[:, 1], labels=labels)
    found = np.load(file)
    return found["plain"].astype(float), found["mirrored"].astype(float), found["labels"]


# The panel

def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def best_nn(order, labels, truth):
    votes, best = np.zeros((len(truth), labels.max() + 1)), 0
    for k in range(min(101, order.shape[1])):
        votes[np.arange(len(truth)), labels[order[:, k]]] += 1
        if k % 2 == 0:
            best = max(best, (votes.argmax(1) == truth).mean())
    return 100 * best


def panel(index, labels, queries=None, truth=None, euclidean=None):
    """The five figures of unit rows: leave-one-out, or of queries. Best-NN of `euclidean`, where given."""
    alone = queries is None
    queries, truth = (index, labels) if alone else (queries, truth)

    def order(near):
        if alone:
            np.fill_diagonal(near, -np.inf)
        order = np.argsort(-near, axis=1, kind="stable")
        return order[:, :-1] if alone else order

    ranked = order(queries @ index.T)
    right = labels[ranked] == truth[:, None]
    precision = right.cumsum(1) / np.arange(1, right.shape[1] + 1)
    known = right.any(1)
    average = ((precision * right).sum(1)[known] / right.sum(1)[known]).mean()
    by = ranked
    if euclidean is not None:
        by = order(2 * euclidean @ euclidean.T - (euclidean ** 2).sum(1)[None])
    rng, shots = np.random.RandomState(0), []
    for count in (1, 5):
        found = []
        for _ in range(DRAWS):
            rows = [np.where(labels == c)[0] for c in np.unique(labels)]
            rows = [r for r in rows if len(r) > count - (not alone)]
            drawn = [rng.choice(r, count, replace=False) for r in rows]
            means = np.stack([index[d].mean(0) for d in drawn])
            classes = np.array([labels[d[0]] for d in drawn])
            asked = np.isin(truth, classes)
            if alone:
                asked[np.concatenate(drawn)] = False
            near = queries[asked] @ means.T - (means ** 2).sum(1) / 2
            found.append((classes[near.argmax(1)] == truth[asked]).mean())
        shots.append(100 * np.mean(found))
    return np.array([best_nn(by, labels, truth), 100 * right[:, :10].mean(), 100 * average, *shots])


# Linear layers

def components(x, k):
    mean = x.mean(0)
    _, s, v = np.linalg.svd(x - mean, full_matrices=False)
    k = min(k, len(x) - 1)
    return mean, v[:k].T, s[:k] ** 2 / len(x)


def exponent(p, k):
    """z = score / lambda^(p/2): 0 is centering, 1 whitening."""
    def fit(x, _):
        mean, v, variance = components(x, k)
        return lambda q: unit((q - mean) @ v / variance ** (p / 2))
    return fit


def neighbors(z, k):
    near = z @ z.T
    np.fill_diagonal(near, -np.inf)
    chosen = np.zeros(near.shape, bool)
    np.put_along_axis(chosen, np.argpartition(-near, k, axis=1)[:, :k], True, 1)
    return np.maximum(near, 0), chosen


def within(k=128, shrink=1.0, power=1.0, graph=1.0, mirror=1.0, near=10):
    """core/src/whitening/within.rs"""
    def fit(x, mirrored):
        mean, v, variance = components(x, k)
        scores = (x - mean) @ v
        size = len(variance)
        r = shrink * np.eye(size) / size
        if graph:
            seen = unit(scores[:, :64] / variance[:64] ** 0.125)
            weights, chosen = neighbors(seen, near)
            weights = weights * (chosen & chosen.T)
            scatter = scores.T @ (np.diag(weights.sum(1)) - weights) @ scores
            r = r + graph * scatter / max(np.trace(scatter), 1e-12)
        if mirror:
            difference = (x - mirrored) @ v
            scatter = difference.T @ difference
            r = r + mirror * scatter / max(np.trace(scatter), 1e-12)
        values, vectors = np.linalg.eigh(r)
        root = vectors @ np.diag(values ** (-power / 2)) @ vectors.T
        return lambda q: unit((q - mean) @ v @ root)
    return fit


# The index

def averaged(z, k, power):
    weights, chosen = neighbors(z, k)
    return unit(z + (weights ** power * (chosen & chosen.T)) @ z)


def diffusion(z, k, alpha):
    """y and the degrees; core/src/index/graph.rs"""
    weights, chosen = neighbors(z, k)
    weights = weights * (chosen | chosen.T)
    degree = np.maximum(weights.sum(1), 1e-12)
    ties = weights / np.sqrt(degree[:, None] * degree[None])
    return np.linalg.solve(np.eye(len(z)) - alpha * ties, z), degree


def asked(queries, z, y, degree, k, alpha):
    near = queries @ z.T
    chosen = np.argpartition(-near, k, axis=1)[:, :k]
    weights = np.maximum(np.take_along_axis(near, chosen, 1), 0)
    ties = weights / np.sqrt(np.maximum(weights.sum(1), 1e-12)[:, None] * degree[chosen])
    return unit(queries + alpha * (ties[:, :, None] * y[chosen]).sum(1))


# The tables

def row(name, changes):
    changes = np.array(changes)
    cells = " | ".join(f"{m:+.1f} ({w:+.1f})" for m, w in zip(changes.mean(0), changes.min(0)))
    print(f"| {name} | {cells} |", flush=True)
    return changes


def heading(title):
    print(f"\n{title}\n\n| | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}", flush=True)


def halves(n):
    for seed in range(2):
        order = np.random.RandomState(seed).permutation(n)
        yield order[:n // 2], order[n // 2:]


def linear(albums):
    def gains(fit):
        found = []
        for x, mirrored, labels in albums:
            each = []
            for a, b in halves(len(x)):
                after = panel(fit(x[a], mirrored[a])(x[b]), labels[b])
                each.append(after - panel(unit(x[b]), labels[b], euclidean=x[b]))
            found.append(np.mean(each, 0))
        return found

    heading("Linear layers, fitted to one half, on the other half alone")
    row("cosine", gains(lambda x, _: unit))
    for p, k in [(0, 128), (0.25, 32), (0.25, 64), (0.25, 128), (0.5, 64), (0.5, 128), (1, 128)]:
        row(f"exponent {p}, {k} components", gains(exponent(p, k)))
    choices = {}
    for k, shrink, power, near in itertools.product((64, 128), (0.3, 1.0), (0.5, 1.0), (5, 10)):
        for graph, mirror in ((1, 0), (0, 1), (1, 1)):
            if not graph and near != 10:
                continue
            name = f"within: {'neighbors ' + str(near) if graph else ''}{' and ' if graph and mirror else ''}" \
                   f"{'mirror' if mirror else ''}, {k} components, shrinkage {shrink}, power {power}"
            choices[name] = row(name, gains(within(k, shrink, power, graph, mirror, near)))
    # What the others choose, and what that gives on the one left out: gains, less what an album loses beyond 1.
    table = np.stack(list(choices.values()))
    score = table.mean(2) - np.maximum(-1 - table.min(2), 0)
    picked = []
    for album in range(len(albums)):
        others = np.delete(score, album, 1).mean(1)
        picked.append(int(others.argmax()))
    row("chosen by the other albums", [table[p, a] for a, p in enumerate(picked)])
    for p in sorted(set(picked)):
        print(f"chosen {picked.count(p)} times: {list(choices)[p]}")


def index(albums):
    plain = [panel(unit(x), labels, euclidean=x) for x, _, labels in albums]
    fitted = [within()(x, mirrored) for x, mirrored, _ in albums]
    one = [f(x) for f, (x, _, _) in zip(fitted, albums)]
    two = [unit(f(x) + f(m)) for f, (x, m, _) in zip(fitted, albums)]

    def gains(rows, change):
        return [panel(change(z), a[2]) - p for z, a, p in zip(rows, albums, plain)]

    for title, rows in (("one view", one), ("two views", two)):
        heading(f"The index, leave-one-out, {title}")
        row("the layer alone", gains(rows, lambda z: z))
        for k, power in ((5, 3), (10, 1), (10, 3), (10, 5)):
            row(f"mutual neighbors of {k}, similarity^{power}", gains(rows, lambda z: averaged(z, k, power)))
        for k, alpha in itertools.product((5, 10), (0.3, 0.4, 0.5, 0.8)):
            row(f"diffusion, {k} neighbors, alpha {alpha}",
                gains(rows, lambda z: unit(diffusion(z, k, alpha)[0])))


def outside(albums):
    def gains(alpha, k, views):
        found = []
        for x, mirrored, labels in albums:
            each = []
            for a, b in halves(len(x)):
                fit = within()(x[a], mirrored[a])
                see = (lambda i: unit(fit(x[i]) + fit(mirrored[i]))) if views == 2 else (lambda i: fit(x[i]))
                z, q = see(a), see(b)
                if alpha:
                    y, degree = diffusion(z, 10, alpha)
                    z, q = unit(y), asked(q, z, y, degree, k, alpha)
                before = panel(unit(x[a]), labels[a], unit(x[b]), labels[b])
                each.append(panel(z, labels[a], q, labels[b]) - before)
            found.append(np.mean(each, 0))
        return found

    heading("One half is the index and fits the layer, the other half asks (against plain cosine)")
    for views in (1, 2):
        row(f"the layer alone, views {views}", gains(0, 0, views))
        for alpha, k in ((0.3, 5), (0.4, 5), (0.4, 10), (0.5, 5)):
            row(f"diffusion {alpha}, query and its {k} nearest, views {views}", gains(alpha, k, views))


def views(paths, cache):
    small, large = "mobilenet_v3_small", "mobilenet_v3_large"
    sizes = (128, 160, 192, 224)
    all_of = {(a, s): [features(p, a, s, cache) for p in paths] for a in (small, large) for s in sizes}
    base = all_of[small, 160]
    plain = [panel(unit(x), labels, euclidean=x) for x, _, labels in base]

    def seen(arch, sides, mirrors):
        rows = []
        for i in range(len(paths)):
            fit = within()(*all_of[arch, 160][i][:2])
            rows.append(unit(sum(fit(all_of[arch, s][i][m]) for s in sides for m in range(mirrors))))
        return rows

    heading("Looks and networks behind the layer, leave-one-out; then diffused (alpha 0.4)")
    for name, archs in (("Small", [small]), ("Large", [large]), ("Small and Large", [small, large])):
        for title, sides, mirrors in (("1 view", (160,), 1), ("2 views", (160,), 2), ("8 views", sizes, 2)):
            parts = [seen(arch, sides, mirrors) for arch in archs]
            rows = [unit(np.concatenate(p, 1)) for p in zip(*parts)]
            of = lambda change: [panel(change(z), b[2]) - p for z, b, p in zip(rows, base, plain)]
            row(f"{name}, {title}", of(lambda z: z))
            row(f"{name}, {title}, diffused", of(lambda z: unit(diffusion(z, 10, 0.4)[0])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("albums", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--part", nargs="+", default=["linear", "index", "outside", "tta"])
    args = parser.parse_args()
    torch.set_num_threads(2)
    albums = [features(album, "mobilenet_v3_small", 160, args.cache) for album in args.albums]
    for part in args.part:
        if part == "tta":
            views(args.albums, args.cache)
        else:
            {"linear": linear, "index": index, "outside": outside}[part](albums)


if __name__ == "__main__":
    main()
