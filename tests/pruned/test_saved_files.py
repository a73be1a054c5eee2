"""Models that earlier versions saved load, compute the same and go on training."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from packaging.version import Version

# Keras itself does not read the files of a newer one.
pytestmark = pytest.mark.skipif(
    Version(keras.__version__) < Version("3.15"), reason="saved by Keras 3.15"
)

FOLDER = Path(__file__).parents[1] / "saved_files"
sys.path.insert(0, str(FOLDER))

import make  # noqa: E402

EXPECTED = np.load(FOLDER / "expected.npz")
# It draws its masks, and Keras saves no seeds.
DRAWN = ("channel_scp",)


# One of each kind; the others have nothing in their files that these have not.
QUICK = ("unstructured", "1_4_sr_ste", "rigl", "channel_scp", "subclassed")
CASES = [
    c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in make.CASES
]


def loaded(case):
    return keras.saving.load_model(FOLDER / f"{case}.keras")


@pytest.mark.parametrize("case", make.CASES)
def test_a_loaded_model_is_the_saved_one(case):
    model = loaded(case)
    found = make.observed(model)
    assert found["/zeros"].tolist() == EXPECTED[f"{case}/zeros"].tolist()
    for what in ("", "/stripped"):
        np.testing.assert_allclose(
            found[what], EXPECTED[case + what], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_model_goes_on_training(case):
    finished = make.finished(loaded(case))
    if case not in DRAWN:
        np.testing.assert_allclose(
            finished, EXPECTED[f"{case}/finished"], rtol=1e-3, atol=1e-4
        )
