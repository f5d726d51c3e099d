"""Golden values for the panel of core/src/eval: python tests/golden/panel.py writes panel.safetensors beside itself.

Everything by scikit-learn: neighbors, average precision, nearest centroids and contingency tables. Draws of
labeled photos and clusters are stored, since no two programs draw alike.
"""
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.cluster import KMeans
from sklearn.metrics import average_precision_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import NearestCentroid, NearestNeighbors
from sklearn.preprocessing import normalize

rng = np.random.default_rng(11)
SHOTS = (1, 5)


def clustered(n, dim, classes, spread, centers):
    labels = rng.integers(0, classes, n)
    return (centers[labels] + spread * rng.normal(size=(n, dim))).astype(np.float32), labels


def ranking(index, labels, queries, truth, itself):
    near = NearestNeighbors(n_neighbors=10 + itself, algorithm="brute").fit(index)
    found = near.kneighbors(queries, return_distance=False)
    precision = []
    for query, row in enumerate(found):
        row = [j for j in row if not (itself and j == query)][:10]
        precision.append(np.mean(labels[row] == truth[query]))
    average = []
    for query in range(len(queries)):
        others = np.arange(len(index)) != query if itself else np.ones(len(index), bool)
        right = labels[others] == truth[query]
        if right.any():
            similarity = index[others] @ queries[query]
            average.append(average_precision_score(right, similarity))
    return 100 * float(np.mean(precision)), 100 * float(np.mean(average))


centers = rng.normal(size=(6, 20))
x, labels = clustered(260, 20, 6, 1.5, centers)
test, truth = clustered(80, 20, 6, 1.5, centers)
labels[7] = 6  # alone in its class: nothing is right for it
u, t = (normalize(v.astype(np.float64)) for v in (x, test))

figures, tensors = {}, {}
figures["precision_at_10"], figures["mean_average_precision"] = ranking(u, labels, u, labels, 1)
figures["test_precision_at_10"], figures["test_mean_average_precision"] = ranking(u, labels, t, truth, 0)
for shots in SHOTS:
    drawn = np.stack([rng.choice(np.where(labels == c)[0], shots, replace=False) for c in range(6)])
    model = NearestCentroid().fit(u[drawn.ravel()], np.repeat(np.arange(6), shots))
    tensors[f"drawn_{shots}"] = drawn.astype(np.uint32)
    tensors[f"predicted_{shots}"] = model.predict(t).astype(np.uint32)
clusters = KMeans(7, n_init=1, random_state=0).fit_predict(u)
table = contingency_matrix(labels, clusters)
figures["purity"] = 100 * float(table.max(0).sum() / table.sum())
tensors["clusters"] = clusters.astype(np.uint32)
best = [KMeans(7, n_init=1, random_state=seed).fit_predict(u) for seed in range(20)]
figures["kmeans_purity"] = float(
    np.mean([100 * contingency_matrix(labels, c).max(0).sum() / len(labels) for c in best])
)

save_file(
    {
        "x": x,
        "labels": labels.astype(np.uint32),
        "test": test,
        "truth": truth.astype(np.uint32),
        **tensors,
    },
    Path(__file__).with_suffix(".safetensors"),
    {"figures": json.dumps(figures)},
)
print(json.dumps(figures, indent=1))
