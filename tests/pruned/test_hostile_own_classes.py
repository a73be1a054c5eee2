"""As `test_hostile_configs`, for models of a class with a constructor of their own."""

import collections
import os
import random
import re
import warnings
from pathlib import Path

import hostile_configs
import keras
import models
import numpy as np
import own_classes
import pytest
from hostile_configs import REMOVED, SYSTEM, origin

import pdp_keras
from pdp_keras.pruned.functional import PrunedGraph

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
# Of a pruned Tower: 0 are the inputs, 1 is the stem.
WRAPPER = "config/exchanged/1"
EDITS = {
    "exchanged-missing": (
        {"config/exchanged": REMOVED},
        "The config of a pruned model must have the keys ['original', 'exchanged']. "
        "Received: none for ['exchanged']",
    ),
    "exchanged-list": (
        {"config/exchanged": []},
        "The config of the exchanged layers must be a dict. Received: []",
    ),
    "extra": (
        {"config/command": "true"},
        "The config of a pruned model may have the keys ['original', 'exchanged'] "
        "only. Received: ['command']",
    ),
    "pruned-twice": (
        {"config/original/registered_name": "pdp_keras>PrunedGraph"},
        "The original of a pruned model must not be pruned itself. "
        "Received: registered_name='pdp_keras>PrunedGraph'",
    ),
    "original-object": ({"config/original": SYSTEM}, "Could not locate class"),
    "original-text": (
        {"config/original": "tower"},
        "The config of the original model must be a dict. Received: 'tower'",
    ),
    "original-no-model": (
        {"config/original": {"a": 1}},
        "The original of this pruned model must be a Functional one with a constructor "
        "of its own. Received: {'a': 1}",
    ),
    "original-layer": (
        {
            "config/original": {
                "module": "keras.layers",
                "class_name": "Dense",
                "config": {"units": 3},
            }
        },
        "The original of this pruned model must be a Functional one with a constructor "
        "of its own. Received: <Dense name=",
    ),
    "place-beyond": (
        {"config/exchanged/99": {"wrapper": {}, "kind": "PDPWrapper"}},
        "place must be one of ['0', '1', ",
    ),
    "place-attribute": (
        {"config/exchanged/__class__": {"wrapper": {}, "kind": "PDPWrapper"}},
        "Received: place='__class__'",
    ),
    "place-of-inputs": (
        {"config/exchanged/0": {"wrapper": {}, "kind": "PDPWrapper"}},
        "PDPWrapper needs a layer with prunable kernels. Received: layer=<InputLayer",
    ),
    "kind": (
        {f"{WRAPPER}/kind": "os.system"},
        "kind must be one of ['ChannelWrapper', 'PDPWrapper']. "
        "Received: kind='os.system'",
    ),
    "kind-missing": (
        {f"{WRAPPER}/kind": REMOVED},
        "The config of an exchanged layer must have the keys ['wrapper', 'kind']. "
        "Received: none for ['kind']",
    ),
    "wrapper-list": (
        {f"{WRAPPER}/wrapper": []},
        "The config of a PDPWrapper must be a dict. Received: []",
    ),
    "wrapper-with-a-layer": (
        {f"{WRAPPER}/wrapper/layer": "Dense"},
        "The wrapper of an exchanged layer takes the layer of the original. "
        "Received: layer='Dense'",
    ),
    "wrapper-weights": (
        {f"{WRAPPER}/wrapper/weights": [7]},
        "weights must index the 1 kernels of the layer. Received: weights=[7]",
    ),
    "sparsity": (
        {f"{WRAPPER}/wrapper/sparsity": 5},
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity=5",
    ),
    # As a subclassed model may have; here the class makes all layers.
    "exchanged-layer": (
        {WRAPPER: {"model": {"module": "keras.layers", "class_name": "Dense"}}},
        "The config of an exchanged layer must have the keys ['wrapper', 'kind']. "
        "Received: none for ['wrapper', 'kind']",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tower.keras"
    pruned = pdp_keras.prune_model(own_classes.Tower(), 0.5)
    models.set_zeros(pruned)
    pruned.save(path)
    return path


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """What the configs name must not be called."""

    def run(command):
        raise AssertionError(f"ran {command!r}")

    monkeypatch.setattr(os, "system", run)


@pytest.mark.parametrize(("changes", "message"), EDITS.values(), ids=EDITS)
def test_edited_configs(saved, changes, message, tmp_path):
    config = hostile_configs.read(saved)
    for where, value in changes.items():
        put(config, where, value)
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        hostile_configs.load(saved, config, tmp_path)


def put(config, path, value):
    """Another value, or none, at a path of which all keys are text."""
    *way, last = path.split("/")
    for key in way:
        config = config[key]
    if value is REMOVED:
        del config[last]
    else:
        config[last] = value


@pytest.mark.parametrize("value", [None, 5, "pdp", [1], ()], ids=repr)
def test_a_config_is_a_dict(value):
    with pytest.raises(ValueError, match=f"must be a dict.*{re.escape(repr(value))}"):
        PrunedGraph.from_config(value)


def use(model):
    """Runs all that reads what a config said."""
    for training in (False, True):
        model(X, training=training)
    pdp_keras.sparsity_report(model)
    with warnings.catch_warnings():
        # The ramp has not ended yet.
        warnings.simplefilter("ignore", UserWarning)
        pdp_keras.strip_pruning(model)(X)


@pytest.mark.parametrize(
    "seeds", [range(30), pytest.param(range(30, 500), marks=pytest.mark.slow)], ids=len
)
def test_damaged_configs_load_or_say_what_they_have(saved, seeds, tmp_path):
    whole = hostile_configs.read(saved)
    outcomes = collections.Counter()
    for seed in seeds:
        config, changes = hostile_configs.damaged(whole, random.Random(seed))
        try:
            use(hostile_configs.load(saved, config, tmp_path))
            outcomes["loaded"] += 1
        except (TypeError, ValueError) as error:
            outcomes["refused"] += 1
            first, file = origin(error)
            # Keras has its own words for what it refuses.
            ours = "pdp_keras" in Path(file).parts
            assert not ours or "Received: " in str(first), changes
        except Exception as error:
            raise AssertionError(f"seed {seed}: {changes}") from error
    assert min(outcomes["loaded"], outcomes["refused"]) > 0
    assert keras.saving.load_model(saved).units == 8
