"""How functions are run: in PyTorch by pieces. XLA's programs are tested where used."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pdp_keras import compiled

torch = pytest.importorskip("torch")

SHAPES = {
    "one-piece": ((7,), ()),
    "just-one-piece": ((64,), ()),
    "one-more": ((65,), ()),
    "many": ((1000,), ()),
    "kernel": ((3, 3, 20, 5), ()),
    "a-number-in-an-array": ((3, 3, 20, 5), (1, 1)),
    "as-many-thresholds": ((9, 30), (9, 30)),
    "groups": ((1, 40, 4, 10), (1, 40, 1, 10)),
    "short-groups-of-many": ((1, 2, 4, 1000), (1, 2, 1, 1000)),
    "rows": ((300, 4), (300, 1)),
    "columns": ((4, 300), (300,)),
    "no-common-axis": ((300, 1, 4), (1, 5, 1)),
    "lower-rank": ((2, 3), (300, 1, 1)),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(compiled, "_PIECE", 64)


def compute(weights, threshold):
    return weights * (weights.abs() > threshold)


@pytest.mark.parametrize("name", SHAPES)
def test_pieces_give_what_the_whole_gives(name):
    shape, other = SHAPES[name]
    random = np.random.default_rng(0)
    weights = torch.tensor(random.standard_normal(shape, "float32"))
    threshold = torch.tensor(np.asarray(random.random(other), "float32"))
    got = compiled._in_pieces(compute)(weights, threshold)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got, compute(weights, threshold))


def test_no_piece_is_larger_than_it_may_be():
    sizes = []

    def watched(weights, threshold):
        sizes.append(weights.numel())
        return compute(weights, threshold)

    compiled._in_pieces(watched)(torch.ones((3, 3, 20, 5)), torch.ones(()))
    assert sizes == [64] * 14 + [4]


def test_pieces_are_taken_of_what_is_not_contiguous():
    weights = torch.arange(600.0).reshape(20, 30).T
    got = compiled._in_pieces(compute)(weights, torch.tensor(100.0))
    np.testing.assert_array_equal(got, compute(weights, torch.tensor(100.0)))


def test_only_functions_of_single_values_run_in_pieces(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(compiled, "_in_pieces", lambda function: lambda *_: "pieces")
    total = compiled.compiled(least=10)(lambda x: x.sum())
    double = compiled.compiled(least=10, by_value=True)(lambda x: 2 * x)
    assert float(total(torch.ones(10))) == 10
    assert double(torch.ones(10)) == "pieces"
    assert float(double(torch.ones(1))) == 2
