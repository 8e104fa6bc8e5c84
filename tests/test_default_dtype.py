"""A user's default dtype changes no number: the same bits come out under float64 as under float32."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCENARIO = """
import hashlib, sys
import numpy as np, torch
torch.set_default_dtype(getattr(torch, sys.argv[1]))
import wsflow
from wsflow.models import options as o
from wsflow.objectives.functionals import Robustness
from wsflow.symmetry.actions import Action

def show(name, *arrays):
    bits = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    print(name, *(np.asarray(a).dtype for a in arrays), hashlib.sha256(bits).hexdigest())

task = wsflow.load_task("iris")
{body}
assert torch.get_default_dtype() == getattr(torch, sys.argv[1])
"""
POPULATION = """
population = wsflow.train_population(task, [4], n_runs=12, epochs=2, random_state=0)
weights = population.weights
show("population", weights)
"""
SMALL = "max_iter=3, random_state=0, solver='euler', velocity=o.NeuronTransformer(8, 1, 2)"
BODIES = {
    "flow": POPULATION
    + f"""
canonical = wsflow.ScaleCanonicalizer().fit_transform(weights)
flow = wsflow.WeightFlow(task=task, **dict({SMALL}), energy=o.EnergyMatching(2), training=o.AdamW(4)).fit(canonical)
show("samples", flow.sample(3, random_state=0), flow.sample(2, random_state=0, noise=0.5, temperature=0.5))
guidance = wsflow.Guidance(Robustness(task, 0.1), batch_size=8)
show("guided", flow.sample(2, random_state=0, guidance=guidance))
show("scores", *flow.score_samples(canonical[:2], return_std=True), flow.sample(1, 0, return_log_prob=True)[1])
""",
    "other flows": POPULATION
    + f"""
y = np.linspace(0, 1, len(weights))
for condition, velocity in [("scalar", o.RelationalTransformer(8, 1, 2)), ("label", o.MLP(16, 1, 0.1))]:
    settings = dict({SMALL}) | dict(velocity=velocity, condition=condition, source="isotropic")
    flow = wsflow.WeightFlow("euclidean", **settings).fit(weights, y.round() if condition == "label" else y)
    show(condition, flow.sample(3, random_state=0, condition=1.0), flow.score_samples(weights[:2], condition=1.0))
for source in ("exchangeable", "initialisation"):
    settings = dict({SMALL}) | dict(velocity=o.NeuronTransformer(8, 1, 2, None), source=source, coupling="ot")
    show(source, wsflow.WeightFlow("euclidean", **settings).fit(weights).sample(3, random_state=0))
X = np.random.default_rng(0).normal(size=(40, 3))
show("vectors", wsflow.WeightFlow("euclidean", max_iter=3, random_state=0).fit(X).sample(3, random_state=0))
""",
    "alignment": POPULATION
    + """
moved = Action.random(weights.architecture, len(weights), torch.Generator().manual_seed(0))(weights)
show("moved", moved)
for method in ("weight", "activation", "chain", "sinkhorn", "straight-through"):
    aligner = wsflow.PermutationAligner(method, task=task, random_state=0).fit(moved)
    show(method, aligner.transform(moved), aligner.objective_, aligner.barrier_after_)
for form in ("unit", "balanced"):
    show(form, wsflow.ScaleCanonicalizer(form).fit_transform(moved))
""",
    "evaluation": POPULATION
    + """
import json
report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task)
show("report", np.frombuffer(json.dumps(report.to_dict(), sort_keys=True).encode(), np.uint8))
show("barrier", wsflow.loss_barrier(weights[:2], weights[2:4], task))
""",
}


def printed(body: str, dtype: str) -> list[str]:
    code = SCENARIO.replace("{body}", body)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, dtype],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "scenario", [name if name == "flow" else pytest.param(name, marks=pytest.mark.slow) for name in BODIES]
)
def test_the_default_dtype_changes_no_bit(scenario):
    lines = printed(BODIES[scenario], "float32")
    assert len(lines) > 1
    assert printed(BODIES[scenario], "float64") == lines
