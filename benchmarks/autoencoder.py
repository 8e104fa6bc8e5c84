"""An autoencoder of implicit representations of MNIST: what it keeps, merges, denoises and lets a flow draw.

SIRENs 2-32-32-1 hold an image of 14 x 14 pixels each. `MetaAutoencoder` is fitted to those of training images, by an
encoder that runs networks ("probe") or reads weights ("neuron"), and judged on those of test images, in four rows:

reconstruction
    The squared error of reconstructions as functions, the accuracy of a digit classifier of images on what they show,
    and how far latents and reconstructions move when networks are moved by random symmetries. Beside it: the principal
    components of the functions, as many as a latent has numbers.
runs
    Two runs of one image each are merged: squared errors to the image at the midpoint. Beside it: the mean of weights,
    as they are and aligned with signs, and the mean of both functions, which is no network.
noise
    A network and a copy of it, moved in its orbit and with normal noise on its weights, are merged.
latents
    Laws of latents: `WeightFlow`, a Gaussian, a mixture of 40 Gaussians, a kernel density, and the latents of test
    networks. The score of samples is the exponential of the mutual information of image and digit, by the classifier
    (Salimans et al. 2016, arXiv:1606.03498); novelty is the mean distance to the nearest training network as a
    function, over that of test networks.

MNIST is read from the folder that ``WSFLOW_DATA`` names, or downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from results_file import Clock, ResultsFile
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from zoo_networks import small_images

import wsflow
from wsflow import MetaAutoencoder, PermutationAligner, Population, WeightArray, WeightFlow
from wsflow.models.metanetworks import Probe
from wsflow.models.options import MLP, AdamW, NeuronTransformer
from wsflow.populations.representations import train_representations
from wsflow.running import forward
from wsflow.symmetry.actions import Action

ENCODERS = {
    "probe": lambda: Probe(256, n_probes=128),
    "neuron": lambda: NeuronTransformer(32, depth=2, identity=None),
}
SETTINGS = {"steps": 160, "learning_rate": 2e-3}
# networks of test images; of so many of these images there is a second run
TESTED, PAIRS = 512, 64
COMPONENTS, MIXED, DRAWN = 64, 40, 512
NOISES = (0.0, 0.01, 0.02)


class Data:
    """Representations of training and test images, and a classifier of images.

    Parameters
    ----------
    options : argparse.Namespace
    folder : Path
        Populations are kept there.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        task = small_images(options.data)
        self.folder, self.steps = folder, options.network_steps
        low, high = task.X.min(), task.X.max()
        self.images = [self._images((part.X - low) / (high - low), part.y) for part in (task, task.test)]
        (X, y), (X_test, y_test) = self.images
        self.train = self._population("train", X[: options.train], y[: options.train], 0)
        self.test = self._population("test", X_test[: options.test], y_test[: options.test], 2)
        n = min(PAIRS, options.test)
        self.again = self._population("again", X_test[:n], y_test[:n], 3)
        self.judge = MLPClassifier((256,), max_iter=12, random_state=0).fit(X.reshape(len(X), -1), y)

    @staticmethod
    def _images(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.random.default_rng(0).permutation(len(X))
        side = int(X.shape[1] ** 0.5)
        return X[chosen].reshape(-1, side, side), y[chosen]

    def _population(self, name: str, images: np.ndarray, labels: np.ndarray, seed: int) -> Population:
        path = self.folder / f"{name}.st"
        if not path.exists():
            settings = {**SETTINGS, "steps": self.steps, "random_state": seed}
            wsflow.save_population(train_representations(images, labels, **settings), path)
        return wsflow.load_population(path)

    @property
    def shown(self) -> np.ndarray:
        """The images (n, pixels) of test networks."""
        images = self.images[1][0][: len(self.test)]
        return images.reshape(len(images), -1)

    def functions(self, weights: Any) -> np.ndarray:
        """The images (n, pixels) that networks hold."""
        rows = torch.from_numpy(np.array(weights, dtype=np.float64))
        inputs = torch.from_numpy(self.train.task.X).double()
        return torch.cat([forward(part, self.train.architecture, inputs) for part in rows.split(512)])[..., 0].numpy()

    def score(self, shown: np.ndarray) -> dict[str, float]:
        """The inception-like score of images, and how sure the classifier is of them."""
        p = self.judge.predict_proba(shown).clip(1e-12)
        return {
            "score": float(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())),
            "certainty": float(p.max(1).mean()),
        }


