"""What every method does on the backend of this process, as a line of JSON."""

import json
import warnings

import keras
import numpy as np

import pdp_keras
from pdp_keras import methods
from pdp_keras.pruned.parts import pruned_weights

warnings.simplefilter("error", UserWarning)


numpy = keras.ops.convert_to_numpy
x = np.random.default_rng(1).normal(size=(16, 6)).astype("float32")
y = np.tanh(x[:, :2])
settings = {name: {"frequency": 3} for name in ("granet", "pofa", "rigl")}
settings |= {"str": {"initial": -1.0}, "soft_movement": {"force": 20.0}}
found = {"backend": keras.backend.backend()}
for name, method in methods.METHODS.items():
    if "unstructured" not in method.modes:
        continue
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(2, name="dense")
    model = keras.Sequential([keras.Input((6,)), dense])
    pruned = pdp_keras.prune_model(model, 0.5, method=method(**settings.get(name, {})))
    pruned.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    before = [(v, numpy(v).copy()) for v in pruned.trainable_variables]
    schedule = pdp_keras.PDPScheduleCallback(ramp_epochs=1)
    seen = []  # also within an epoch, in which variables lag behind on JAX
    reader = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs, seen=seen, schedule=schedule: (
            seen.append(schedule.sparsity)
        )
    )
    history = pruned.fit(
        x,
        y,
        epochs=2,
        batch_size=4,
        verbose=0,
        shuffle=False,
        callbacks=[schedule, reader],
    ).history
    with warnings.catch_warnings():
        if method.learns_sparsity:
            warnings.simplefilter("ignore", UserWarning)
        stripped = pdp_keras.strip_pruning(pruned)
    kernel = numpy(stripped.layers[0].kernel)
    (weight,) = pruned_weights(pruned)
    found[name] = {
        "zeros": int((kernel == 0).sum()),
        "counted": int(numpy(weight.zeros)),
        "seen": [round(12 * sparsity) for sparsity in seen],
        "moved": [bool(np.any(numpy(v) != old)) for v, old in before],
        "learns": bool(method.learns_sparsity),
        "is_finite": bool(np.isfinite(history["loss"]).all()),
    }

print(json.dumps(found))
