"""One product at a time: which weights go, and what becomes of the others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp_keras.one_shot import METHODS, Wanted
from pdp_keras.one_shot import methods as module

TINY = 1e-12


def wanted(sparsity=0.5, nm=None, run=None, damping=TINY):
    return Wanted(sparsity, nm, run or 10**6, damping)


def correlated(rng, rows, inputs):
    return rng.normal(size=(rows, inputs)) @ rng.normal(size=(inputs, inputs))


def test_magnitude_and_wanda_by_hand():
    weights = np.array([[3.0, 1.0], [-2.0, 4.0]])
    gram = np.diag([1.0, 9.0])  # norms 1 and 3
    got = METHODS["magnitude"](weights, None, wanted(0.5))
    np.testing.assert_array_equal(got, [[3, 0], [0, 4]])
    # For each output: 3 * 1 < 2 * 3, and 1 * 1 < 4 * 3.
    got = METHODS["wanda"](weights, gram, wanted(0.5))
    np.testing.assert_array_equal(got, [[0, 0], [-2, 4]])


def test_sparsegpt_makes_up_for_what_goes():
    # The first weight goes, and its input is half the second: w2 + w1 * G12 / G22.
    weights = np.array([[0.1], [1.0]])
    gram = np.array([[2.0, 2.0], [2.0, 4.0]])
    got = METHODS["sparsegpt"](weights, gram, wanted(0.5))
    np.testing.assert_allclose(got, [[0.0], [1.0 + 0.1 * 2 / 4]])


def test_what_lies_behind_is_not_changed():
    weights = np.array([[1.0], [0.1]])
    gram = np.array([[2.0, 1.0], [1.0, 4.0]])
    got = METHODS["sparsegpt"](weights, gram, wanted(0.5))
    np.testing.assert_allclose(got, [[1.0], [0.0]])


def reference(weights, gram, kept_of):
    """One input after the other, each with an inverse of its own."""
    weights = weights.copy()
    kept = np.ones(weights.shape, dtype=bool)
    inputs = len(weights)
    inverses = [np.linalg.inv(gram[i:, i:]) for i in range(inputs)]
    scales = np.array([inverse[0, 0] for inverse in inverses])[:, None]
    for i in range(inputs):
        kept_of(i, weights**2 / scales, kept)
        for output in np.flatnonzero(~kept[i]):
            step = weights[i, output] / inverses[i][0, 0]
            weights[i:, output] -= step * inverses[i][:, 0]
            weights[i, output] = 0.0
    return weights


@pytest.mark.parametrize("n, m", [(2, 4), (1, 4), (3, 8)])
@pytest.mark.parametrize("inputs, run, block", [(24, 24, 8), (22, 11, 8), (9, 9, 128)])
def test_sparsegpt_is_the_reference_n_of_m(monkeypatch, n, m, inputs, run, block):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(inputs)
    x = correlated(rng, 100, inputs)
    weights, gram = rng.normal(size=(inputs, 5)), x.T @ x

    def kept_of(i, scores, kept):
        if i % run % m == 0:
            end = min(i + m, (i // run + 1) * run)
            for output in range(5):
                order = np.argsort(scores[i:end, output], kind="stable")
                kept[i + order[: max(0, end - i - n)], output] = False

    got = METHODS["sparsegpt"](weights, gram, wanted(nm=(n, m), run=run))
    np.testing.assert_allclose(got, reference(weights, gram, kept_of), atol=1e-6)
    for start in range(0, inputs, run):
        for group in range(start, start + run, m):
            rows = got[group : min(group + m, start + run)]
            assert ((rows != 0).sum(0) == min(n, len(rows))).all()


@given(
    inputs=st.integers(1, 20),
    outputs=st.integers(1, 6),
    sparsity=st.floats(0, 0.99),
    method=st.sampled_from(["sparsegpt", "magnitude"]),
    dead=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_zeros_are_exact(inputs, outputs, sparsity, method, dead):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, inputs))
    if dead:
        x[:, ::2] = 0
    weights = rng.normal(size=(inputs, outputs))
    given_ = x.T @ x, wanted(sparsity, damping=0.01)
    got = METHODS[method](weights, *given_)
    assert (got == 0).sum() == round(sparsity * weights.size)
    assert np.isfinite(got).all()


def test_the_better_method_keeps_more_of_the_outputs():
    rng = np.random.default_rng(5)
    x = correlated(rng, 500, 64) * np.geomspace(0.1, 3, 64)
    weights, gram = rng.normal(size=(64, 32)), x.T @ x
    for nm in (None, (2, 4)):
        errors = {}
        for name, method in METHODS.items():
            got = method(weights, gram, wanted(0.5, nm, 64, damping=0.01))
            errors[name] = np.square(x @ (got - weights)).sum()
        assert errors["sparsegpt"] < 0.9 * errors["wanda"]
        assert errors["wanda"] < errors["magnitude"]
