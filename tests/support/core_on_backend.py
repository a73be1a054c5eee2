"""What the core does on the backend of this process, as a line of JSON."""

import json
import tempfile
import warnings

import channel_models
import keras
import models
import numpy as np
import reference

import pdp_keras
from pdp_keras.layers import stacks
from pdp_keras.masks import thresholds

warnings.simplefilter("error", UserWarning)


def leaves(x):
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in keras.tree.flatten(x)]


keras.utils.set_random_seed(0)
found = {"backend": keras.backend.backend()}

values = np.abs(np.random.default_rng(0).normal(size=1001)).astype("float32")
values[::3] = values[0]
found["threshold"] = [
    float(thresholds.midpoint_threshold(keras.ops.convert_to_tensor(values), k))
    == float(np.float32(reference.threshold(values, k)))
    for k in (1, 400, 1000, 1001)
]
found["smallest"] = [
    bool(
        np.array_equal(
            keras.ops.convert_to_numpy(
                thresholds.smallest(keras.ops.convert_to_tensor(values), k)
            ),
            reference.smallest(values, k),
        )
    )
    for k in (0, 1, 400, 1001)
]

axes = pdp_keras.KernelAxes((0,), (1,))
values = np.random.default_rng(0).integers(1, 4, (5, 7)).astype("float32")
found["blocks"] = []
for block in (pdp_keras.Block(2), pdp_keras.Block(4, inputs=2)):
    places = reference.blocks((5, 7), (0,), (1,), block.inputs, block.outputs)
    norms = np.float32(reference.block_norms(values, places))
    for zeros in (0, 1, len(places) // 2, len(places)):
        pruned = reference.smallest(norms, zeros)
        marks = reference.spread_over_blocks(pruned, places, values.shape)
        cut = block.hard_masked(keras.ops.convert_to_tensor(values), zeros, axes)
        cut = keras.ops.convert_to_numpy(cut)
        found["blocks"].append(bool(np.array_equal(cut, np.where(marks, 0, values))))

# Groups of 20 are sorted.
values = np.round(np.random.default_rng(0).normal(size=(45, 3)), 1).astype("float32")
left = keras.ops.convert_to_numpy(
    pdp_keras.NM(3, 20).hard_masked(
        keras.ops.convert_to_tensor(values),
        3 * (17 + 17 + 2),
        pdp_keras.KernelAxes((0,), (1,)),
    )
)
losers = reference.group_losers(np.abs(values), (0,), 3, 20)
found["groups"] = [bool(np.array_equal(left, np.where(losers, 0, values)))]


def run(model, x, y, **arguments):
    pruned = pdp_keras.prune_model(model, 0.6)
    same = all(map(np.array_equal, leaves(model(x)), leaves(pruned(x))))
    pruned.compile(keras.optimizers.Adam(1e-2), "mse")
    arguments = {"warmup_epochs": 1, "ramp_epochs": 2, **arguments}
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
    return {
        "starts_equal": same,
        "sparsity": history.history["sparsity"],
        "loss_falls": bool(history.history["loss"][-1] < history.history["loss"][0]),
        "zeros": report.zeros,
        "size": report.size,
        "difference": float(np.max(np.abs(hard - small))) / scale,
        "plain": not any(
            "pdp_keras" in type(layer).__module__
            for layer in stripped._flatten_layers()
        ),
    }


def together():
    """How far off training is with equal kernels that are masked one by one."""
    weights, losses = [], []
    for is_alone in (False, True):
        keras.utils.set_random_seed(0)
        hidden = [keras.layers.Dense(6, activation="tanh") for _ in range(4)]
        pruned = pdp_keras.prune_model(keras.Sequential([keras.Input((6,)), *hidden]))
        pruned.compile(keras.optimizers.SGD(0.1), "mse")
        schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)
        made = stacks._Call._make
        counts = []

        def counted(self, group, masking, made=made, counts=counts):
            counts.append(len(group))
            return made(self, group, masking)

        stacks._Call._make = counted
        is_for_stack, stacks._is_for_stack = stacks._is_for_stack, lambda _: False
        if not is_alone:
            stacks._is_for_stack = is_for_stack
        data = np.random.default_rng(2).normal(size=(16, 6)).astype("float32")
        pruned.fit(data, data, epochs=4, verbose=0, shuffle=False, callbacks=[schedule])
        losses.append(pruned.evaluate(data, data, verbose=0))
        stacks._Call._make, stacks._is_for_stack = made, is_for_stack
        weights.append(leaves(pruned.trainable_variables))
        assert bool(counts) != is_alone and set(counts) <= {4}
    pairs = zip(*weights, strict=True)
    return max(float(np.max(np.abs(a - b))) for a, b in pairs) + abs(
        losses[0] - losses[1]
    )


