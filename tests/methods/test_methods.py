"""The table of methods: names, arguments, modes, and errors."""

import dataclasses
import json
import math
import re

import models
import pytest
from keras import layers

from pdp_keras import Channel, PDPWrapper, RelativeTemperature, methods, prune_model
from pdp_keras.pruned import parts

# What prunes single weights; methods of channels have `channel_conformance.py`.
SINGLE = [
    "pdp",
    "pdp_paper",
    "gmp",
    "dnw",
    "str",
    "optg",
    "acdc",
    "granet",
    "rigl",
    "movement",
    "soft_movement",
    "pofa",
    "sr_ste",
]
NAMES = [*SINGLE, "nisp", "dcp", "scp"]
ALIASES = {"idp": "pdp", "magnitude": "gmp"}
LEARNED = {"str", "soft_movement"}
SET_ZEROS = {*LEARNED, "dcp"}
SOFT = {"pdp", "pdp_paper"}
# What each can prune where it is not single weights alone.
MODES = {
    "pdp": {"unstructured", "nm", "block", "channel"},
    "pdp_paper": {"unstructured", "nm", "block", "channel"},
    "gmp": {"unstructured", "nm", "block", "channel"},
    "dnw": {"unstructured", "nm", "block"},
    "sr_ste": {"unstructured", "nm", "block"},
    "nisp": {"channel"},
    "dcp": {"channel"},
    "scp": {"channel"},
}


def test_the_table():
    assert list(methods.METHODS) == NAMES
    for name, method in methods.METHODS.items():
        assert method.name == name
        assert isinstance(methods.get(name), method)
        assert methods.get(name).learns_sparsity == (name in LEARNED)
        assert methods.get(name).sets_zeros == (name in SET_ZEROS)
        assert methods.get(name).is_soft == (name in SOFT)
        assert set(method.modes) == MODES.get(name, {"unstructured"})


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias, name):
    assert methods.get(alias) == methods.get(name)
    arguments = {"max_gain": 1.0} if name == "pdp" else {}
    assert methods.serialize(methods.get(alias)) == {"name": name, **arguments}


# Objects that differ from the defaults.
OTHERS = [
    methods.RigL(exchanged=0.5, frequency=7, until=0.25, seed=3),
    methods.GraNet(0.4, 0.1, 9),
    methods.STR(initial=-3.0, decay=0.5),
    methods.SoftMovement(force=2.0, threshold=0.25),
    methods.POFA(frequency=3),
    methods.OptG(steepness=5.0),
    methods.SRSTE(decay=0.0),
]


@pytest.mark.parametrize("method", [*map(methods.get, methods.METHODS), *OTHERS])
def test_serialize_is_undone_by_deserialize(method):
    config = json.loads(json.dumps(methods.serialize(method)))
    copy = dict(config)
    for found in (methods.deserialize(config), methods.get(config)):
        assert found == method and type(found) is type(method)
        assert hash(found) == hash(method)
    assert config == copy  # and left as it was
    assert methods.get(method) is method


