"""Configs of saved models, damaged at random where this package reads them."""

import copy
import json
import traceback
import warnings
import zipfile

import keras

SYSTEM = {"module": "os", "class_name": "system", "config": {"command": "true"}}
# In place of a value: the key is to be taken away.
REMOVED = object()
# What stands at a random place instead.
VALUES = (
    5,
    -1,
    0,
    10**9,
    10**400,
    0.5,
    float("nan"),
    float("inf"),
    1e308,
    "0.5",
    "",
    "os.system",
    "../__class__",
    None,
    True,
    False,
    [],
    [0],
    [[0]],
    ["a", None],
    {},
    {"a": 1},
    {"name": "rigl"},
    {"module": "os", "class_name": "system", "config": {"command": "true"}},
    {"module": "os", "class_name": "function", "config": "system"},
)
# What Keras reads, or the user's own class: these are exchanged as wholes only.
FOREIGN = ("layer", "original", "dtype", "model")


def read(path):
    """The config in a `.keras` file, without what it was compiled with."""
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    config.pop("compile_config", None)
    return config


def load(path, config, folder):
    """Loads the file with another config."""
    changed = folder / path.name
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            is_config = name == "config.json"
            new.writestr(name, json.dumps(config) if is_config else old.read(name))
    with warnings.catch_warnings():
        # Keras warns of weights that it has no place for, before it refuses.
        warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
        return keras.saving.load_model(changed)


def origin(error):
    """The first error of a chain, and the file that raised it."""
    while error.__context__ is not None:
        error = error.__context__
    return error, traceback.extract_tb(error.__traceback__)[-1].filename


def places(config):
    """Where this package reads a config: `(container, key)` of each value."""
    found = []

    def visit(value, ours):
        if isinstance(value, dict):
            is_ours = str(value.get("registered_name")).startswith("pdp_keras>")
            for key, item in value.items():
                if ours and not is_ours and key != "dtype":
                    found.append((value, key))
                # Of what is around a config of ours, Keras reads all but this.
                inside = key == "config" if is_ours else ours
                visit(item, inside and key not in FOREIGN)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if ours:
                    found.append((value, index))
                visit(item, ours)

    visit(config, ours=False)
    return found


def damaged(config, random):
    """A copy with one to three changes, and what they were."""
    config = copy.deepcopy(config)
    changes = []
    for _ in range(random.choice((1, 1, 2, 3))):
        known = places(config)
        if not known:
            break
        container, key = random.choice(known)
        change = random.choice(CHANGES)
        changes.append((change.__name__, key, change(container, key, known, random)))
    return config, changes


def replace(container, key, known, random):
    """Another value."""
    container[key] = copy.deepcopy(random.choice(VALUES))
    return container[key]


def remove(container, key, known, random):
    """Nothing in its place."""
    return container.pop(key)


def repeat(container, key, known, random):
    """The value once more; or an argument that nobody knows."""
    if isinstance(container, list):
        container.append(copy.deepcopy(container[key]))
    else:
        container["extra"] = copy.deepcopy(container[key])


def take_over(container, key, known, random):
    """The value of another place."""
    other, place = random.choice(known)
    container[key] = copy.deepcopy(other[place])
    return container[key]


CHANGES = (replace, replace, remove, repeat, take_over)
