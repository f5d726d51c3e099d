"""Golden file of MoCo v2: tests/golden/moco.safetensors.

    python tests/golden/moco.py

Two runs, `asymmetric` (20 steps) and `symmetric` (6 steps), in f64, stored as f32. Weights and
images follow the formulas at the top of common.py.

The setting, both runs
    encoder     mobilenet_v3_small, batch norm eps 1e-3, momentum 0.1, no dropout, 32 x 32 images;
                then the head `wide`: projection_head.0 Linear(1024, 2048), ReLU,
                projection_head.2 Linear(2048, 128); then L2 normalization
    weights     by formula; entries = features.*, classifier.0.*, projection_head.*, so the head's
                four entries are the last four indices. The key encoder starts as a copy of the
                query encoder: parameters and running statistics
    batch       16 photos in 2 groups of 8, rows 0-7 and 8-15. A group is a device: it has its own
                batch statistics, and the running statistics are updated group after group
    loss        temperature 0.2, negatives from the queue, own photo masked (a queue row whose photo
                id equals the query's has logit -inf), cross-entropy averaged over the batch of 16
    optimizer   SGD, PyTorch's: g = grad + 0.01 * p; v = 0.9 * v + g (v = g at the first step);
                p -= 0.0001 * v; weight decay on every parameter; constant learning rate. (With a
                usual rate this network, whose last batch norms see 8 values a group, is chaotic:
                f32 and f64 part within three steps. The decay is large so that leaving it out
                shows.)
    key encoder key_momentum 0.9: key = 0.9 * key + 0.1 * query, parameters only, before the key
                forward (so with the query parameters as the previous step's SGD left them)
    images      step s = 1, 2, ...; view v = 0 (first), 1 (second): stream 100000 + 2 s + v,
                scale 2, NHWC, (16, 32, 32, 3); row b is the photo `photo_ids[s-1, b]`
    queue       unit rows; K = 40 (asymmetric) or 72 (symmetric). Initial rows: stream 200000,
                element row*128 + d, each row divided by its length; photo id -1 (masks nothing);
                write position 0. Enqueuing writes row by row at the position, modulo K

One step, asymmetric
    1. key parameters move towards the query's.
    2. keys: x = view 1; shuffled row i = x[key_permutation[s-1, 0, i]]; the key encoder, in
       training mode, encodes shuffled rows 0-7, then 8-15 (that order for its running statistics);
       the key of row key_permutation[s-1, 0, i] is the i-th encoded.
    3. queries: view 0, rows 0-7 then 8-15, training mode.
    4. logits = [query.key, query.queue] / 0.2 against the queue as it was before this step;
       loss; gradient.
    5. the 16 keys are enqueued in row order with their photo ids; SGD step.

One step, symmetric
    1. as above.
    2. keys of view 0 (shuffled by key_permutation[s-1, 0]), then keys of view 1 (shuffled by
       key_permutation[s-1, 1]), each in two groups: four group forwards of the key encoder.
    3. queries of view 0 (two groups) against the keys of view 1, then queries of view 1 (two
       groups) against the keys of view 0: four group forwards of the query encoder in that order.
       Loss = the mean of the two directions' losses. Both see the queue from before this step.
    4. enqueued: the 16 keys of view 0, then the 16 keys of view 1, in row order, with photo ids;
       SGD step.

Tensors, <run> = asymmetric | symmetric, T entries, steps S
    <run>.photo_ids         (S, 16) i64
    <run>.key_permutation   (S, 2, 16) i64    the asymmetric run uses [:, 0]
    <run>.loss              (S,)
    <run>.queue_photo_ids   (S, K) i64       after each step
    <run>.queue_position    (S,) i64         after each step
    <run>.queue_dot         (S,)             sum rows*u(300000, row*128 + d), after each step
    <run>.queue_sample      (S, 16)          the queue, flat, at floor(j * K*128 / 16)
    <run>.queue.step<NN>    (K, 128)         NN = 01, 05, 20 (symmetric: 01, 06)
    <run>.<encoder>.norm, .dot               (S, T)   after each step; encoder = query | key;
                            columns are the entries in order, dot with u(5555 + t, i)
    <run>.<encoder>.change_norm, .change_dot (S, T)   the same of (value - initial value): what
                            moved, which the norm of a weight hides
    <run>.<encoder>.sample.step<NN>          (T, 8)   elements floor(j * n / 8); entries of fewer
                            than 8 elements do not occur; NN = 01, 05, 10, 20 (symmetric 01, 06)

Metadata
    entries         JSON list of names in order
    config          JSON {batch_size, bn_group, lr, sgd_momentum, weight_decay, key_momentum,
                    temperature}
    f32_deviation   JSON {run: {...}}, one figure a step: what PyTorch's own f32 runs of the same
                    program differ by from the f64 one (the worst of three: oneDNN, plain kernels,
                    oneDNN channels last)
        loss            |difference|
        queue           largest |difference| of an element
        query, key      {"parameters": [d..], "parameters_worst": .., "buffers": ..,
                        "buffers_worst": ..}: |f32 - f64| / |change since the start| over all
                        parameters (running statistics) together, and the worst single tensor:
                        its |f32 - f64| / max(its |change|, all parameters' |change| / 1000).
                        0 where nothing has moved (key parameters at step 1)
Early on the parameters' figures are rounding: one step's change is 3e-5 of a weight. Tolerances:
loss and queue 4 times the largest figure of the run, at least 3e-5; the changes 4 times the
figure at that step, at least 2e-3 over all parameters and 2e-2 for the worst tensor (as above:
of max(its |change|, all parameters' |change| / 1000)); buffers at least 1e-4.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from common import (F32Runs, MobileNetV3, Trajectory, entry_values, fill, images, movement, rounded,
                    sample, u, unit_rows)
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
BATCH, MICROBATCH, DIM, PHOTOS = 16, 8, 128, 24
TEMPERATURE, LR, WEIGHT_DECAY, KEY_MOMENTUM = 0.2, 1e-4, 0.01, 0.9


def draws(steps):
    """The photo ids of each batch (no photo twice in one) and the key permutations."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.stack([torch.randperm(PHOTOS, generator=generator)[:BATCH] for _ in range(steps)])
    permutations = torch.stack([torch.stack([torch.randperm(BATCH, generator=generator) for _ in range(2)]) for _ in range(steps)])
    return ids, permutations


