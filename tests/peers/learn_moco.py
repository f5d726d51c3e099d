"""`seedling adapt`'s recipe in PyTorch, with its own decoding, views and random numbers.

    python tests/peers/learn_moco.py --init models/mobilenet_v3_small.safetensors --album ALBUM --out OUT [--seed 0]

MoCo v2 without labels: 128 px, batch 64 in groups of 32 (statistics per group, keys shuffled across
the groups), lr 0.03 with cosine per step, SGD momentum 0.9, weight decay 1e-4, temperature 0.1, queue
512 with a photo's own keys masked, key momentum 0.99, head 1024-2048-128 from random numbers, 12
epochs; 0.9 of the target to initial neighbors; in the end statistics taken again over the plain
photos, and half of what has changed. Measured: leave-one-out best-NN over the album, at
--measure-size. `--lr 0.006 --epochs 24 --neighbors 0 --mix 1 --measure-size 128` is the recipe of
docs/learning-moco.png.
"""

import argparse
import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from learning import IMAGENET, LabeledPhotos, Curves, Encoder, common_arguments, learning_rate, loader, normalize, photo_files, prepare


def in_mind(files, encoder, args, device):
    """Unit features of the plain photos, less their mean, as the initial weights see them; and the photos."""
    plain = torch.stack([LabeledPhotos.prepare(f, args.measure_size, args.preprocessing) for f in files])
    encoder.eval()
    with torch.no_grad():
        features = torch.cat([encoder.backbone(normalize(x.to(device).float() / 255, *IMAGENET)).float() for x in plain.split(100)])
    encoder.train()
    return F.normalize(features - features.mean(0), dim=1), plain


@torch.no_grad()
def finish(encoder, initial, plain, args, device):
    """Batch norm's statistics as the plain average over mixed batches, then `mix`."""
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for n, rows in enumerate(torch.randperm(len(plain)).split(args.bn_group)):
        if n and len(rows) < args.bn_group:
            break
        for norm in norms:
            norm.momentum = 1 / (n + 1)
        encoder.backbone(normalize(plain[rows].to(device).float() / 255, *IMAGENET))
    for name, value in encoder.state_dict().items():
        if name.startswith(("features.", "classifier.")) and value.is_floating_point():
            value.copy_(torch.lerp(initial[name], value, args.interpolation))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", type=Path, help="weights to start from (default: random)")
    parser.add_argument("--photos", help="photos to adapt to (default: the album)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--bn-group", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--warm-up", type=int, default=0, help="steps")
    parser.add_argument("--queue", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--key-momentum", type=float, default=0.99)
    parser.add_argument("--neighbors", type=float, default=0.9, help="weight of the target that goes to initial neighbors")
    parser.add_argument("--neighbor-temperature", type=float, default=0.05)
    parser.add_argument("--interpolation", type=float, default=0.5, help="interpolation weight of the trained weights")
    parser.add_argument("--measure-size", type=int, default=160)
    common_arguments(parser)
    args = parser.parse_args()
    device = prepare(args)

    files = photo_files(args.photos or args.album)
    batches = loader(files, args.image_size, 2, args.batch_size, args.workers, args.seed)
    album = LabeledPhotos(args.album, args.measure_size, args.preprocessing)
    query_encoder = Encoder(2048, args.dropout, args.linear_init)
    if args.init:
        query_encoder.load(args.init)
    query_encoder.to(device, memory_format=torch.channels_last).train()
    initial = copy.deepcopy(query_encoder.state_dict())
    mind, plain = in_mind(files, query_encoder, args, device)
    key_encoder = copy.deepcopy(query_encoder).requires_grad_(False)
    optimizer = torch.optim.SGD(query_encoder.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    queue = F.normalize(torch.randn(args.queue, 128), dim=1).to(device)
    queue_ids = torch.full((args.queue,), -1, device=device)
    position = 0

    def in_microbatches(encoder, x):
        return torch.cat([encoder(group) for group in x.split(args.bn_group)])

    curves = Curves(args.out / "curves.json", "moco", args)
    curves.measured(0, album.measure(query_encoder, device))
    steps = args.epochs * len(batches)
    step = 0
    for epoch in range(1, args.epochs + 1):
        for x, ids in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr, args.warm_up)
            ids = ids.to(device)
            views = [normalize(x[:, v].to(device), *IMAGENET).to(memory_format=torch.channels_last) for v in (0, 1)]
            with torch.no_grad():
                for key, query in zip(key_encoder.parameters(), query_encoder.parameters()):
                    key.mul_(args.key_momentum).add_(query, alpha=1 - args.key_momentum)
                shuffle = torch.randperm(len(ids), device=device)
                keys = in_microbatches(key_encoder, views[1][shuffle])[shuffle.argsort()]
            queries = in_microbatches(query_encoder, views[0])
            negatives = (queries @ queue.T).masked_fill(ids[:, None] == queue_ids[None, :], -torch.inf)
            logits = torch.cat([(queries * keys).sum(1, keepdim=True), negatives], 1) / args.temperature
            target = torch.zeros_like(logits)
            target[:, 0] = 1
            if args.neighbors:
                near = (mind[ids] @ mind[queue_ids.clamp_min(0)].T / args.neighbor_temperature).masked_fill((queue_ids < 0) | negatives.isneginf(), -torch.inf)
                knows = ~near.isneginf().all(1)  # a queue of random rows has no neighbors yet
                target[knows, 0] = 1 - args.neighbors
                target[knows, 1:] = args.neighbors * near[knows].softmax(1)
            loss = -(target * logits.log_softmax(1).masked_fill(logits.isneginf(), 0)).sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            at = (position + torch.arange(len(ids), device=device)) % args.queue
            queue[at], queue_ids[at] = keys, ids
            position = (position + len(ids)) % args.queue
            curves.data["loss"].append(loss.item())
            step += 1
            if step == args.steps:
                break
        stop = step == args.steps
        if stop or epoch == args.epochs:
            finish(query_encoder, initial, plain, args, device)
        if stop or epoch % args.measure_every == 0 or epoch == args.epochs:
            curves.measured(epoch, album.measure(query_encoder, device))
            query_encoder.save(args.out / "weights.safetensors", image_size=str(args.measure_size))
        if stop:
            break


if __name__ == "__main__":
    main()
