"""Statistics of merged and sampled networks: those of batch norms, and REPAIR of all channels (Jordan et al. 2023)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsflow.evaluation.embedding import evenly_spaced
from wsflow.evaluation.predictive import MODULE_NETWORKS
from wsflow.running.batch_statistics import ModuleRunner, batch_statistics, mean_over_batches
from wsflow.running.compatibility import check_task
from wsflow.task import Task
from wsflow.weights import WeightArray

BATCH_SIZE = 512
# over which the statistics of samples and of nulls are computed: there are many networks, and statistics of 2,048
# inputs are as good as those that training leaves behind, which are those of its last ten batches or so
STATISTICS_INPUTS = 2048
# a channel whose standard deviation is below this share of the one it should have is dead: it is not scaled up
DEAD = 1e-4
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# layers into which a change of scale and mean of their channels can be folded, and the axis of these channels
CHANNEL_AXES: tuple[tuple[tuple[type[nn.Module], ...], int], ...] = (
    ((nn.Linear,), -1),
    (CONVOLUTIONS, 1),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), 1),
)


def recompute_batch_norm(
    weights: WeightArray,
    task: Task,
    *,
    module: Any = None,
    batch_size: int = BATCH_SIZE,
    max_inputs: int | None = None,
) -> WeightArray:
    """Recompute the statistics of the networks' batch norms over the inputs of a task (Jordan et al. 2023).

    Parameters
    ----------
    module : torch.nn.Module, optional
        What runs the networks (default: the architecture's module).
    batch_size : int
        Of the batches whose means and unbiased variances are averaged.
    max_inputs : int, optional
        Of the task's inputs at most so many are used, evenly spaced (default: all).
    """
    if not len(weights.architecture.statistic_columns):
        return weights
    runner, inputs = ModuleRunner.of(weights.architecture, module), torch.from_numpy(task.X)
    if max_inputs is not None:
        inputs = inputs[evenly_spaced(len(inputs), max_inputs)]
    rows = [batch_statistics(chunk, runner, inputs, batch_size) for chunk in _chunks(weights)]
    return weights.like(torch.cat(rows).numpy())


def repair_channels(
    merged: WeightArray,
    weights: WeightArray,
    share: np.ndarray,
    task: Task,
    *,
    module: Any = None,
    batch_size: int = BATCH_SIZE,
) -> WeightArray:
    r"""Give each channel of merged networks the average mean and standard deviation of those in their origins: REPAIR.

    A channel z becomes s (z - E z) + m with s = \bar\sigma / \sigma(z), m and \bar\sigma being the averages over the
    networks that were merged, in the order of the forward pass, so that each layer sees what the layers before it put
    out after their own correction. It is folded into the layer's weights and biases. A layer without bias is only
    scaled; layers that are used twice, that share their weights or that put out the network's output stay as they are.
    Statistics of batch norms stay as they were: recompute them afterwards.

    Parameters
    ----------
    merged : WeightArray of shape (m, d)
    weights : WeightArray of shape (n, d)
    share : ndarray of shape (m, n)
        The share that each network has in each merged one; rows sum to 1.
    module : torch.nn.Module, optional
        What runs networks that do not run by themselves (default: the architecture's module).

    References
    ----------
    Jordan, Sedghi, Saukh, Entezari and Neyshabur 2023, "REPAIR: REnormalizing Permuted Activations for Interpolation
    Repair", arXiv:2211.08403, equations 3 and 4.
    """
    check_task(weights.architecture, task)
    runner = ModuleRunner.of(weights.architecture, module)
    inputs = torch.from_numpy(task.X)
    goals = _goals(weights, torch.from_numpy(share), runner, inputs, batch_size)
    layers = {name: layer for name, layer in foldable(runner).items() if f"mean:{name}" in goals}
    corrected = _Channels(runner.training_copy(), layers, correct=True)
    tensors = runner.unflatten(torch.from_numpy(np.array(merged)))
    targets = {corrected.buffer(name): value for name, value in goals.items()}
    found = mean_over_batches(corrected, tensors, inputs, batch_size, targets)
    for name, layer in layers.items():
        scale = _scales(goals[f"std:{name}"], found[f"std:{name}"])
        shift = goals[f"mean:{name}"] - scale * found[f"mean:{name}"]
        tensors |= _folded(name, layer, tensors, scale, shift)
    return merged.like(runner.flatten(tensors).numpy())


def _goals(
    weights: WeightArray, share: Tensor, runner: ModuleRunner, inputs: Tensor, batch_size: int
) -> dict[str, Tensor]:
    """Return the mean and the standard deviation (m, channels) that each layer of merged networks should have."""
    observed = _Channels(copy.deepcopy(runner.module).eval(), foldable(runner))
    found = [mean_over_batches(observed, runner.unflatten(chunk), inputs, batch_size) for chunk in _chunks(weights)]
    # a layer that is used twice has no one mean: it is not among those with statistics
    return {
        name: share.to(found[0][name]) @ torch.cat([chunk[name] for chunk in found])
        for name in found[0]
        if name.partition(":")[2] not in observed.repeated
    }


def _chunks(weights: WeightArray) -> Iterator[Tensor]:
    """Yield a few networks (n, d) at a time."""
    for start in range(0, len(weights), MODULE_NETWORKS):
        yield torch.from_numpy(np.array(weights[start : start + MODULE_NETWORKS]))


def foldable(runner: ModuleRunner) -> dict[str, tuple[nn.Module, int]]:
    """Return the layers into which corrections can be folded, with the axis of their channels, by name."""
    free = {p.name for p in runner.architecture.parameters if not p.aliases} - set(runner.architecture.outputs)
    keys = {runner.keys[name] for name in free}
    return {
        name: (layer, axis)
        for name, layer in runner.module.named_modules()
        for kinds, axis in CHANNEL_AXES
        if isinstance(layer, kinds) and {_key(name, kind) for kind, _ in layer.named_parameters()} <= keys
    }


class _Channels(nn.Module):
    """Runs a module, and returns each channel's mean and standard deviation, which it may correct on the way."""

    def __init__(self, module: nn.Module, layers: dict[str, tuple[nn.Module, int]], correct: bool = False) -> None:
        super().__init__()
        self.module, self.correct = module, correct
        self.positions = {name: i for i, name in enumerate(layers)}
        self.statistics: dict[str, Tensor] = {}
        self.repeated: set[str] = set()
        for name, (_, axis) in layers.items():
            module.get_submodule(name).register_forward_hook(self._hook(name, axis))
        for key in (f"{kind}:{name}" for name in layers for kind in ("mean", "std") if correct):
            self.register_buffer(self.buffer(key), torch.empty(0))

    def buffer(self, key: str) -> str:
        """Return the name of the buffer with the goal of a statistic: names of buffers have no dots."""
        kind, _, name = key.partition(":")
        return f"{kind}{self.positions[name]}"

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the statistics of the channels that were seen, by layer."""
        self.statistics = {}
        self.module(*inputs)
        return self.statistics

    def _hook(self, name: str, axis: int) -> Any:
        def hook(layer: Any, inputs: Any, output: Tensor) -> Tensor | None:
            if f"mean:{name}" in self.statistics:
                self.repeated.add(name)
            axes = [i for i in range(output.dim()) if i != axis % output.dim()]
            mean = output.mean(axes, keepdim=True)
            # torch's own deviation takes three times as long
            std = (output - mean).square().mean(axes, keepdim=True).sqrt()
            self.statistics |= {f"mean:{name}": mean.flatten(), f"std:{name}": std.flatten()}
            if not self.correct:
                return None
            goals = [getattr(self, self.buffer(f"{kind}:{name}")).reshape(mean.shape) for kind in ("mean", "std")]
            scale = _scales(goals[1], std)
            return output * scale if layer.bias is None else output * scale + (goals[0] - scale * mean)

        return hook


def _scales(goal: Tensor, std: Tensor) -> Tensor:
    alive = std > DEAD * goal
    return torch.where(alive, goal / torch.where(alive, std, 1.0), 1.0)


def _folded(
    name: str, layer: tuple[nn.Module, int], tensors: dict[str, Tensor], scale: Tensor, shift: Tensor
) -> dict[str, Tensor]:
    """Return a layer's weight and bias after its channels were scaled and shifted."""
    keys = {kind: _key(name, kind) for kind in ("weight", "bias")}
    weight = tensors[keys["weight"]]
    factor = scale
    if getattr(layer[0], "transposed", False):
        # of shape (inputs, outputs / groups, ...)
        groups: int = layer[0].groups  # type: ignore[assignment]
        factor = scale.unflatten(1, (groups, 1, -1)).expand(-1, -1, weight.shape[1] // groups, -1).flatten(1, 2)
    result = {keys["weight"]: weight * factor.reshape(*factor.shape, *(1,) * (weight.dim() - factor.dim()))}
    if keys["bias"] in tensors:
        result[keys["bias"]] = tensors[keys["bias"]] * scale + shift
    return result


def _key(layer: str, kind: str) -> str:
    return f"{layer}.{kind}" if layer else kind
