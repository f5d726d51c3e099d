"""Writes probe.safetensors: PyTorch's linear probe, scikit-learn's t-SNE and Pillow's bicubic resizing.

    python tests/golden/probe.py

Numbers are by the formula of common.py; what is stored is what came out.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image
from safetensors.torch import save_file
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import TSNE, trustworthiness
from sklearn.manifold._t_sne import _joint_probabilities

from common import u
from views import picture

ROWS, DIM, CLASSES = 210, 24, 5
EPOCHS, BATCH, MILESTONES = 12, 64, [6, 9]
RATES = [0.3, 3.0]


def features(stream, rows):
    """Row i is of class i mod CLASSES."""
    centers = 2 * u(stream, CLASSES * DIM).reshape(CLASSES, DIM)
    noise = 3 * u(stream + 1, rows * DIM).reshape(rows, DIM)
    labels = np.arange(rows) % CLASSES
    return (centers[labels] + noise).astype(np.float32), labels


def linear_probe(rate, unit):
    """A layer trained on batches in the rows' order, in f64."""
    x, labels = features(20, ROWS)
    x, y = torch.from_numpy(x).double(), torch.from_numpy(labels)
    if unit:
        x = torch.nn.functional.normalize(x)
    layer = torch.nn.Linear(DIM, CLASSES).double()
    weight = (0.04 * u(22, CLASSES * DIM)).astype(np.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight).reshape(CLASSES, DIM))
        layer.bias.zero_()
    sgd = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    falls = torch.optim.lr_scheduler.MultiStepLR(sgd, MILESTONES, 0.1)
    for _ in range(EPOCHS):
        for first in range(0, ROWS, BATCH):
            rows = slice(first, first + BATCH)
            loss = torch.nn.functional.cross_entropy(layer(x[rows]), y[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        falls.step()
    return layer.weight.detach().float(), layer.bias.detach().float()


def shared_neighbors(a, b, near=10):
    def nearest(places):
        distances = squareform(pdist(places))
        np.fill_diagonal(distances, np.inf)
        return np.argsort(distances, axis=1)[:, :near]
    pairs = zip(nearest(a), nearest(b))
    return float(np.mean([len(set(x) & set(y)) / near for x, y in pairs]))


def main():
    tensors, figures = {}, {}
    for unit in (False, True):
        for i, rate in enumerate(RATES):
            weight, bias = linear_probe(rate, unit)
            tensors[f"linear/{int(unit)}/{i}/weight"] = weight.contiguous()
            tensors[f"linear/{int(unit)}/{i}/bias"] = bias

    # t-SNE of unit rows. There are fewer numbers than PCA keeps: it only turns them.
    x, _ = features(30, ROWS)
    x = x.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x -= x.mean(0)
    squared = squareform(pdist(x, "sqeuclidean")).astype(np.float32)
    p = squareform(_joint_probabilities(squared, 30, 0))
    tensors["tsne/p"] = torch.from_numpy(p).float().contiguous()
    model = TSNE(method="exact", init="pca", perplexity=30, random_state=0, max_iter=2000)
    places = model.fit_transform(x)
    tensors["tsne/map"] = torch.from_numpy(places).float().contiguous()
    figures["kl_divergence"] = float(model.kl_divergence_)
    # Neighbors that two of its own maps share: no third can be asked for more.
    other = TSNE(method="exact", init="random", perplexity=30, random_state=1, max_iter=2000)
    figures["shared"] = shared_neighbors(places, other.fit_transform(x))
    figures["trustworthiness"] = float(trustworthiness(x, places, n_neighbors=10))

    image = Image.fromarray(picture())
    cubic = F.InterpolationMode.BICUBIC
    cases = [([10, 3, 64, 64], 64), ([7, 11, 41, 29], 50), ([0, 0, 97, 71], 31),
             ([1, 2, 95, 67], 13), ([60, 60, 2, 3], 33)]
    for i, ((left, top, width, height), size) in enumerate(cases):
        out = F.resized_crop(image, top, left, height, width, [size, size], cubic, antialias=True)
        tensors[f"bicubic/{i}"] = torch.from_numpy(np.array(out)).contiguous()
    cut = F.center_crop(F.resize(image, 51, cubic, antialias=True), [45, 45])
    tensors["bicubic/evaluation"] = torch.from_numpy(np.array(cut)).contiguous()

    out = Path(__file__).with_suffix(".safetensors")
    save_file(tensors, out, metadata={"figures": json.dumps(figures), "cases": json.dumps(cases)})
    print(out, out.stat().st_size, figures)


if __name__ == "__main__":
    main()
