"""What the comparison on texts rests on; trainings are not run here."""

import dataclasses
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from pdp_keras import methods

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accuracy_networks
import accuracy_runs
import accuracy_text
import accuracy_training
from accuracy_text_recipes import LEARNED, RECIPES
from accuracy_training import TASKS, Training


def test_every_method_is_tuned_with_the_same_effort():
    for kind, candidates in RECIPES.items():
        for name, recipes in candidates.items():
            # A learned sparsity is searched for instead.
            count = 1 if name in {*LEARNED, "dense"} else 2
            assert len(recipes) == count, (kind, name)
            assert len({str(one) for one in recipes}) == count, (kind, name)


def test_every_recipe_is_of_a_method_that_can_prune_so():
    for kind, candidates in RECIPES.items():
        for name, recipes in candidates.items():
            for one in recipes:
                assert one.method == name
                if name != "dense":
                    found = methods.deserialize({"name": name, **one.arguments})
                    assert kind in found.modes


def test_scores_and_masks_are_those_of_today():
    """A method's dict without an argument that is new is read as an old file's."""
    for name, arguments in (("optg", {"masks"}), ("soft_movement", {"rate"})):
        for one in RECIPES["unstructured"][name]:
            assert arguments <= set(one.arguments)


def test_the_tasks():
    assert not set(accuracy_text.TASKS) & set(accuracy_networks.TASKS)
    for task in accuracy_text.TASKS.values():
        assert task.images % task.batch_size == 0
        assert list(task.learning_rates) == ["adamw"]
        assert (task.tuned_as or "glosses") in TASKS
    assert TASKS["glosses_distilled"].teacher == "glosses"
    assert not TASKS["glosses"].teacher


def test_only_kernels_of_the_encoder_are_counted():
    class Variable:
        def __init__(self, path, values):
            self.path, self.shape = path, np.shape(values)
            self.values = np.array(values)

        def __array__(self, dtype=None, copy=None):
            return self.values

    network = types.SimpleNamespace(
        trainable_variables=[
            Variable("bert/transformer_layer_0/query/kernel", [[0.0, 1.0], [0.0, 0.0]]),
            Variable("bert/transformer_layer_0/query/bias", [[0.0, 0.0]]),
            Variable("logits/kernel", [[1.0, 1.0]]),
        ]
    )
    found = accuracy_training.sparsity(network, TASKS["glosses"].part)
    assert found == 0.75
    assert accuracy_training.sparsity(network) == 0.625


def test_arguments_of_the_task_are_those_of_every_training():
    recipe = Training("glosses", "90", "pdp", prune={"allocation": "uniform"})
    merged = accuracy_training.prune_arguments(recipe)
    assert merged["filters"] == "transformer_layer.*"
    assert merged["allocation"] == "uniform"
    assert merged["sparsity"] == 0.9
    channels = Training("glosses", "channel", "pdp")
    assert accuracy_training.prune_arguments(channels)["sparsity"] == 0.5


@pytest.mark.parametrize("wanted", ["sgd", "adam"])
def test_texts_keep_their_optimizer(wanted):
    assert accuracy_training.optimizer_of("glosses", wanted) == "adamw"
    assert accuracy_training.optimizer_of("lenet", wanted) == wanted


def test_a_teacher_is_compared_by_probabilities():
    """Keras 3.15 takes logits for them where the loss is given by its name."""
    pytest.importorskip("keras.distillation")  # Keras 3.12 or newer
    teacher, student = (
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]) for _ in range(2)
    )
    (loss,) = accuracy_training._distilled(teacher, student).distillation_losses
    logits = np.float32([[3, 0, -2], [1, -1, 4]]), np.float32([[0, 1, 2], [2, 0, 0]])
    first, second = (
        np.exp(x / 2) / np.exp(x / 2).sum(1, keepdims=True) for x in logits
    )
    expected = 4 * np.mean(np.sum(first * np.log(first / second), axis=1))
    np.testing.assert_allclose(loss.compute_loss(*logits), expected, rtol=1e-5)


def test_what_has_been_tried_is_found_by_its_argument(tmp_path):
    results = accuracy_runs.Results(tmp_path / "results.csv")
    figures = dict.fromkeys(accuracy_runs.FIGURES, 0.0)
    recipe = Training("glosses", "98", "soft_movement", arguments={"rate": 20.0})
    for force, sparsity, rate in ((10.0, 0.2, 20.0), (30.0, 0.9, 20.0), (20, 0.5, 1.0)):
        arguments = {"rate": rate, "force": force}
        one = dataclasses.replace(recipe, arguments=arguments)
        results.add(one, figures | {"sparsity": sparsity})
        results.add(dataclasses.replace(one, seed=1), figures | {"sparsity": 0.7})
    assert results.tried(recipe, "force") == {10.0: 0.2, 30.0: 0.9}