generator = np.random.default_rng(1)
x = generator.normal(size=(32, 6)).astype("float32")
found["mlp"] = run(models.mlp(), x, np.tanh(x[:, :3]))
if keras.backend.backend() != "jax":  # which would compile all anew for it
    found["mlp by step"] = run(models.mlp(), x, np.tanh(x[:, :3]), update="step")
x = generator.normal(size=(16, 8, 8, 3)).astype("float32")
found["cnn"] = run(models.cnn(), x, generator.normal(size=(16, 10)).astype("float32"))
x = generator.normal(size=(16, 4, 8)).astype("float32")


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Plain(models.Encoder):
    train_step = keras.Model.train_step  # on JAX it has another signature

    def get_config(self):  # where Keras cannot tell that nothing is given
        return {}


encoder = Plain()
encoder(x)
found["encoder"] = run(encoder, x, x[:, :, :3])
found["together"] = together()


class Past(keras.Model):
    """Keeps its layer where no wrapper can take its place."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, name="dense")
        dense = self.dense
        self.held = lambda x: dense(x)

    def call(self, x):
        return self.held(x)


past = Past()
past(np.ones((2, 6), "float32"))
try:
    pdp_keras.prune_model(past, 0.5)
    found["past"] = "not refused"
except ValueError as error:
    found["past"] = str(error)[-50:]
modes = {}


def run_mode(name, model, x, y, **arguments):
    pruned = pdp_keras.prune_model(model, **arguments)
    same = all(
        np.allclose(a, b, atol=1e-5)
        for a, b in zip(leaves(model(x)), leaves(pruned(x)), strict=True)
    )
    pruned.compile(keras.optimizers.Adam(1e-2), "mse")
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)
    history = pruned.fit(x, y, epochs=5, batch_size=8, verbose=0, callbacks=[schedule])
    path = tempfile.mkdtemp() + "/model.keras"
    pruned.save(path)
    stripped = pdp_keras.strip_pruning(keras.models.load_model(path))
    hard, small = pruned.predict(x, verbose=0), stripped.predict(x, verbose=0)
    modes[name] = {
        "starts_equal": same,
        "sparsity": history.history["sparsity"],
        "losses": [history.history["loss"][0], history.history["loss"][-1]],
        "difference": float(np.max(np.abs(hard - small)) / np.max(np.abs(hard))),
        "parameters": [model.count_params(), stripped.count_params()],
        "size_and_zeros": [
            getattr(pdp_keras.sparsity_report(stripped), key)
            for key in ("size", "zeros")
        ],
    }


x = generator.normal(size=(16, 8)).astype("float32")
run_mode("2:4", models.mlp(8), x, np.tanh(x[:, :3]), mode="2:4")
run_mode("block", models.mlp(8), x, np.tanh(x[:, :3]), sparsity=0.6, mode="block")
for name in ("residual", "layer_normalizations"):
    model = channel_models.randomize(channel_models.ARCHITECTURES[name]())
    x = channel_models.inputs_for(model, 16)[0]
    y = generator.normal(size=(16, 3)).astype("float32")
    run_mode(name, model, x, y, mode="channel")
found["modes"] = modes

print(json.dumps(found))
