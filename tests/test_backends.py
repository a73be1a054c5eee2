"""The core on every backend, each in a process of its own."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent

SCRIPT = f"""
import json, sys, tempfile, warnings
warnings.simplefilter("error", UserWarning)
sys.path.insert(0, {str(TESTS)!r})
import keras, numpy as np, models, pdp_keras
from pdp_keras import thresholds, functional, state
import reference

def leaves(x):
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in keras.tree.flatten(x)]

keras.utils.set_random_seed(0)
found = {{"backend": keras.backend.backend()}}

values = np.abs(np.random.default_rng(0).normal(size=1001)).astype("float32")
values[::3] = values[0]
found["threshold"] = [
    float(thresholds.midpoint_threshold(keras.ops.convert_to_tensor(values), k))
    == float(np.float32(reference.threshold(values, k)))
    for k in (1, 400, 1000, 1001)
]
found["smallest"] = [
    bool(np.array_equal(
        keras.ops.convert_to_numpy(
            thresholds.smallest(keras.ops.convert_to_tensor(values), k)),
        reference.smallest(values, k),
    ))
    for k in (0, 1, 400, 1001)
]

def run(model, x, y, **arguments):
    pruned = pdp_keras.prune_model(model, 0.6)
    same = all(map(np.array_equal, leaves(model(x)), leaves(pruned(x))))
    pruned.compile(keras.optimizers.Adam(1e-2), "mse")
    arguments = {{"warmup_epochs": 1, "ramp_epochs": 2, **arguments}}
    schedule = pdp_keras.PDPScheduleCallback(**arguments)
    history = pruned.fit(x, y, epochs=5, batch_size=8, verbose=0, callbacks=[schedule])
    path = tempfile.mkdtemp() + "/model.keras"
    pruned.save(path)
    loaded = keras.models.load_model(path)
    loaded.fit(x, y, verbose=0)  # goes on without a schedule and without a warning
    loaded = keras.models.load_model(path)
    stripped = pdp_keras.strip_pruning(loaded)
    report = pdp_keras.sparsity_report(stripped)
    hard, small = pruned.predict(x, verbose=0), stripped.predict(x, verbose=0)
    scale = max(1.0, float(np.max(np.abs(hard))))
    return {{
        "starts_equal": same,
        "sparsity": history.history["sparsity"],
        "loss_falls": bool(history.history["loss"][-1] < history.history["loss"][0]),
        "zeros": report.zeros,
        "size": report.size,
        "difference": float(np.max(np.abs(hard - small))) / scale,
        "plain": not any("pdp_keras" in type(l).__module__
                         for l in stripped._flatten_layers()),
    }}

generator = np.random.default_rng(1)
x = generator.normal(size=(32, 6)).astype("float32")
found["mlp"] = run(models.mlp(), x, np.tanh(x[:, :3]))
found["mlp by step"] = run(models.mlp(), x, np.tanh(x[:, :3]), update="step")
x = generator.normal(size=(16, 8, 8, 3)).astype("float32")
found["cnn"] = run(models.cnn(), x, generator.normal(size=(16, 10)).astype("float32"))
x = generator.normal(size=(16, 4, 8)).astype("float32")

@keras.saving.register_keras_serializable("pdp_keras_tests")
class Plain(models.Encoder):
    train_step = keras.Model.train_step  # on JAX it has another signature

encoder = Plain()
encoder(x)
found["encoder"] = run(encoder, x, x[:, :, :3])
print("FOUND" + json.dumps(found))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_core(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("FOUND")[2])
    assert found.pop("backend") == backend
    assert all(found.pop("threshold")) and all(found.pop("smallest"))
    for name, run in found.items():
        assert run["starts_equal"] and run["loss_falls"] and run["plain"], name
        assert run["zeros"] == round(0.6 * run["size"]), name
        assert run["sparsity"][0] == 0, name
        assert run["sparsity"][-1] == pytest.approx(0.6, abs=1 / run["size"]), name
        # XLA may sum in another order; bit for bit holds without it.
        assert run["difference"] <= (1e-6 if backend == "jax" else 0), name
