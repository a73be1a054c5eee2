"""Configs that were damaged, or made to do harm, are refused with the rule they break.

Nothing is made of them before: no name is imported, no memory is taken by a number that
a file claims, and no other exception comes through.
"""

import collections
import functools
import operator
import os
import random
import re
import resource
import sys
import warnings
from pathlib import Path

import hostile_configs
import keras
import pytest
from hostile_configs import REMOVED, SYSTEM, origin
from packaging.version import Version

import pdp_keras
from pdp_keras import methods, modes
from pdp_keras.channels import ChannelGroup, ChannelWrapper
from pdp_keras.masks import temperatures
from pdp_keras.pruned.subclassed import PrunedModel

# Keras itself does not read the files of a newer one.
pytestmark = pytest.mark.skipif(
    Version(keras.__version__) < Version("3.15"), reason="saved by Keras 3.15"
)

FOLDER = Path(__file__).parents[1] / "saved_files"
sys.path.insert(0, str(FOLDER))

import make  # noqa: E402

# Where each file has the config of its first pruned layer.
WRAPPER = {
    "unstructured": "config/layers/1/config",
    "2_4": "config/layers/1/config",
    "channel": "config/layers/1/config",
    "subclassed": "config/exchanged/head/wrapper",
    "whole": "config",
    "around": "config/layers/1",
}
FILES = {"whole": "subclassed", "around": "unstructured"}
# A file, what stands where in that config, and the message.
EDITS = {
    # The sparsity.
    "sparsity-5": (
        ("unstructured", {"sparsity": 5}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity=5",
    ),
    "sparsity-nan": (
        ("unstructured", {"sparsity": float("nan")}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity=nan",
    ),
    "sparsity-text": (
        ("unstructured", {"sparsity": "0.5"}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity='0.5'",
    ),
    "sparsity-bool": (
        ("unstructured", {"sparsity": True}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity=True",
    ),
    "sparsity-dict": (
        ("unstructured", {"sparsity": {}}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity={}",
    ),
    "sparsity-huge": (
        ("unstructured", {"sparsity": 10**400}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity=100000000000000000...0000000000000000000",
    ),
    "sparsities-bool": (
        ("unstructured", {"sparsity": [True]}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity=True",
    ),
    "sparsities-none": (
        ("unstructured", {"sparsity": [None]}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity=None",
    ),
    "sparsities-too-many": (
        ("unstructured", {"sparsity": [0.5, 0.5], "allocation": "uniform"}),
        "sparsity must be one number or one for each of the 1 pruned kernels. "
        "Received: sparsity=[0.5, 0.5]",
    ),
    # Mode, method, temperature and allocation.
    "mode-unknown": (
        ("unstructured", {"mode": {"name": "blocks"}}),
        "name must be one of ['block', 'channel', 'nm', 'unstructured']. "
        "Received: name='blocks'",
    ),
    "mode-list": (
        ("unstructured", {"mode": ["unstructured"]}),
        "mode must be one of 'unstructured', 'channel', 'block', 'block:4', 'N:M' "
        "(such as '2:4') or a "
        "mode object. Received: mode=['unstructured']",
    ),
    "mode-extra": (
        ("unstructured", {"mode": {"name": "unstructured", "m": 4}}),
        "The config of the mode 'unstructured' may have the keys [] only. "
        "Received: ['m']",
    ),
    "nm-missing": (
        ("2_4", {"mode": {"name": "nm", "n": 2}}),
        "The config of the mode 'nm' must have the keys ['n', 'm']. "
        "Received: none for ['m']",
    ),
    "nm-text": (
        ("2_4", {"mode": {"name": "nm", "n": 2, "m": "4"}}),
        "N:M keeps n of m weights, integers with 1 <= n < m. Received: n=2, m='4'",
    ),
    "nm-all": (
        ("2_4", {"mode": {"name": "nm", "n": 4, "m": 4}}),
        "N:M keeps n of m weights, integers with 1 <= n < m. Received: n=4, m=4",
    ),
    "nm-allocation": (
        ("2_4", {"allocation": "global"}),
        "NM(n=2, m=4) decides the sparsity of every kernel itself; leave `allocation` "
        "out. Received: allocation='global'",
    ),
    "method-dotted": (
        ("unstructured", {"method": {"name": "os.system"}}),
        "'str']. Received: name='os.system'",
    ),
    "method-object": (
        ("unstructured", {"method": SYSTEM}),
        "'str']. Received: name=None",
    ),
    "method-extra": (
        ("unstructured", {"method": {"name": "pdp", "command": "true"}}),
        "The config of the method 'pdp' may have the keys ['max_gain'] only. "
        "Received: ['command']",
    ),
    "method-argument": (
        ("unstructured", {"method": {"name": "pdp", "max_gain": "1"}}),
        "max_gain must be a positive number, or None. Received: max_gain='1'",
    ),
    "temperature-text": (
        ("unstructured", {"temperature": "1e-4"}),
        "temperature must be a positive number, a RelativeTemperature or an "
        "AbsoluteTemperature. Received: temperature='1e-4'",
    ),
    "temperature-kind": (
        ("unstructured", {"temperature": {"kind": "os.system", "factor": 1}}),
        "kind must be one of ['absolute', 'relative']. Received: kind='os.system'",
    ),
    "temperature-argument": (
        ("unstructured", {"temperature": {"kind": "relative", "value": 1}}),
        "The config of the temperature 'relative' must have the keys ['factor']. "
        "Received: none for ['factor']",
    ),
    "allocation-unknown": (
        ("unstructured", {"allocation": "os.system"}),
        "The allocation of a single wrapper must be 'uniform', 'global', 'lamp' or a "
        "GlobalMagnitude. Received: allocation='os.system'",
    ),
    "allocation-extra": (
        ("unstructured", {"allocation": {"max_sparsity": 1, "cmd": 1}}),
        "The config of the allocation may have the keys ['max_sparsity', 'moving', "
        "'score'] only. Received: ['cmd']",
    ),
    "allocation-score": (
        ("unstructured", {"allocation": {"max_sparsity": 1, "score": ["lamp"]}}),
        "score must be one of ['lamp', 'magnitude']. Received: score=['lamp']",
    ),
    "allocation-moving": (
        ("unstructured", {"allocation": {"max_sparsity": 1, "moving": "yes"}}),
        "moving must be a bool, or None. Received: moving='yes'",
    ),
    "allocation-limit": (
        ("unstructured", {"allocation": {"max_sparsity": "1"}}),
        "max_sparsity must be a number in [0, 1], or None. Received: max_sparsity='1'",
    ),
    # A wrapper.
    "layer-missing": (
        ("unstructured", {"layer": REMOVED}),
        "The config of a PDPWrapper must have the keys ['layer']. "
        "Received: none for ['layer']",
    ),
    "layer-text": (
        ("unstructured", {"layer": "Dense"}),
        "layer must be a keras.layers.Layer. Received: layer='Dense'",
    ),
    "layer-object": (("unstructured", {"layer": SYSTEM}), "Could not locate class"),
    "layer-wrapped-already": (
        ("unstructured", {"layer/registered_name": "pdp_keras>ChannelWrapper"}),
        "A layer can be wrapped by PDPWrapper only once. "
        "Received: a layer with registered_name='pdp_keras>ChannelWrapper'",
    ),
    "build-list": (
        ("around", {"build_config": [1]}),
        "The config of the build of 'stem' must be a dict. Received: [1]",
    ),
    "build-number": (
        ("around", {"build_config/layer": 5}),
        "The config of the build of 'stem' must be a dict. Received: 5",
    ),
    "weights-text": (
        ("unstructured", {"weights": "0"}),
        "weights must be a list of integers, each once, or None. Received: weights='0'",
    ),
    "weights-twice": (
        ("unstructured", {"weights": [0, 0]}),
        "weights must be a list of integers, each once, or None. "
        "Received: weights=[0, 0]",
    ),
    "weights-beyond": (
        ("unstructured", {"weights": [10**9]}),
        "weights must index the 1 kernels of the layer. Received: weights=[1000000000]",
    ),
    "weights-that-do-not-fit": (
        (
            "2_4",
            {"mode": {"name": "nm", "n": 3, "m": 4}, "weights": [0], "sparsity": 0.25},
        ),
        "The mode must fit at least one kernel of the layer. "
        "Received: mode=NM(n=3, m=4)",
    ),
    "unknown-argument": (
        ("unstructured", {"hook": "os.system"}),
        "Unrecognized keyword arguments passed to PDPWrapper: {'hook': 'os.system'}",
    ),
    # The wrapper of channels, and its groups.
    "groups-missing": (
        ("channel", {"groups": REMOVED}),
        "The config of a ChannelWrapper must have the keys ['groups', 'path']. "
        "Received: none for ['groups']",
    ),
    "groups-dict": (
        ("channel", {"groups": {}}),
        "groups must be a list. Received: groups={}",
    ),
    "group-text": (
        ("channel", {"groups": ["stem"]}),
        "The config of a group of channels must be a dict. Received: 'stem'",
    ),
    "group-object": (
        ("channel", {"groups": [{**SYSTEM, "registered_name": "system"}]}),
        "class_name of a group of channels must be 'ChannelGroup'. "
        "Received: class_name='system'",
    ),
    "group-of-another-class": (
        ("channel", {"groups/0/registered_name": "pdp_keras>PrunedModel"}),
        "registered_name of a group of channels must be 'pdp_keras>ChannelGroup'. "
        "Received: registered_name='pdp_keras>PrunedModel'",
    ),
    "group-id": (
        ("channel", {"groups/0/shared_object_id": []}),
        "shared_object_id must be an integer. Received: shared_object_id=[]",
    ),
    "units-a-billion": (
        ("channel", {"groups/0/config/units": 10**9}),
        "All units of a group must lie along the axis. "
        "Received: 8 of 1000000000 units in 'kernel'",
    ),
    "units-text": (
        ("channel", {"groups/0/config/units": "8"}),
        "units must be a positive integer. Received: units='8'",
    ),
    "label": (
        ("channel", {"groups/0/config/label": None}),
        "label must be text. Received: label=None",
    ),
    "makers": (
        ("channel", {"groups/0/config/makers": 0}),
        "makers must be a positive integer. Received: makers=0",
    ),
    "target": (
        ("channel", {"groups/0/config/target_zeros": 9}),
        "target_zeros must not be more than there are units. "
        "Received: target_zeros=9, units=8",
    ),
    "group-mode": (
        ("channel", {"groups/0/config/mode": {"name": "unstructured"}}),
        "The mode of a group must prune channels. Received: mode=Unstructured()",
    ),
    "group-sparsity": (
        ("channel", {"groups/0/config/sparsity": "0.5"}),
        "sparsity must be a number in [0, 1): the fraction of zeros. "
        "Received: sparsity='0.5'",
    ),
    "axes-dict": (
        ("channel", {"makes": {}}),
        "makes must be a list. Received: makes={}",
    ),
    "axis-missing": (
        ("channel", {"makes/0/units": REMOVED}),
        "The config of an axis in makes must have the keys ['weight', 'axis', "
        "'groups', 'units']. Received: none for ['units']",
    ),
    "axis-extra": (
        ("channel", {"makes/0/command": "true"}),
        "The config of an axis in makes may have the keys ['weight', 'axis', "
        "'groups', 'units'] only. Received: ['command']",
    ),
    "axis-text": (
        ("channel", {"makes/0/axis": "3"}),
        "axis must be an integer. Received: axis='3'",
    ),
    "axis-beyond": (
        ("channel", {"makes/0/axis": 4}),
        "axis must be one of the 4 of the weight. Received: axis=4 of 'kernel'",
    ),
    "weight-that-is-none": (
        ("channel", {"makes/0/weight": "__class__.__init__"}),
        "An axis must name a weight of its layer. Received: '__class__.__init__'",
    ),
    "weight-beyond": (
        ("channel", {"makes/0/weight": "#7"}),
        "An axis must name a weight of its layer. Received: '#7'",
    ),
    "places": (
        ("channel", {"makes/0/groups": [0]}),
        "groups and units must say something of all 8 places along the axis. "
        "Received: 1 groups, 8 units for axis=3 of 'kernel'",
    ),
    "place-without-unit": (
        ("channel", {"makes/0/units": [0, 1, 2, 3, 4, 5, 6, -1]}),
        "Every place must have one of the 1 groups and one of its units, or -1 for "
        "both. Received: group 0, unit -1 in 'kernel'",
    ),
    "unit-beyond": (
        ("channel", {"makes/0/units": [0, 1, 2, 3, 4, 5, 6, 8]}),
        "Every place must have one of the 1 groups and one of its units, or -1 for "
        "both. Received: group 0, unit 8 in 'kernel'",
    ),
    "group-beyond": (
        ("channel", {"makes/0/groups": [1] * 8}),
        "Every place must have one of the 1 groups and one of its units, or -1 for "
        "both. Received: group 1, unit 0 in 'kernel'",
    ),
    "normalizes": (
        (
            "channel",
            {"normalizes": [{"weight": "", "axis": 0, "groups": [], "units": []}]},
        ),
        "normalizes must be empty but for a normalization over channels. "
        "Received: layer=<Conv2D name=stem, built=True>",
    ),
    "reasons": (
        ("channel", {"reasons": {"kernel": 1}}),
        "reasons must be a dict of text. Received: reasons={'kernel': 1}",
    ),
    "path": (("channel", {"path": 5}), "path must be text. Received: path=5"),
    "order": (
        ("channel", {"order": "1"}),
        "order must be an integer. Received: order='1'",
    ),
    # A subclassed model.
    "exchanged-missing": (
        ("whole", {"exchanged": REMOVED}),
        "The config of a pruned model must have the keys ['original', 'exchanged']. "
        "Received: none for ['exchanged']",
    ),
    "exchanged-list": (
        ("whole", {"exchanged": []}),
        "The config of the exchanged layers must be a dict. Received: []",
    ),
    "pruned-twice": (
        ("whole", {"original/registered_name": "pdp_keras>PrunedModel"}),
        "The original of a pruned model must not be pruned itself. "
        "Received: registered_name='pdp_keras>PrunedModel'",
    ),
    "original-object": (("whole", {"original": SYSTEM}), "Could not locate class"),
    "original-no-model": (
        ("whole", {"original": {"a": 1}}),
        "The original of a pruned model must be a plain keras.Model. "
        "Received: {'a': 1}",
    ),
    "path-of-nothing": (
        ("whole", {"exchanged/nothing": {}}),
        "A path must lead to a layer that the model holds. "
        "Received: path='nothing', model='small'",
    ),
    "path-of-no-layer": (
        ("whole", {"exchanged/call": {}}),
        "A path must lead to a layer that the model holds. "
        "Received: path='call', model='small'",
    ),
    "path-beyond": (
        ("whole", {"exchanged/hidden.5": {}}),
        "A path must lead to a layer that the model holds. "
        "Received: path='hidden.5', model='small'",
    ),
    "path-of-bookkeeping": (
        ("whole", {"exchanged/_layers.0": {}}),
        "A path must lead to a layer that the model holds. "
        "Received: path='_layers.0', model='small'",
    ),
    "path-inside-another": (
        ("whole", {"exchanged/head.kernel": {}}),
        "No exchanged layer may lie inside another. Received: path='head.kernel'",
    ),
    "kind": (
        ("whole", {"exchanged/head/kind": "os.system"}),
        "kind must be one of ['ChannelWrapper', 'PDPWrapper']. "
        "Received: kind='os.system'",
    ),
    "kind-missing": (
        ("whole", {"exchanged/head/kind": REMOVED}),
        "The config of an exchanged layer must have the keys ['wrapper', 'kind']. "
        "Received: none for ['kind']",
    ),
    "wrapper-list": (
        ("whole", {"exchanged/head/wrapper": []}),
        "The config of a PDPWrapper must be a dict. Received: []",
    ),
    "wrapper-with-a-layer": (
        ("subclassed", {"layer": "Dense"}),
        "The wrapper of an exchanged layer takes the layer of the original. "
        "Received: layer='Dense'",
    ),
    "exchanged-no-layer": (
        ("whole", {"exchanged/head": {"model": 5}}),
        "An exchanged layer must be a keras.layers.Layer. Received: model=5",
    ),
}


def put(config, path, value):
    *way, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
    holder = functools.reduce(operator.getitem, way, config)
    if value is REMOVED:
        del holder[last]
    else:
        holder[last] = value


def edited(kind, changes):
    """The file, and its config with something else at some places."""
    path = FOLDER / f"{FILES.get(kind, kind)}.keras"
    config = hostile_configs.read(path)
    for where, value in changes.items():
        put(config, f"{WRAPPER[kind]}/{where}", value)
    return path, config


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """What the configs name must not be called."""

    def run(command):
        raise AssertionError(f"ran {command!r}")

    monkeypatch.setattr(os, "system", run)


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_edited_configs(edit, message, tmp_path):
    path, config = edited(*edit)
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        hostile_configs.load(path, config, tmp_path)


MADE_FROM_CONFIGS = (
    pdp_keras.PDPWrapper,
    ChannelWrapper,
    ChannelGroup,
    PrunedModel,
    methods,
    modes,
    temperatures,
)


@pytest.mark.parametrize("value", [None, 5, "pdp", [1], ()], ids=repr)
def test_a_config_is_a_dict(value):
    for made in MADE_FROM_CONFIGS:
        read = getattr(made, "from_config", None) or made.deserialize
        with pytest.raises(
            ValueError, match=f"must be a dict.*{re.escape(repr(value))}"
        ):
            read(value)


def test_wrappers_in_wrappers_do_not_exhaust_the_stack():
    config = {"layer": None}
    for _ in range(10**4):
        name = "pdp_keras>PDPWrapper"
        layer = {"class_name": "PDPWrapper", "registered_name": name, "config": config}
        config = {"layer": layer}
    with pytest.raises(ValueError, match="only once"):
        pdp_keras.PDPWrapper.from_config(config)


def use(model):
    """Runs all that reads what a config said."""
    model(make.INPUTS[:2])
    model(make.INPUTS[:2], training=True)
    pdp_keras.sparsity_report(model)
    with warnings.catch_warnings():
        # The ramp has not ended yet.
        warnings.simplefilter("ignore", UserWarning)
        pdp_keras.strip_pruning(model)(make.INPUTS[:2])


def test_a_group_of_a_billion_takes_no_more_than_the_axis(tmp_path):
    mode = {"name": "nm", "n": 2, "m": 10**9}
    path, config = edited("2_4", {"mode": mode, "sparsity": None})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use(hostile_configs.load(path, config, tmp_path))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 10**6  # KiB; a group of a billion has 4,000,000


@pytest.mark.parametrize("case", ["unstructured", "2_4", "channel_dcp", "subclassed"])
@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 1000), marks=pytest.mark.slow)], ids=len
)
def test_damaged_configs_load_or_say_what_they_have(case, seeds, tmp_path):
    path = FOLDER / f"{case}.keras"
    whole = hostile_configs.read(path)
    outcomes = collections.Counter()
    for seed in seeds:
        config, changes = hostile_configs.damaged(whole, random.Random(seed))
        try:
            use(hostile_configs.load(path, config, tmp_path))
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