def test_methods_are_equal_by_kind_and_arguments():
    every = {*map(methods.get, methods.METHODS), *OTHERS}
    assert len(every) == len(NAMES) + len(OTHERS)
    assert methods.RigL() == methods.RigL(seed=0) != methods.RigL(seed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        methods.RigL().seed = 1


# id: method, error
ERRORS = {
    "name": ("lamp", ValueError),
    "case": ("PDP", ValueError),
    "empty": ("", ValueError),
    "none": (None, TypeError),
    "number": (4, TypeError),
    "class": (methods.RigL, TypeError),
}


@pytest.mark.parametrize(("method", "error"), ERRORS.values(), ids=ERRORS)
def test_errors_list_the_names_and_what_was_received(method, error):
    message = f"must be one of {sorted(NAMES)} or a method object. Received: {method=}"
    with pytest.raises(error, match=f"{re.escape(message)}$"):
        methods.get(method)
    with pytest.raises(error, match=re.escape(message)):
        prune_model(models.mlp(), method=method)


@pytest.mark.parametrize("config", [{"name": "lamp"}, {}], ids=["unknown", "empty"])
def test_errors_of_a_config(config):
    message = rf"name must be one of .*'rigl'.*Received: name={config.get('name')!r}$"
    with pytest.raises(ValueError, match=message):
        methods.get(config)


# What a file of before has, and what a user may write. id: config, argument, value
OLDER = {
    "masks once an epoch": ({"name": "optg", "steepness": 20.0}, "masks", 1),
    "scores as fast as weights": (
        {"name": "soft_movement", "force": 400.0, "threshold": 0.1},
        "rate",
        1.0,
    ),
    "a user's optg": ({"name": "optg"}, "masks", 100),
    "a user's soft movement": ({"name": "soft_movement", "force": 4.0}, "rate", 333.0),
    "a new file": ({"name": "optg", "steepness": 20.0, "masks": 7}, "masks", 7),
}


@pytest.mark.parametrize(("config", "argument", "value"), OLDER.values(), ids=OLDER)
def test_older_files_go_on_as_they_were(config, argument, value):
    assert getattr(methods.deserialize(config), argument) == value


# Every argument of every method, what it must be, and what it is not.
FRACTION = "a number in [0, 1]"
POSITIVE = "a positive number"
NOT_NEGATIVE = "a number >= 0"
ARGUMENTS = {
    ("pdp", "max_gain"): ("a positive number, or None", [0, "1", True, [1]]),
    ("pdp_paper", "max_gain"): ("a positive number, or None", [-1.0, math.nan]),
    ("str", "initial"): ("a finite number", [math.nan, math.inf, "-6", None]),
    ("str", "decay"): (NOT_NEGATIVE, [-0.01, math.nan, "0.01", None]),
    ("str", "rate"): (POSITIVE, [0, -1, math.inf, "1", None]),
    ("optg", "steepness"): (NOT_NEGATIVE, [-1, math.inf, "20", None]),
    ("optg", "masks"): ("a positive integer", [0, -1, 1.5, "100", True]),
    ("granet", "exchanged"): (FRACTION, [5, -0.1, math.nan, "0.5", None, True]),
    ("granet", "exchanged_last"): (FRACTION, [5, "0.5"]),
    ("granet", "frequency"): ("a positive integer", [0, -1, 1.5, "100", True]),
    ("rigl", "exchanged"): (FRACTION, [1.1, math.nan, "0.3", None, {}]),
    ("rigl", "frequency"): ("a positive integer", [0, -1, 1.5, None]),
    ("rigl", "until"): ("a number in (0, 1]", [0, 2, math.nan, "0.75"]),
    ("rigl", "seed"): ("an integer >= 0", [-1, 0.5, "0", None, True]),
    ("soft_movement", "force"): (NOT_NEGATIVE, [-1, math.inf, "400"]),
    ("soft_movement", "threshold"): (
        "in (0, 0.5): scores start at 0, whose sigmoid is 0.5",
        [0.5, 0, math.nan, "0.1", None],
    ),
    ("soft_movement", "rate"): (POSITIVE, [0, -1, math.nan, "333", None]),
    ("pofa", "frequency"): ("a positive integer", [0, -1, 1.5, "100"]),
    ("sr_ste", "decay"): (NOT_NEGATIVE, [-1, math.inf, "0.1", None]),
    ("scp", "force"): (POSITIVE, [0, math.nan, "0.1", None]),
    ("scp", "softness"): (POSITIVE, [0, -1, "0.5"]),
    ("scp", "sharpness"): (POSITIVE, [0, math.inf, True]),
}


def test_every_argument_has_a_rule():
    arguments = {
        (name, field.name)
        for name, method in methods.METHODS.items()
        for field in dataclasses.fields(method)
    }
    assert arguments == ARGUMENTS.keys()


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_arguments_are_checked_when_a_method_is_made(name, argument):
    rule, values = ARGUMENTS[name, argument]
    for value in values:
        message = f"{argument} must be {rule}. Received: {argument}={value!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            methods.get({"name": name, argument: value})


# What looks like a name, and what Python or Keras could import.
STRANGE = {
    "dotted": ({"name": "os.system"}, "name='os.system'"),
    "a list": ({"name": ["rigl"]}, "name=['rigl']"),
    "an object": (
        {"module": "os", "class_name": "system", "config": {"command": "true"}},
        "name=None",
    ),
    "extra": ({"name": "pofa", "cmd": "true"}, "['frequency'] only. Received: ['cmd']"),
}


@pytest.mark.parametrize(("config", "received"), STRANGE.values(), ids=STRANGE)
def test_names_are_looked_up_and_never_imported(config, received):
    with pytest.raises(ValueError, match=f"{re.escape(received)}$"):
        methods.get(config)


MODE_OBJECTS = {"nm": "2:4", "channel": Channel()}


@pytest.mark.parametrize("mode", MODE_OBJECTS)
@pytest.mark.parametrize("name", SINGLE)
def test_a_method_prunes_its_own_modes_only(name, mode):
    """The message names the modes that it can."""
    model, wanted = models.mlp(), MODE_OBJECTS[mode]
    if mode in MODES.get(name, ()):
        pruned = prune_model(model, mode=wanted, method=name)
        assert {part.method.name for part in parts.pruned_parts(pruned)} == {name}
        return
    modes = re.escape(str(list(methods.get(name).modes)))
    message = f"method='{name}' prunes the units of {modes} only. Received: mode="
    with pytest.raises(ValueError, match=message):
        prune_model(model, mode=wanted, method=name)
    with pytest.raises(ValueError, match=message):
        PDPWrapper(layers.Dense(2), mode=wanted, method=name)


@pytest.mark.parametrize("temperature", [0.1, RelativeTemperature(0.5)], ids=repr)
@pytest.mark.parametrize("name", [name for name in SINGLE if name not in SOFT])
def test_only_a_soft_mask_has_a_temperature(name, temperature):
    message = re.escape(f"Received: temperature={temperature!r}, method={name!r}")
    with pytest.raises(ValueError, match=f"Only a soft mask .*{message}"):
        prune_model(models.mlp(), method=name, temperature=temperature)
    with pytest.raises(ValueError, match=message):
        PDPWrapper(layers.Dense(2), method=name, temperature=temperature)


def test_channels_have_no_temperature_without_a_soft_mask():
    with pytest.raises(ValueError, match=r"temperature=0\.1, method='gmp'"):
        prune_model(models.mlp(), mode="channel", method="gmp", temperature=0.1)
