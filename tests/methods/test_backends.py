"""Every method on every backend, each in a process of its own."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from pdp_keras import methods

TESTS = pathlib.Path(__file__).parents[1] / "support"

SCRIPT = f"""
import json, sys, warnings
warnings.simplefilter("error", UserWarning)
sys.path.insert(0, {str(TESTS)!r})
import keras, numpy as np, pdp_keras
from pdp_keras import methods
from pdp_keras.pruned import parts as state

numpy = keras.ops.convert_to_numpy
x = np.random.default_rng(1).normal(size=(16, 6)).astype("float32")
y = np.tanh(x[:, :2])
settings = {{name: {{"frequency": 3}} for name in ("granet", "pofa", "rigl")}}
settings |= {{"str": {{"initial": -1.0}}, "soft_movement": {{"force": 20.0}}}}
found = {{"backend": keras.backend.backend()}}
for name, method in methods.METHODS.items():
    if "unstructured" not in method.modes:
        continue
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(2, name="dense")
    model = keras.Sequential([keras.Input((6,)), dense])
    pruned = pdp_keras.prune_model(
        model, 0.5, method=method(**settings.get(name, {{}})))
    pruned.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    before = [(v, numpy(v).copy()) for v in pruned.trainable_variables]
    schedule = pdp_keras.PDPScheduleCallback(ramp_epochs=1)
    seen = []  # also within an epoch, in which variables lag behind on JAX
    reader = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(schedule.sparsity))
    history = pruned.fit(x, y, epochs=2, batch_size=4, verbose=0, shuffle=False,
                         callbacks=[schedule, reader]).history
    with warnings.catch_warnings():
        if method.learns_sparsity:
            warnings.simplefilter("ignore", UserWarning)
        stripped = pdp_keras.strip_pruning(pruned)
    kernel = numpy(stripped.layers[0].kernel)
    (weight,) = state.pruned_weights(pruned)
    found[name] = {{
        "zeros": int((kernel == 0).sum()),
        "counted": int(numpy(weight.zeros)),
        "seen": [round(12 * sparsity) for sparsity in seen],
        "moved": [bool(np.any(numpy(v) != old)) for v, old in before],
        "learns": bool(method.learns_sparsity),
        "is_finite": bool(np.isfinite(history["loss"]).all()),
    }}
print("FOUND" + json.dumps(found))
"""


# All other tests run on TensorFlow: here it only checks the script itself.
BACKENDS = [pytest.param("tensorflow", marks=pytest.mark.slow), "jax", "torch"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_method(backend):
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
    rows = methods.METHODS.items()
    assert found.keys() == {n for n, m in rows if "unstructured" in m.modes}
    for name, run in found.items():
        assert run["zeros"] == run["counted"], name
        assert run["learns"] or run["zeros"] == 6, name
        assert len(run["seen"]) == 8 and run["seen"][-1] == run["counted"], name
        # Weights and whatever a method trains beside them.
        assert all(run["moved"]) and run["is_finite"], name
