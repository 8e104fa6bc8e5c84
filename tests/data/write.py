"""Writes the files of one release that the tests of later ones open: ``python tests/data/write.py FOLDER``.

It is run with the release's own wsflow, and writes to a folder that is named for it, such as tests/data/0.1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.numpy import save_file
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow.evaluation.predictive import predict
from wsflow.models.options import MLP, AdamW, GaussianSource, NeuronTransformer

TRAINING = {"hidden": (4,), "n_runs": 12, "epochs": 3, "random_state": 0}


def write(folder: Path) -> None:
    """Write a population, a fitted pipeline, a predictor, a report, two checkpoints, and what comes of them."""
    task = wsflow.load_task("iris")
    population = wsflow.train_population(task, **TRAINING)
    weights = population.weights
    wsflow.save_population(population[:6], folder / "population.safetensors")
    wsflow.save_population(population[:6], folder / "shards.safetensors.index.json", shard_size=3 * weights[:1].nbytes)
    options = {"velocity": NeuronTransformer(8, 1, 2), "source": GaussianSource(0.2), "training": AdamW(patience=3)}
    flow = wsflow.WeightFlow(task=task, max_iter=20, random_state=0, **options)
    pipeline = make_pipeline(wsflow.PermutationAligner(task=task), wsflow.ScaleCanonicalizer(), flow).fit(weights)
    wsflow.save_model(pipeline, folder / "pipeline.st")
    accuracy = predict(weights, task.held_out).scores
    predictor = wsflow.MetaRegressor(MLP(8, 1), max_iter=10, random_state=0).fit(weights, accuracy)
    wsflow.save_model(predictor, folder / "predictor.st")
    samples = wsflow.sample(pipeline, 4, random_state=1)
    report = wsflow.evaluate(samples, weights[:8], weights[8:], task)
    (folder / "report.json").write_text(f"{json.dumps(report.to_dict())}\n", encoding="utf-8")
    wsflow.train_population(task, **TRAINING | {"n_runs": 2}, checkpoint=folder / "training")
    wsflow.WeightFlow("euclidean", max_iter=2, random_state=0, velocity=MLP(8, 1), checkpoint=folder / "fit").fit(
        weights[:4]
    )
    expected = {
        "population": weights[:6],
        "samples": samples,
        "scores": pipeline.score_samples(samples),
        "predictions": predictor.predict(weights[:6]),
    }
    save_file({name: array.__array__() for name, array in expected.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir()
    write(target)
