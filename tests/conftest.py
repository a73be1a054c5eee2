"""What every test shares: a quiet, seeded, freshly cleared Keras."""

import gc
import os
import sys

# Before TensorFlow and matplotlib are imported: only then are they heard.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import keras
import pytest

# Clearing a session collects garbage, which walks over all that is alive unless it is
# set apart: what the imports have left, and, test by test, the graphs that TensorFlow
# keeps. It would take a third of a second after thirty tests, and longer with each.
gc.freeze()

# The first call of a property traces graphs, which no deadline foresees; the same
# examples in every run, so that a failure is the fault of the change under test.
hypothesis.settings.register_profile("pdp_keras", deadline=None, derandomize=True)
hypothesis.settings.load_profile("pdp_keras")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests as well")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(autouse=True)
def seeded_session():
    """Makes a test's random numbers and layer names independent of its neighbours'."""
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def collected_garbage():
    """Frees, file by file, what was alive when it was set apart."""
    yield
    gc.unfreeze()
    gc.collect()
    gc.freeze()


if __name__ == "__main__":  # Bazel's py_test runs a file, not pytest.
    sys.exit(pytest.main(sys.argv[1:]))
