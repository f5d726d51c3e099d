"""Recipe (a) in PyTorch: SEED distillation of the ImageNet teacher into MobileNetV3-Small.

    python tests/peers/learn_distill.py PHOTOS --out OUT [--epochs 12] [--seed 0] [--device cuda]

PHOTOS: Caltech-101 without the album (8,144 photos). 128 px, batch 64, lr 0.1 with 50 steps of
warm-up and cosine per step, SGD momentum 0.9, weight decay 1e-4; teacher features (of the same
view) minus their mean over the first 1,024 photos' views, projected to 128 by a fixed random matrix,
unit length; queue 4,096 (random at first); temperatures 0.2 and 0.01; standard views; the head
`wide` (1024-2048-128) and linear layers from N(0, sqrt(2 / inputs)), as `seedling distill` has
them by default. The schedule spans --epochs, so 2 and 12 epochs are two runs. Ours:

    seedling distill PHOTOS --teacher ... --teacher-arch mobilenet_v2 --epochs 12 --seed 0 --out RUN
        --set image_size=128 --set batch_size=64 --set bn_group=64 --set queue_size=4096
        --set lr=0.1 --set warmup_steps=50 --set measure_every=1
"""

import argparse
import sys

import torch
from learning import IMAGENET, ROOT, SHARED, LabeledPhotos, Curves, Encoder, common_arguments, learning_rate, loader, normalize, photo_files, prepare

sys.path.insert(0, str(ROOT / "tests" / "peers"))
from mobilenet_v2_teacher import load_teacher  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("--teacher", default=SHARED / "weights" / "mobilenet_v2_imagenet.safetensors")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--warm-up", type=int, default=50, help="steps")
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--head", choices=["linear", "simple", "wide"], default="wide")
    common_arguments(parser)
    args = parser.parse_args()
    device = prepare(args)

    files = photo_files(args.photos)
    batches = loader(files, args.image_size, 1, args.batch_size, args.workers, args.seed)
    album = LabeledPhotos(args.album, args.image_size, args.preprocessing)
    teacher = load_teacher(args.teacher).to(device, memory_format=torch.channels_last)
    student = Encoder({"linear": 0, "simple": 1024, "wide": 2048}[args.head], args.dropout, args.linear_init).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(12345 + args.seed)
    projection = torch.randn(1280, 128, generator=generator).to(device) / 1280**0.5
    queue = torch.nn.functional.normalize(torch.randn(args.queue, 128, generator=generator), dim=1).to(device)
    position = 0

    @torch.no_grad()
    def teacher_features(x):
        return teacher((x * 2 - 1).to(memory_format=torch.channels_last))

    seen = []
    for x, _ in batches:
        seen.append(teacher_features(x[:, 0].to(device)))
        if len(seen) * args.batch_size >= min(1024, len(files) - args.batch_size):
            break
    mean = torch.cat(seen).mean(dim=0)

    curves = Curves(args.out / "curves.json", "distill", args)
    curves.measured(0, album.measure(student, device))
    steps = args.epochs * len(batches)
    step = 0
    for epoch in range(1, args.epochs + 1):
        for x, _ in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr, args.warm_up)
            x = x[:, 0].to(device)
            t = torch.nn.functional.normalize((teacher_features(x) - mean) @ projection, dim=1)
            s = student(normalize(x, *IMAGENET).to(memory_format=torch.channels_last))
            target = torch.softmax(torch.cat([(t * t).sum(1, keepdim=True), t @ queue.T], 1) / 0.01, 1)
            logits = torch.cat([(s * t).sum(1, keepdim=True), s @ queue.T], 1) / 0.2
            loss = -(target * torch.log_softmax(logits, 1)).sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            queue[(position + torch.arange(len(t), device=device)) % args.queue] = t
            position = (position + len(t)) % args.queue
            curves.data["loss"].append(loss.item())
            step += 1
            if step == args.steps:
                break
        stop = step == args.steps
        if stop or epoch % args.measure_every == 0 or epoch == args.epochs:
            curves.measured(epoch, album.measure(student, device))
            student.save(args.out / "weights.safetensors", image_size=str(args.image_size))
        if stop:
            break


if __name__ == "__main__":
    main()
