"""Time and peak memory of reading a VGG-11, as ratios: memory over that of its weights, time over one forward pass."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn

from wsflow import Architecture

LAYERS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


def vgg11(narrower: int = 1, classes: int = 1000) -> nn.Module:
    """Return torchvision's VGG-11, with this many times fewer channels."""
    layers: list[nn.Module] = []
    inputs = 3
    for size in LAYERS:
        if size == "pool":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(inputs, int(size) // narrower, 3, padding=1), nn.ReLU(inplace=True)]
        inputs = int(size) // narrower
    wide = 4096 // narrower
    head = [nn.Linear(inputs * 49, wide), nn.ReLU(True), nn.Dropout(), nn.Linear(wide, wide), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head, nn.Linear(wide, classes))


def resident() -> int:
    """Return the bytes of this process that are in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The largest number of bytes in memory while it runs, sampled every 5 ms."""

    def __enter__(self) -> Peak:
        self.bytes, self.running = resident(), True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()


def main(narrower: int = 1, size: int = 224) -> None:
    """Read a VGG-11, and print both ratios."""
    # what the exporter imports is not counted
    small = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    Architecture.from_module(small, torch.zeros(2, 3, 8, 8))
    network, images = vgg11(narrower).eval(), torch.zeros(2, 3, size, size)
    with torch.no_grad():
        start = time.perf_counter()
        network(images)
    forward = time.perf_counter() - start
    weights = sum(4 * p.numel() for p in network.parameters())
    before, start = resident(), time.perf_counter()
    with Peak() as peak:
        architecture = Architecture.from_module(network, images)
    seconds = time.perf_counter() - start
    print(f"{architecture.n_weights:.2e} weights, groups of {[group.size for group in architecture.groups]}")
    print(f"memory: {(peak.bytes - before) / weights:.1f} times the weights")
    print(f"time: {seconds:.1f} s, {seconds / forward:.0f} forward passes")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
