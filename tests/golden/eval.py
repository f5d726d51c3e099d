"""Golden values for core/src/eval: python tests/golden/eval.py writes eval.safetensors beside itself.

Distances by torch in f64; kNN by scikit-learn where no distances tie, by a stable sort elsewhere
(scikit-learn leaves the order of equally near rows open; ours takes the smaller row first).
"""
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.neighbors import KNeighborsClassifier

rng = np.random.default_rng(7)


def clustered(n, dim, classes, spread):
    centers = rng.normal(size=(classes, dim))
    labels = rng.integers(0, classes, n)
    return (centers[labels] + spread * rng.normal(size=(n, dim))).astype(np.float32), labels


def ks(available):
    return list(range(1, min(101, available) + 1, 2))


def unit(x):
    return torch.nn.functional.normalize(torch.as_tensor(x).double(), dim=1)


def sklearn_train_test(train, labels, test, truth, metric):
    out = []
    for k in ks(len(train)):
        model = KNeighborsClassifier(k, algorithm="brute", metric=metric)
        model.fit(train.astype(np.float64), labels)
        out.append(100 * float((model.predict(test.astype(np.float64)) == truth).mean()))
    return out


def brute_leave_one_out(x, labels):
    d = ((x[:, None, :].astype(np.float64) - x[None].astype(np.float64)) ** 2).sum(-1)
    np.fill_diagonal(d, np.inf)
    order = np.argsort(d, axis=1, kind="stable")
    out = []
    for k in ks(len(x) - 1):
        votes = [np.bincount(labels[row[:k]]).argmax() for row in order]  # argmax: smallest label
        out.append(100 * float((np.array(votes) == labels).mean()))
    return out


def instance_discrimination(plain, views, prepare):
    p = prepare(plain)
    d = torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(np.inf)
    rivals = d.min(1).values
    right = [((p - prepare(v)).norm(dim=1) < rivals).double().mean() for v in views]
    return 100 * float(torch.stack(right).mean())


def lidar(views):
    """Effective rank of the photos' scatter, whitened by that of the looks (Thilak et al. 2023)."""
    views = np.stack(views).astype(np.float64)
    n = views.shape[1]
    views = views[:, np.arange(min(n, 256)) * n // min(n, 256)]
    means = views.mean(0)
    centered = means - means.mean(0)
    _, s, vt = np.linalg.svd(centered, full_matrices=False)
    vt = vt[:100][s[:100] ** 2 > 1e-10 * s[0] ** 2]
    w = ((views - means) @ vt.T).reshape(-1, len(vt))
    scatter = w.T @ w / len(w)
    scatter += 1e-4 * np.trace(scatter) / len(vt) * np.eye(len(vt))
    values, vectors = np.linalg.eigh(scatter)
    e = np.linalg.svd(centered @ vt.T @ vectors / np.sqrt(values), compute_uv=False) ** 2
    p = e / e.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


x, labels = clustered(300, 24, 7, 1.6)
test, truth = clustered(90, 24, 7, 1.6)
truth = rng.integers(0, 7, 90)
center_of = {c: x[labels == c].mean(0) for c in range(7)}
test = np.stack([center_of[c] + 1.6 * rng.normal(size=24) for c in truth]).astype(np.float32)
view1 = (x + 1.6 * rng.normal(size=x.shape)).astype(np.float32)
view2 = (x + 1.6 * rng.normal(size=x.shape)).astype(np.float32)
grid = rng.integers(0, 3, (160, 3)).astype(np.float32)  # 27 places for 160 photos: ties, duplicates
grid_labels = rng.integers(0, 4, 160)

a, b = unit(view1), unit(view2)
u = unit(x)
pairwise = torch.pdist(u)
classes = []
for c in np.unique(labels):
    classes.append(torch.pdist(u[torch.as_tensor(labels == c)]).pow(2).mean())
centered = u - u.mean(0)
eig = torch.linalg.eigvalsh(centered.T @ centered / len(u))

figures = {
    "alignment": float((a - b).pow(2).sum(1).mean()),
    "uniformity": float(pairwise.pow(2).mul(-2).exp().mean().log()),
    "intra_class_alignment": float(torch.stack(classes).mean()),
    "instance_discrimination_euclidean": instance_discrimination(
        x, [view1, view2], lambda v: torch.as_tensor(v).double()
    ),
    "instance_discrimination_cosine": instance_discrimination(x, [view1, view2], unit),
    "lidar": lidar([x, view1, view2]),
    "std_ratio": float(u.std(0, correction=0).mean() * 24**0.5),
    "effective_rank": float(eig.sum() ** 2 / eig.pow(2).sum()),
    "largest_ratio": float(eig.max() / eig.sum()),
    "train_test_euclidean": sklearn_train_test(x, labels, test, truth, "euclidean"),
    "train_test_cosine": sklearn_train_test(x, labels, test, truth, "cosine"),
    "few_euclidean": sklearn_train_test(x[:40], labels[:40], test, truth, "euclidean"),
    "leave_one_out": brute_leave_one_out(x, labels),
    "grid_leave_one_out": brute_leave_one_out(grid, grid_labels),
}
save_file(
    {
        "x": x, "labels": labels.astype(np.uint32), "test": test, "truth": truth.astype(np.uint32),
        "view1": view1, "view2": view2, "grid": grid, "grid_labels": grid_labels.astype(np.uint32),
    },
    Path(__file__).with_suffix(".safetensors"),
    {"figures": json.dumps(figures)},
)
print(json.dumps({k: v for k, v in figures.items() if not isinstance(v, list)}, indent=1))
