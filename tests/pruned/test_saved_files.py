"""Models that earlier versions saved load, compute the same and go on training."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "saved_files"
sys.path.insert(0, str(FOLDER))

import make  # noqa: E402

EXPECTED = np.load(FOLDER / "expected.npz")
# It draws its masks, and Keras saves no seeds.
DRAWN = ("channel_scp",)


@pytest.fixture(params=make.CASES)
def case(request):
    return request.param


@pytest.fixture
def model(case):
    return keras.saving.load_model(FOLDER / f"{case}.keras")


def test_a_loaded_model_is_the_saved_one(case, model):
    found = make.observed(model)
    assert found["/zeros"].tolist() == EXPECTED[f"{case}/zeros"].tolist()
    for what in ("", "/stripped"):
        np.testing.assert_allclose(
            found[what], EXPECTED[case + what], rtol=1e-4, atol=1e-5
        )


def test_a_loaded_model_goes_on_training(case, model):
    finished = make.finished(model)
    if case not in DRAWN:
        np.testing.assert_allclose(
            finished, EXPECTED[f"{case}/finished"], rtol=1e-3, atol=1e-4
        )
