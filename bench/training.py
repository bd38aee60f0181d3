"""One training step of the affinity: the torch operator against autograd through an unfolded memory.

Prints, per way: seconds of forward and backward (best of the repeats), and the peak memory in MiB that they
add to the process, each way in a process of its own. In brackets: how much more than the operator.

    python bench/training.py                                    # 96 x 96, five slots, radius 6, 64 channels
    python bench/training.py --size 48 --slots 1 --batch 8
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from maskring.plugins.windowed_affinity.torch_op import windowed_affinity

Way = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]


def operator(query: Tensor, keys: Tensor, values: Tensor, radius: int, scale: float) -> Tensor:
    filled = torch.ones(keys.shape[:2], dtype=torch.int32)
    return windowed_affinity(query, keys, values, filled, radius=radius, scale=scale)


def unfolded(
    similarity: Callable[[Tensor, Tensor], Tensor],
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    radius: int,
    scale: float,
) -> Tensor:
    """Every window laid out in memory: [B, N, C, P^2, H * W]."""
    batch, slots, channels, height, width = keys.shape
    side = 2 * radius + 1

    def windows(maps: Tensor) -> Tensor:
        laid_out = F.unfold(maps.flatten(0, 1), side, padding=radius)
        return laid_out.view(*maps.shape[:3], side**2, height * width)

    inside = windows(torch.ones(1, 1, 1, height, width))[:, :, 0] > 0
    logits = similarity(query.flatten(2), windows(keys)) * scale
    joint = logits.masked_fill(~inside, -torch.inf).flatten(1, 2).softmax(1)
    weights = joint.view(batch, slots, 1, side**2, height * width)
    return (weights * windows(values)).sum((1, 3)).view(batch, -1, height, width)


def einsum(query: Tensor, keys: Tensor) -> Tensor:
    return torch.einsum("bcl,bncpl->bnpl", query, keys)


def product(query: Tensor, keys: Tensor) -> Tensor:
    return (query[:, None, :, None] * keys).sum(2)


WAYS: dict[str, Way] = {
    "operator": operator,
    "unfold, einsum": functools.partial(unfolded, einsum),
    "unfold, product": functools.partial(unfolded, product),
}


DEFAULTS = {"size": 96, "slots": 5, "radius": 6, "channels": 64, "labels": 3, "batch": 1}
DEFAULTS |= {"repeats": 3, "threads": 2}


def peak() -> float:
    """Peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(way: Way, options: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    size, memory = (options.size, options.size), (options.batch, options.slots)
    query = torch.randn(options.batch, options.channels, *size, requires_grad=True)
    keys = torch.randn(*memory, options.channels, *size, requires_grad=True)
    values = torch.randn(*memory, options.labels, *size, requires_grad=True)
    before = peak()
    forward, backward = [], []
    for _ in range(options.repeats):
        start = time.perf_counter()
        out = way(query, keys, values, options.radius, options.channels**-0.5)
        middle = time.perf_counter()
        torch.autograd.grad(out.square().sum(), (query, keys, values))
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
    return {"forward": min(forward), "backward": min(backward), "peak": peak() - before}


def measure_in_child(name: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shape = {
        "size": 96,
        "slots": 5,
        "radius": 6,
        "channels": 64,
        "labels": 3,
        "batch": 1,
        "repeats": 3,
        "threads": 2,
    }
    for name, default in shape.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(WAYS[options.only], options)))
        return
    print(", ".join(f"{name} {getattr(options, name)}" for name in DEFAULTS))
    found = {name: measure_in_child(name) for name in WAYS}
    ours = found["operator"]
    for name, row in found.items():
        cells = (f"{key} {row[key]:9.3f} ({row[key] / ours[key]:6.1f}x)" for key in row)
        print(f"{name:16}", "   ".join(cells))


if __name__ == "__main__":
    main()
