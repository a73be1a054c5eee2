"""Union-find over labels, and squashed label arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp_keras.channels.labels import (
    FIXED,
    Atoms,
    LabelledTensor,
    expand,
    fixed_tensor,
    squash,
)


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: nothing here needs Keras."""


def test_fresh_labels_are_classes_of_their_own():
    atoms = Atoms()
    labels = np.concatenate([atoms.fresh(3), atoms.fresh(2000)])
    assert len(np.unique(labels)) == 2003
    assert FIXED not in labels
    np.testing.assert_array_equal(atoms.canonical(labels), labels)


def test_join_broadcasts():
    atoms = Atoms()
    grid = atoms.fresh(6).reshape(2, 3)
    line = atoms.fresh(3)
    atoms.join(grid, line)
    classes = atoms.canonical(grid)
    np.testing.assert_array_equal(classes[0], classes[1])
    np.testing.assert_array_equal(classes[0], atoms.canonical(line))
    assert len(np.unique(classes)) == 3


def test_join_along_an_axis():
    atoms = Atoms()
    grid = atoms.fresh(6).reshape(2, 3)
    joined = atoms.join_along(grid, 1)
    assert joined.shape == (2, 1)
    assert len(np.unique(atoms.canonical(grid))) == 2


def test_what_is_joined_with_fixed_labels_is_fixed():
    atoms = Atoms()
    a, b = atoms.fresh(2), atoms.fresh(2)
    atoms.join(a, b)
    atoms.join(b[:1], np.array([FIXED]))
    np.testing.assert_array_equal(atoms.canonical(a) == FIXED, [True, False])
    assert atoms.reason(int(a[0])).kind == "structure"
    assert atoms.reason(int(a[1])) is None


def test_the_most_telling_reason_is_named():
    atoms = Atoms()
    a, b, c = (atoms.fresh(1) for _ in range(3))
    atoms.fix(a, "structure", "mixed")
    atoms.fix(b, "unknown", "no rule")
    atoms.fix(c, "output", "an output")
    atoms.join(a, np.array([FIXED]))
    assert atoms.reason(int(a[0])).text == "mixed"
    atoms.join(a, b)
    assert atoms.reason(int(a[0])).text == "no rule"
    atoms.join(a, c)
    assert {atoms.reason(int(x[0])).kind for x in (a, b, c)} == {"output"}


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=40))
def test_joins_agree_with_a_walk_over_the_pairs(pairs):
    atoms = Atoms()
    labels = atoms.fresh(30)
    component = {int(x): {int(x)} for x in labels}
    for a, b in pairs:
        atoms.join(np.array([a]), np.array([b]))
        both = component[a] | component[b]
        for x in both:
            component[x] = both
    classes = dict(zip(labels.tolist(), atoms.canonical(labels).tolist(), strict=True))
    for a in component:
        for b in component:
            assert (classes[a] == classes[b]) == (b in component[a])


def test_squash_and_expand():
    labels = np.tile(np.arange(1, 4), (1, 5, 1))
    squashed = squash(labels)
    assert squashed.shape == (1, 1, 3)
    np.testing.assert_array_equal(expand(squashed, 1, 5), labels)
    assert expand(squashed, 1, None) is squashed
    assert squash(np.zeros((2, 3), np.int64)).shape == (1, 1)


def test_axes_along_which_labels_vary():
    tensor = LabelledTensor(np.arange(1, 4).reshape(1, 1, 3), (None, 7, 3))
    assert tensor.varying == (2,)
    assert tensor.rank == 3
    assert fixed_tensor((None, 7, 3)).varying == ()
