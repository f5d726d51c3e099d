"""Golden values for the contrast that keeps initial neighbors, from autograd in f64.

Run: python tests/golden/neighbors.py   (writes neighbors.safetensors beside itself)

For query i of photo a, with keys k, queue Q of photos b and the album's initial rows u:
    w_j = softmax_j(u_a . u_bj / neighbor_temperature) over rows whose photo is known and not a
    loss_i = -(1 - weight) log s_0 - weight sum_j w_j log s_j,  s = softmax([q.k, q.Q] / temperature)
and the plain InfoNCE where no row of the queue qualifies. `masked` cases leave a's own keys out of
s. Photo 4294967295 is none; `nearest` cases instead have w_j = 1 / count for the `count` largest q.Q_j
that are not masked (a choice without a gradient); photo 3's initial row is zeros: nothing is known of it.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
NONE = 4294967295
N, SIZE, DIM, PHOTOS = 6, 14, 16, 7
TEMPERATURE, NEIGHBOR_TEMPERATURE = 0.1, 0.2


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


def case(weight, masked, queue_photos, count=None):
    q = QUERY.double().requires_grad_()
    logits = torch.cat([(q * KEY.double()).sum(1, keepdim=True), q @ QUEUE.double().T], 1) / TEMPERATURE
    own = torch.tensor([[b == a for b in queue_photos] for a in QUERY_PHOTOS])
    if masked:
        logits = logits.masked_fill(torch.cat([torch.zeros(N, 1, dtype=torch.bool), own], 1), -torch.inf)
    logs = logits.log_softmax(1)
    losses = []
    for i, a in enumerate(QUERY_PHOTOS):
        if count:
            best = [j for j in logits[i, 1:].argsort(descending=True)[:count] if logits[i, 1 + j] > -torch.inf]
            losses.append(-(1 - weight) * logs[i, 0] - weight * torch.stack([logs[i, j + 1] for j in best]).mean())
            continue
        known = [j for j, b in enumerate(queue_photos) if b not in (NONE, a, 3)] if a != 3 else []
        if not known:
            losses.append(-logs[i, 0])
            continue
        near = torch.stack([INITIAL[a].double() @ INITIAL[queue_photos[j]].double() for j in known])
        w = (near / NEIGHBOR_TEMPERATURE).softmax(0)
        losses.append(-(1 - weight) * logs[i, 0] - weight * (w * torch.stack([logs[i, j + 1] for j in known])).sum())
    losses = torch.stack(losses)
    losses.mean().backward()
    return {"losses": losses.detach().float(), "dquery": q.grad.float()}


QUERY, KEY, QUEUE, INITIAL = unit(N, DIM), unit(N, DIM), unit(SIZE, DIM), unit(PHOTOS, DIM)
INITIAL[3] = 0
QUERY_PHOTOS = [0, 1, 3, 2, 6, 1]
MIXED = [0, NONE, 1, 2, 3, 4, 5, 6, 1, 0, 2, NONE, 5, 4]
EMPTY = [NONE] * SIZE

tensors = {"query": QUERY, "key": KEY, "queue": QUEUE, "initial": INITIAL}
cases = []
for name, weight, masked, photos, count in [
    ("half", 0.5, True, MIXED, None),
    ("unmasked", 0.5, False, MIXED, None),
    ("all", 1.0, True, MIXED, None),
    ("little", 0.1, True, MIXED, None),
    ("empty", 0.5, True, EMPTY, None),
    ("nearest_one", 0.3, False, MIXED, 1),
    ("nearest_four", 0.5, True, MIXED, 4),
    ("nearest_all", 1.0, True, MIXED, 14),
]:
    for key, value in case(weight, masked, photos, count).items():
        tensors[f"{name}.{key}"] = value.contiguous()
    cases.append({"name": name, "weight": weight, "masked": masked, "queue_photos": photos, "count": count})
facts = {"cases": cases, "query_photos": QUERY_PHOTOS, "temperature": TEMPERATURE, "neighbor_temperature": NEIGHBOR_TEMPERATURE}
save_file(tensors, pathlib.Path(__file__).with_suffix(".safetensors"), metadata={"facts": json.dumps(facts)})
