"""What PDPScheduleCallback refuses, before anything is trained."""

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from runs import X, Y, compiled, fit

from pdp_keras import PDPScheduleCallback, PDPWrapper, methods
from pdp_keras.pruned import parts as state


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ramp_epochs": 3, "epsilon": 0.1}, "Only one .*: ramp_epochs, epsilon"),
        ({"warmup_epochs": -1}, "Received: warmup_epochs=-1"),
        ({"ramp_epochs": 0}, "Received: ramp_epochs=0"),
        ({"ramp_epochs": 2, "warmup_epochs": -1}, "Received: warmup_epochs=-1"),
        ({"epsilon": 0}, "Received: epsilon=0"),
        ({"epsilon": 1.5}, "Received: epsilon=1.5"),
        ({"ramp_epochs": 2, "update": "batch"}, "Received: update='batch'"),
        (
            {"ramp_epochs": 2, "ramp": "square"},
            r"one of \['cubic', 'linear'\]\. Received: ramp='square'",
        ),
        ({"ramp_epochs": 2, "allocation": "best"}, "Received: allocation='best'"),
        ({"ramp_epochs": 2, "final_temperature": 0}, "Received: final_temperature=0"),
        ({"ramp_epochs": 2, "fall": (1, 0.5)}, r"Received: fall=\(1, 0\.5\)"),
        ({"ramp_epochs": 2, "fall": (-1, 0.5)}, r"Received: fall=\(-1, 0\.5\)"),
        ({"ramp_epochs": 2, "fall": (1,)}, r"0 <= begin < end.*fall=\(1,\)"),
        ({"ramp_epochs": 2, "fall": 5}, r"0 <= begin < end.*fall=5"),
        ({"ramp_epochs": 2, "fall": ("0", 1)}, r"Received: fall=\('0', 1\)"),
        ({"ramp_epochs": 2, "ramp": ["cubic"]}, r"Received: ramp=\['cubic'\]"),
        ({"ramp_epochs": "2"}, "Received: ramp_epochs='2'"),
        ({"epsilon": "0.1"}, "Received: epsilon='0.1'"),
        ({"ramp_epochs": 2, "warmup_epochs": []}, r"Received: warmup_epochs=\[\]"),
        ({"ramp_epochs": 2, "final_temperature": "1"}, "final_temperature='1'"),
        ({"schedule": float, "warmup_epochs": 1}, "a schedule starts by itself"),
        ({"schedule": float, "ramp": "cubic"}, "a schedule has its own shape"),
    ],
)
def test_argument_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        PDPScheduleCallback(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"warmup_epochs": 3, "ramp_epochs": 15},
            r"within the run.*Received: 3 \+ 15 > epochs=4",
        ),
        ({"warmup_epochs": 3}, r"Received: 3 \+ 1\.6 > epochs=4"),
        ({"epsilon": 0.015}, r"Received: 0 \+ 66\.6667 > epochs=4"),
        ({"schedule": lambda step: step / 100}, "Received: a fraction of 0.15"),
        ({"schedule": lambda step: 2.0}, r"\[0, 1\].*Received: 2.0"),
    ],
)
def test_run_errors_come_before_training(arguments, message):
    model = compiled()
    before = [v.numpy() for v in model.variables]
    with pytest.raises(ValueError, match=message):
        fit(model, 4, PDPScheduleCallback(**arguments))
    assert int(model.optimizer.iterations.numpy()) == 0
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_a_schedule_of_tfmot_for_another_sparsity_is_an_error():
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.ConstantSparsity(0.8, begin_step=0)
    with pytest.raises(ValueError, match=r"final sparsity 0\.8.*sparsity=0\.5"):
        fit(compiled(0.5), 2, PDPScheduleCallback(schedule=schedule))


def test_other_errors():
    model = models.mlp()
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"prune_model.*Received: model='mlp'"):
        fit(model, 2, PDPScheduleCallback(ramp_epochs=1))

    def endless():
        while True:
            yield X[:8], Y[:8]

    data = tf.data.Dataset.from_generator(
        endless,
        output_signature=(
            tf.TensorSpec((8, 6), tf.float32),
            tf.TensorSpec((8, 3), tf.float32),
        ),
    )
    by_step = PDPScheduleCallback(ramp_epochs=1, update="step")
    with pytest.raises(ValueError, match=r"steps_per_epoch.*Received: .*None"):
        compiled().fit(data, epochs=2, verbose=0, callbacks=[by_step])
    compiled().fit(data, epochs=2, verbose=0, callbacks=[by_step], steps_per_epoch=2)
    with pytest.raises(ValueError, match=r"start\(model"):
        PDPScheduleCallback(ramp_epochs=1).start_epoch(0)

    broken = compiled(0.5)
    state.pruned_weights(broken)[0].variable.assign(np.full((6, 20), np.nan))
    with pytest.raises(ValueError, match=r"finite.*Received: NaN.*'first/kernel'"):
        fit(broken, 2, PDPScheduleCallback(ramp_epochs=1))


def test_all_layers_have_one_method():
    inputs = keras.Input((6,))
    first = PDPWrapper(keras.layers.Dense(4), 0.5, method="gmp")
    last = PDPWrapper(keras.layers.Dense(4), 0.5, method=methods.RigL(seed=3))
    model = keras.Model(inputs, last(first(inputs)))
    message = r"by one method\. Received: \['GMP\(\)', 'RigL\(.*seed=3\)'\]$"
    with pytest.raises(ValueError, match=message):
        PDPScheduleCallback(ramp_epochs=1).start(model, epochs=2, steps_per_epoch=4)
    parts = state.pruned_weights(model)
    with pytest.raises(ValueError, match=message):
        state.common_method(parts)
    assert state.common_method(parts[:1]) == methods.GMP()
    # Two layers whose methods are equal have one.
    twins = [
        PDPWrapper(keras.layers.Dense(4), 0.5, method=methods.RigL(seed=3))
        for _ in range(2)
    ]
    model = keras.Model(inputs, twins[1](twins[0](inputs)))
    assert state.common_method(state.pruned_weights(model)) == methods.RigL(seed=3)


def test_methods_of_one_model_differ_in_their_arguments_too():
    inputs = keras.Input((6,))
    wrapped = [
        PDPWrapper(keras.layers.Dense(4), 0.5, method=methods.RigL(seed=seed))
        for seed in (0, 1)
    ]
    model = keras.Model(inputs, wrapped[1](wrapped[0](inputs)))
    with pytest.raises(ValueError, match="must be pruned by one method"):
        PDPScheduleCallback(ramp_epochs=1).start(model, epochs=2)
