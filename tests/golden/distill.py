"""Golden file of SEED distillation: tests/golden/distill.safetensors.

    python tests/golden/distill.py

20 steps in f64, stored as f32. Weights and images follow the formulas at the top of common.py.

    student     mobilenet_v3_small, batch norm eps 1e-3, momentum 0.1, no dropout, 32 x 32 images;
                then the head `simple`: projection_head.0 Linear(1024, 1024), ReLU,
                projection_head.2 Linear(1024, 128); then L2 normalization. Weights by formula,
                entries = features.*, classifier.0.*, projection_head.*
    images      step s = 1..20: stream 100000 + 2 s, scale 2, NHWC, (16, 32, 32, 3)
    teacher     no network: its embeddings at step s are the unit rows `teacher[s-1]` (16, 128),
                stored (four loose clusters, so that the soft targets are soft)
    queue       40 rows of teacher embeddings; the first content is `queue_initial`, stored; write
                position 0; enqueuing writes row by row at the position, modulo 40
    groups      rows 0-7 and 8-15: own batch statistics, running statistics group after group
    loss        t = the teacher's row, s = the student's, Q = the queue before this step:
                p = softmax([t.t, t.Q] / 0.01), q = log_softmax([s.t, s.Q] / 0.2),
                -sum p q, averaged over the batch of 16. No photo is masked (SEED has no such rule)
    then        t is enqueued (16 rows in order); SGD as in moco.py: g = grad + 0.01 p;
                v = 0.9 v + g; p -= 0.0001 v, on every parameter

Tensors, T entries
    teacher (20, 16, 128), queue_initial (40, 128)
    loss (20,), queue_position (20,) i64 after each step, queue.step20 (40, 128)
    student_embedding.step<NN>  (16, 128)   of steps 01 and 20, before the update
    student.norm, .dot, .change_norm, .change_dot   (20, T)   as in moco.py
    student.sample.step<NN>     (T, 8)      NN = 01, 05, 10, 20, as in moco.py
Metadata
    entries, config (JSON {batch_size, bn_group, lr, sgd_momentum, weight_decay,
    student_temperature, teacher_temperature}), f32_deviation: JSON {"loss": [...], "embedding": [largest |difference|...],
    "student": {...}}, as in moco.py, with the same rule for tolerances (embedding as its queue).
"""

import json
from pathlib import Path

import torch
from common import F32Runs, MobileNetV3, Trajectory, entry_values, f32, fill, images, movement, rounded, u
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
STEPS, BATCH, MICROBATCH, DIM, QUEUE = 20, 16, 8, 128, 40
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE, LR, WEIGHT_DECAY = 0.2, 0.01, 1e-4, 0.01


def clustered(stream, rows):
    """Unit rows, row r near center r mod 4."""
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)
    centers = unit(torch.tensor(u(400000, 4 * DIM)).reshape(4, DIM))
    noise = unit(torch.tensor(u(stream, rows * DIM)).reshape(rows, DIM))
    return f32(unit(centers[torch.arange(rows) % 4] + 0.15 * noise).numpy())


def teacher_rows():
    return torch.stack([clustered(400000 + step, BATCH) for step in range(1, STEPS + 1)])


def distill_loss(student, teacher, queue):
    targets = torch.cat([(teacher * teacher).sum(1, keepdim=True), teacher @ queue.T], dim=1)
    logits = torch.cat([(student * teacher).sum(1, keepdim=True), student @ queue.T], dim=1)
    p = torch.softmax(targets / TEACHER_TEMPERATURE, dim=1)
    return -(p * torch.log_softmax(logits / STUDENT_TEMPERATURE, dim=1)).sum(dim=1).mean()


def train(dtype, memory_format=torch.contiguous_format):
    """Yields (loss, embeddings, queue, position, entries) after each step."""
    student = MobileNetV3("small", head=(1024, 1024, DIM))
    fill(student)
    student.to(dtype=dtype, memory_format=memory_format).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    queue, position = clustered(500000, QUEUE).to(dtype), 0
    for step, teacher in enumerate(teacher_rows().to(dtype), start=1):
        x = images(100000 + 2 * step, BATCH, 32, 32, 2.0).to(dtype=dtype, memory_format=memory_format)
        embeddings = torch.cat([student(group) for group in x.split(MICROBATCH)])
        loss = distill_loss(embeddings, teacher, queue)
        optimizer.zero_grad()
        loss.backward()
        queue = queue.clone()
        queue[(position + torch.arange(BATCH)) % QUEUE] = teacher
        position = (position + BATCH) % QUEUE
        optimizer.step()
        yield loss.item(), embeddings.detach().double(), queue.double(), position, entry_values(student)


def main():
    torch.set_num_threads(1)
    initial = MobileNetV3("small", head=(1024, 1024, DIM))
    names = fill(initial)
    start = entry_values(initial)
    trajectory = Trajectory(start, (1, 5, 10, 20))
    tensors = {"teacher": teacher_rows().float(), "queue_initial": clustered(500000, QUEUE).float()}
    losses, positions, figures = [], [], {"loss": [], "embedding": [], "student": []}
    f32_runs = F32Runs(lambda layout: train(torch.float32, layout))
    for step, (loss, embeddings, queue, position, entries) in enumerate(train(torch.float64), start=1):
        losses.append(loss)
        positions.append(position)
        trajectory.add(step, entries)
        if step in (1, STEPS):
            tensors[f"student_embedding.step{step:02}"] = embeddings.float()
        others = f32_runs.step()
        figures["loss"].append(max(abs(o[0] - loss) for o in others))
        figures["embedding"].append(max((o[1] - embeddings).abs().max().item() for o in others))
        each = [movement(names, start, entries, o[4]) for o in others]
        figures["student"].append({k: max(e[k] for e in each) for k in each[0]})
    figures["student"] = {k: [d[k] for d in figures["student"]] for k in figures["student"][0]}
    tensors["loss"], tensors["queue_position"] = torch.tensor(losses), torch.tensor(positions)
    tensors["queue.step20"] = queue.float()
    trajectory.write("student", tensors)
    path = HERE / "distill.safetensors"
    config = {"batch_size": BATCH, "bn_group": MICROBATCH, "lr": LR, "sgd_momentum": 0.9, "weight_decay": WEIGHT_DECAY,
              "student_temperature": STUDENT_TEMPERATURE, "teacher_temperature": TEACHER_TEMPERATURE}
    save_file(tensors, path, metadata={"entries": json.dumps(names), "config": json.dumps(config), "f32_deviation": json.dumps(rounded(figures))})
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB; loss", [f"{v:.4f}" for v in losses])
    print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