def in_microbatches(encoder, x):
    return torch.cat([encoder(group) for group in x.split(MICROBATCH)])


def encode_keys(encoder, x, permutation):
    """Keys of `x`, computed in groups of shuffled rows, returned in row order."""
    with torch.no_grad():
        shuffled = in_microbatches(encoder, x[permutation])
    keys = torch.empty_like(shuffled)
    keys[permutation] = shuffled
    return keys


def info_nce(query, key, queue, masked):
    positive = (query * key).sum(dim=1, keepdim=True)
    negative = (query @ queue.T).masked_fill(masked, -torch.inf)
    logits = torch.cat([positive, negative], dim=1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))


def train(symmetric, steps, queue_size, dtype, memory_format=torch.contiguous_format):
    """Yields (loss, queue, queue ids, position, query entries, key entries) after each step."""
    query_encoder, key_encoder = (MobileNetV3("small", head=(1024, 2048, DIM)) for _ in range(2))
    for encoder in (query_encoder, key_encoder):
        fill(encoder)
        encoder.to(dtype=dtype, memory_format=memory_format).train()
    optimizer = torch.optim.SGD(query_encoder.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    queue = unit_rows(200000, queue_size, DIM).to(dtype)
    queue_ids = torch.full((queue_size,), -1)
    position = 0
    for step, (ids, permutation) in enumerate(zip(*draws(steps)), start=1):
        views = [images(100000 + 2 * step + v, BATCH, 32, 32, 2.0).to(dtype=dtype, memory_format=memory_format) for v in (0, 1)]
        with torch.no_grad():
            for key, query in zip(key_encoder.parameters(), query_encoder.parameters()):
                key.mul_(KEY_MOMENTUM).add_(query, alpha=1 - KEY_MOMENTUM)
        masked = ids[:, None] == queue_ids[None, :]
        if symmetric:
            keys = [encode_keys(key_encoder, views[v], permutation[v]) for v in (0, 1)]
            losses = [info_nce(in_microbatches(query_encoder, views[v]), keys[1 - v], queue, masked) for v in (0, 1)]
            loss = (losses[0] + losses[1]) / 2
        else:
            keys = [encode_keys(key_encoder, views[1], permutation[0])]
            loss = info_nce(in_microbatches(query_encoder, views[0]), keys[0], queue, masked)
        optimizer.zero_grad()
        loss.backward()
        queue = queue.clone()
        for rows in keys:
            at = (position + torch.arange(BATCH)) % queue_size
            queue[at], queue_ids[at] = rows, ids
            position = (position + BATCH) % queue_size
        optimizer.step()
        yield (loss.item(), queue.double(), queue_ids.clone(), position,
               entry_values(query_encoder), entry_values(key_encoder))


def run(name, symmetric, steps, queue_size, queue_steps, sampled_steps, tensors):
    initial = MobileNetV3("small", head=(1024, 2048, DIM))
    names = fill(initial)
    start = entry_values(initial)
    trajectories = {encoder: Trajectory(start, sampled_steps) for encoder in ("query", "key")}
    figures = {"loss": [], "queue": [], "query": [], "key": []}
    columns = {k: [] for k in ("loss", "queue_photo_ids", "queue_position", "queue_dot", "queue_sample")}
    weights = torch.tensor(u(300000, queue_size * DIM)).reshape(queue_size, DIM)
    f32_runs = F32Runs(lambda layout: train(symmetric, steps, queue_size, torch.float32, layout))
    reference = train(symmetric, steps, queue_size, torch.float64)
    for step, (loss, queue, queue_ids, position, *encoders) in enumerate(reference, start=1):
        columns["loss"].append(torch.tensor(loss))
        columns["queue_photo_ids"].append(queue_ids)
        columns["queue_position"].append(torch.tensor(position))
        columns["queue_dot"].append((queue * weights).sum().float())
        columns["queue_sample"].append(sample(queue, 16, 0))
        if step in queue_steps:
            tensors[f"{name}.queue.step{step:02}"] = queue.float()
        others = f32_runs.step()
        figures["loss"].append(max(abs(o[0] - loss) for o in others))
        figures["queue"].append(max((o[1] - queue).abs().max().item() for o in others))
        for i, (encoder, entries) in enumerate(zip(("query", "key"), encoders)):
            trajectories[encoder].add(step, entries)
            each = [movement(names, start, entries, o[4 + i]) for o in others]
            figures[encoder].append({k: max(e[k] for e in each) for k in each[0]})
    ids, permutations = draws(steps)
    tensors[f"{name}.photo_ids"] = ids
    tensors[f"{name}.key_permutation"] = permutations
    for key, values in columns.items():
        tensors[f"{name}.{key}"] = torch.stack(values)
    for encoder, trajectory in trajectories.items():
        trajectory.write(f"{name}.{encoder}", tensors)
        figures[encoder] = {k: [d[k] for d in figures[encoder]] for k in figures[encoder][0]}
    print(name, "loss", [f"{v:.4f}" for v in columns["loss"]])
    return names, figures


def main():
    torch.set_num_threads(1)
    tensors, figures = {}, {}
    names, figures["asymmetric"] = run("asymmetric", False, 20, 40, (1, 5, 20), (1, 5, 10, 20), tensors)
    _, figures["symmetric"] = run("symmetric", True, 6, 72, (1, 6), (1, 6), tensors)
    path = HERE / "moco.safetensors"
    config = {"batch_size": BATCH, "bn_group": MICROBATCH, "lr": LR, "sgd_momentum": 0.9, "weight_decay": WEIGHT_DECAY,
              "key_momentum": KEY_MOMENTUM, "temperature": TEMPERATURE}
    save_file(tensors, path, metadata={"entries": json.dumps(names), "config": json.dumps(config), "f32_deviation": json.dumps(rounded(figures))})
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
    for name, figure in rounded(figures).items():
        print(name, json.dumps(figure))


if __name__ == "__main__":
    main()
