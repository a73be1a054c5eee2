"""Several fits that are one run, and several callbacks for one model."""

import keras
import numpy as np
import pytest

import pdp_keras


def pruned_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(4)]
    )
    pruned = pdp_keras.prune_model(model, 0.75)
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    return pruned


def fit(model, callbacks, **arguments):
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    fixed = {"verbose": 0, "batch_size": 4, "shuffle": False}
    return model.fit(x, x[:, :4], callbacks=callbacks, **fixed, **arguments)


@pytest.mark.parametrize(
    "phases", [{}, {"warmup_epochs": 1, "ramp_epochs": 3, "update": "epoch"}]
)
def test_parts_of_a_run_equal_one_fit(phases):
    whole, parts = pruned_model(), pruned_model()
    fit(whole, [pdp_keras.PDPScheduleCallback(**phases)], epochs=6)
    for epoch in range(6):
        schedule = pdp_keras.PDPScheduleCallback(total_epochs=6, **phases)
        fit(parts, [schedule], initial_epoch=epoch, epochs=epoch + 1)
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_part_without_the_length_of_the_whole_names_the_argument():
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=3)
    with pytest.raises(ValueError, match=r"must end within the run.*total_epochs"):
        fit(pruned_model(), [schedule], epochs=1)


@pytest.mark.parametrize(
    ("total", "epochs", "message"),
    [(0, 1, "total_epochs must be a number"), (2, 3, "must be the last epoch")],
)
def test_a_wrong_length_is_refused(total, epochs, message):
    with pytest.raises(ValueError, match=message):
        fit(
            pruned_model(),
            [pdp_keras.PDPScheduleCallback(total_epochs=total)],
            epochs=epochs,
        )


def test_a_default_run_of_one_epoch_says_what_it_does():
    with pytest.warns(UserWarning, match=r"run of one epoch.*total_epochs"):
        fit(pruned_model(), [pdp_keras.PDPScheduleCallback()], epochs=1)


def test_two_callbacks_for_one_model_are_refused_before_anything_changes():
    model = pruned_model()
    before = [w.copy() for w in model.get_weights()]
    two = [
        pdp_keras.PDPScheduleCallback(warmup_epochs=warmup, ramp_epochs=1)
        for warmup in (0, 1)
    ]
    with pytest.raises(ValueError, match="one PDPScheduleCallback at a time"):
        fit(model, two, epochs=2)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_second_run_after_the_first_is_no_second_driver():
    model = pruned_model()
    for _ in range(2):
        fit(model, [pdp_keras.PDPScheduleCallback()], epochs=2)
    assert pdp_keras.sparsity_report(model).sparsity == 0.75


def test_two_models_have_a_callback_each():
    first, second = pruned_model(), pruned_model()
    other = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    other.start(second, epochs=1, steps_per_epoch=4)
    drive = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: other.start_epoch(epoch)
    )
    fit(first, [pdp_keras.PDPScheduleCallback(), drive], epochs=2)
    assert pdp_keras.sparsity_report(first).sparsity == 0.75


def test_one_forgotten_callback_warns_once():
    with pytest.warns(UserWarning) as warned:
        fit(pruned_model(), [], epochs=1)
    assert [str(w.message)[:30] for w in warned] == ["A pruned model is being traine"]


def test_the_plot_module_is_there_after_the_import():
    assert pdp_keras.plot.__name__ == "pdp_keras.plot"
    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        pdp_keras.plots  # noqa: B018


def test_an_allocation_that_empties_layers_warns():
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(400), keras.layers.Dense(4, name="last")]
    )
    model.get_layer("last").kernel.assign(model.get_layer("last").kernel * 1e-3)
    allocation = pdp_keras.GlobalMagnitude(max_sparsity=1.0)
    pruned = pdp_keras.prune_model(model, 0.9, allocation=allocation)
    pruned.compile(keras.optimizers.SGD(0.0), "mse")
    with pytest.warns(UserWarning, match=r"no weight at all in 1 of 2 .*\['last'\]"):
        fit(pruned, [pdp_keras.PDPScheduleCallback()], epochs=4)
