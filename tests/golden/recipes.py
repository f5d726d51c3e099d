"""Writes recipes.safetensors: losses and gradients of CompRess, BINGO, SimDis and DisCo, by PyTorch in f64.

    python tests/golden/recipes.py

Rows are by the formula of common.py, scaled to unit length; what is stored is what came out.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from common import u

N, DIM, SIZE, BATCH = 5, 16, 11, 8


def rows(stream, count):
    x = (2 * u(stream, count * DIM)).astype(np.float32).reshape(count, DIM).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return torch.from_numpy(x.astype(np.float32)).double()


def compress(q, t, own_queue, teacher_queue):
    """Cross-entropy of softmax(q.Q_s / 0.1) to softmax(t.Q_t / 0.04), summed and divided by the batch."""
    p = torch.softmax(t @ teacher_queue.T / 0.04, 1)
    return -(p * torch.log_softmax(q @ own_queue.T / 0.1, 1)).sum() / BATCH


def regression(q, t, weight):
    """weight * |q - t|^2 of unit rows, as 2 - 2 q.t: what points along q is lost where q is normalized."""
    return weight * (2 - 2 * (q * t).sum(1)).sum() / BATCH


def contrast(q, k, queue):
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.2
    return torch.nn.functional.cross_entropy(logits, torch.zeros(N, dtype=torch.long), reduction="sum") / BATCH


def main():
    t, k = rows(61, N), rows(62, N)
    own, teachers = rows(63, SIZE), rows(64, SIZE)
    losses = {
        "compress": lambda q: compress(q, t, own, teachers),
        # Of a photo, and of one from its bag.
        "bingo": lambda q: contrast(q, t, teachers) + contrast(q, k, teachers),
        "simdis": lambda q: regression(q, t, 1.0),
        "disco": lambda q: contrast(q, k, own) + regression(q, t, 0.3),
    }
    tensors = {}
    for name, loss in losses.items():
        q = rows(60, N).requires_grad_()
        found = loss(q)
        found.backward()
        tensors[f"{name}.loss"] = found.detach().float().reshape(1)
        tensors[f"{name}.grad"] = q.grad.float().contiguous()
    out = Path(__file__).with_suffix(".safetensors")
    save_file(tensors, out)
    print(out, out.stat().st_size)


if __name__ == "__main__":
    main()