def fitted(data: Data, options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Fit an autoencoder, and save it."""
    clock = Clock()
    model = MetaAutoencoder(
        COMPONENTS,
        metanetwork=ENCODERS[options.encoder](),
        decoder=MLP(512),
        task=data.train.task,
        training=AdamW(batch_size=64),
        max_iter=options.steps,
        random_state=options.seed,
    )
    with clock("fit"):
        model.fit(data.train.weights)
    wsflow.save_model(model, path)
    losses = model.history_.validation
    return {"networks": len(data.train), "steps": model.n_iter_, "first": losses[0], "last": losses[-1],
            "seconds": clock.seconds}  # fmt: skip


def reconstruction(data: Data, model: MetaAutoencoder) -> dict[str, Any]:
    """How well test networks are kept, and whether their orbits collapse."""
    X, y = data.test.weights.astype(np.float64), data.test.labels
    own, kept = data.functions(X), data.functions(model.reconstruct(X))
    moved = Action.random(X.architecture, len(X), torch.Generator().manual_seed(0))(X)
    orbit = {
        name: _change(function(X), function(moved))
        for name, function in (("latents", model.transform), ("reconstructions", model.reconstruct))
    }
    training = data.functions(data.train.weights)
    components = PCA(COMPONENTS, random_state=0).fit(training)
    return {
        "mse": float(np.mean((own - kept) ** 2)),
        "mse_of_functions": float(np.mean((own - components.inverse_transform(components.transform(own))) ** 2)),
        "mse_of_mean": float(np.mean((own - training.mean(0)) ** 2)),
        "mse_to_image": float(np.mean((data.shown - kept) ** 2)),
        "mse_of_networks": float(np.mean((data.shown - own) ** 2)),
        "judge": float(data.judge.score(kept, y)),
        "judge_of_networks": float(data.judge.score(own, y)),
        "judge_of_images": float(data.judge.score(data.shown, y)),
        "orbit": orbit,
    }


def _change(before: Any, after: Any) -> float:
    before, after = np.asarray(before), np.asarray(after)
    return float(np.abs(after - before).max() / np.abs(before).max())


def merged(data: Data, model: MetaAutoencoder, first: WeightArray, second: WeightArray) -> dict[str, Any]:
    """Squared errors, to the images, of networks and of what is merged of two each."""
    n = len(first)
    both, groups = WeightArray.concatenate([first, second]), np.tile(np.arange(n), 2)
    images = data.shown[:n]

    def error(shown: np.ndarray) -> float:
        return float(np.mean((shown - images) ** 2))

    aligner = PermutationAligner(method="weight", reference="first", by="network", random_state=0)
    pairs = [aligner.fit_transform(both[[i, n + i]]) for i in range(n)]
    functions = [data.functions(part) for part in (first, second)]
    kept = [error(data.functions(model.reconstruct(part))) for part in (first, second)]
    midpoint = error(data.functions(wsflow.merge(both, method="latent", autoencoder=model, groups=groups)))
    return {
        "networks": [error(shown) for shown in functions],
        "mean": error(data.functions(wsflow.merge(both, groups=groups))),
        "aligned": error(data.functions(np.concatenate([wsflow.merge(pair) for pair in pairs]))),
        "functions": error(np.mean(functions, 0)),
        "reconstructions": kept,
        "latent": midpoint,
        "barrier": midpoint - float(np.mean(kept)),
    }


def runs(data: Data, model: MetaAutoencoder) -> dict[str, Any]:
    """Two runs of one image."""
    second = data.again.weights.astype(np.float64)
    return merged(data, model, data.test.weights[: len(second)].astype(np.float64), second)


def noise(data: Data, model: MetaAutoencoder) -> dict[str, Any]:
    """A network and its noisy copy elsewhere in the orbit."""
    first = data.test.weights[: len(data.again)].astype(np.float64)
    rows: dict[str, Any] = {}
    for level in NOISES:
        noisy = first.like(first + np.random.default_rng(0).normal(size=first.shape) * level)
        moved = Action.random(first.architecture, len(first), torch.Generator().manual_seed(0), 0.0)(noisy)
        rows[str(level)] = merged(data, model, first, moved)
    return rows


def latents(data: Data, model: MetaAutoencoder, steps: int) -> dict[str, Any]:
    """What laws of latents draw."""
    z, z_test = (model.transform(part.weights) for part in (data.train, data.test))
    training, held_out = (data.functions(part.weights) for part in (data.train, data.test))
    unit = _nearest(held_out, training).mean()
    clock, laws = Clock(), {}
    with clock("flow"):
        flow = WeightFlow("euclidean", training=AdamW(batch_size=256), max_iter=steps, random_state=0).fit(z)
        laws["flow"] = wsflow.sample(make_pipeline(model, flow), DRAWN, random_state=0)
    with clock("others"):
        n = min(MIXED, len(z) // 10)
        widths = (0.1, 0.2, 0.4)
        part = len(z) // 20
        best = max(widths, key=lambda width: KernelDensity(bandwidth=width).fit(z[part:]).score(z[:part]))
        laws |= {
            "Gaussian": _drawn(model, GaussianMixture(1, random_state=0).fit(z)),
            f"mixture of {MIXED} Gaussians": _drawn(model, GaussianMixture(n, reg_covar=1e-3, random_state=0).fit(z)),
            "kernel density": model.inverse_transform(KernelDensity(bandwidth=best).fit(z).sample(DRAWN, 0)),
            "reconstructions": model.inverse_transform(z_test),
        }
    rows = {name: data.functions(drawn) for name, drawn in laws.items()} | {"test networks": held_out}
    found = {
        name: {**data.score(shown), "novelty": float(_nearest(shown, training).mean() / unit)}
        for name, shown in rows.items()
    }
    drawn = [name for name in laws if name != "reconstructions" and found[name]["novelty"] >= 0.85]
    winner = max(drawn, key=lambda name: found[name]["score"]) if drawn else None
    return {"laws": found, "winner": winner, "bandwidth": best, "seconds": clock.seconds}


def _drawn(model: MetaAutoencoder, law: GaussianMixture) -> WeightArray:
    return model.inverse_transform(law.sample(DRAWN)[0])


def _nearest(shown: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The distances of functions to the nearest of training networks."""
    return torch.cdist(torch.from_numpy(shown), torch.from_numpy(training)).amin(1).numpy()


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, default="probe")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--train", type=int, default=18000)
    parser.add_argument("--test", type=int, default=TESTED)
    parser.add_argument("--network-steps", type=int, default=SETTINGS["steps"])
    parser.add_argument("--steps", type=int, default=3000, help="of the autoencoder")
    parser.add_argument("--flow-steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="of the autoencoder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="where populations and models are kept")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, on the small digits")
    parser.add_argument("--out", type=Path, help="default: docs/results/autoencoder_ENCODER.json; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick and options.out is None:
        parser.error("--quick needs --out: what it measures says nothing")
    if options.quick:
        options.data, options.train, options.test, options.network_steps = "digits", 150, 20, 10
        options.steps = options.flow_steps = 5
    names = ("data", "train", "test", "network_steps", "steps", "flow_steps", "encoder", "seed")
    settings = {name: getattr(options, name) for name in names}
    file = ResultsFile(options.out or RESULTS / f"autoencoder_{options.encoder}.json", settings, options.again)
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"{options.encoder}.st"
    rows = {"reconstruction": reconstruction, "runs": runs, "noise": noise,
            "latents": lambda d, m: latents(d, m, options.flow_steps)}  # fmt: skip
    if not options.again and not {"fit", *rows} - file.rows.keys():
        return
    data = Data(options, options.folder)
    if options.again or not path.exists():
        file.rows.pop("fit", None)
    print("fit", file.measure("fit", lambda: fitted(data, options, path)), flush=True)
    model = wsflow.load_model(path)
    for name, function in rows.items():
        row = file.measure(name, lambda f=function: f(data, model))
        print(name, {key: value for key, value in row.items() if key != "hardware"}, flush=True)


if __name__ == "__main__":
    main()
