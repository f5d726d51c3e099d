"""Recipe (b) in PyTorch: MoCo v2 on the album's 1,000 photos, without labels, from recipe (a).

    python tests/peers/learn_moco.py --init OUT_A/weights.safetensors --out OUT [--seed 0]

128 px, batch 64 in groups of 32 (statistics per group, keys shuffled across the groups), lr 0.006
with cosine per step, SGD momentum 0.9, weight decay 1e-4, temperature 0.1, queue 512 with a photo's
own keys masked, key momentum 0.99, head 1024-2048-128, standard views, 24 epochs. The head starts
at random. Measured: leave-one-out best-NN over the album.
"""

import argparse
import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from learning import IMAGENET, Album, Curves, Encoder, common_arguments, learning_rate, loader, normalise, photo_files, prepare


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", type=Path, help="weights to start from (default: random)")
    parser.add_argument("--photos", help="photos to adapt to (default: the album)")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--bn-group", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.006)
    parser.add_argument("--warm-up", type=int, default=0, help="steps")
    parser.add_argument("--queue", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--key-momentum", type=float, default=0.99)
    common_arguments(parser)
    args = parser.parse_args()
    device = prepare(args)

    batches = loader(photo_files(args.photos or args.album), args.image_size, 2, args.batch_size, args.workers, args.seed)
    album = Album(args.album, args.image_size, args.preprocessing)
    query_encoder = Encoder(2048, args.dropout, args.linear_init)
    if args.init:
        query_encoder.load(args.init)
    query_encoder.to(device, memory_format=torch.channels_last).train()
    key_encoder = copy.deepcopy(query_encoder).requires_grad_(False)
    optimizer = torch.optim.SGD(query_encoder.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    queue = F.normalize(torch.randn(args.queue, 128), dim=1).to(device)
    queue_ids = torch.full((args.queue,), -1, device=device)
    position = 0

    def in_groups(encoder, x):
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
            views = [normalise(x[:, v].to(device), *IMAGENET).to(memory_format=torch.channels_last) for v in (0, 1)]
            with torch.no_grad():
                for key, query in zip(key_encoder.parameters(), query_encoder.parameters()):
                    key.mul_(args.key_momentum).add_(query, alpha=1 - args.key_momentum)
                shuffle = torch.randperm(len(ids), device=device)
                keys = in_groups(key_encoder, views[1][shuffle])[shuffle.argsort()]
            queries = in_groups(query_encoder, views[0])
            negatives = (queries @ queue.T).masked_fill(ids[:, None] == queue_ids[None, :], -torch.inf)
            logits = torch.cat([(queries * keys).sum(1, keepdim=True), negatives], 1) / args.temperature
            loss = F.cross_entropy(logits, torch.zeros(len(ids), dtype=torch.long, device=device))
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
        if stop or epoch % args.measure_every == 0 or epoch == args.epochs:
            curves.measured(epoch, album.measure(query_encoder, device))
            query_encoder.save(args.out / "weights.safetensors", image_size=str(args.image_size))
        if stop:
            break


if __name__ == "__main__":
    main()
