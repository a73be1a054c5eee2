"""What a linear model of single words makes of a task: the mark for a network.

A pair is read in four ways: only its hypothesis, only its premise, both, and both with
the words that they share. What one side alone gives away is not understood but an
artefact of how the data was made.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from text_data import Examples, TextData

_Matrix = scipy.sparse.csr_matrix
_PENALTIES = (1e-6, 1e-5, 1e-4)
_PASSES = 20  # over the training data


def accuracies(data: TextData) -> dict[str, float]:
    """The test accuracy of the largest class and of each way to read the texts.

    The penalty is chosen on the validation data.
    """
    found = {"largest class": largest_class(data)}
    for name, features in _readings(data).items():
        found[name] = _accuracy(data, *features)
    return found


def largest_class(data: TextData) -> float:
    """The fraction of the test data that has the most frequent label in training."""
    return float(np.mean(data.test.labels == np.bincount(data.train.labels).argmax()))


def _readings(data: TextData) -> dict[str, list[_Matrix]]:
    """For each way to read the texts the features of the three splits."""
    splits = (data.train, data.val, data.test)
    texts = data.train.first + (data.train.second or [])
    # Two words in a row help with single texts, and hardly with pairs.
    longest = 1 if data.train.second else 2
    vectorizer = TfidfVectorizer(
        ngram_range=(1, longest), min_df=2, sublinear_tf=True, dtype=np.float32
    ).fit(texts)
    first = [vectorizer.transform(split.first) for split in splits]
    if data.train.second is None:
        return {"words": first}
    second = [vectorizer.transform(_hypotheses(split)) for split in splits]
    both = [
        scipy.sparse.hstack([a, b], "csr") for a, b in zip(first, second, strict=True)
    ]
    shared = [
        scipy.sparse.hstack([x, a.multiply(b), a.multiply(b).sum(axis=1)], "csr")
        for x, a, b in zip(both, first, second, strict=True)
    ]
    return {
        "hypothesis only": second,
        "premise only": first,
        "both": both,
        "both, and what they share": shared,
    }


def _hypotheses(examples: Examples) -> list[str]:
    assert examples.second is not None
    return examples.second


def _accuracy(data: TextData, train: _Matrix, val: _Matrix, test: _Matrix) -> float:
    """The test accuracy with the penalty that is best on the validation data."""
    fitted = [
        SGDClassifier(
            loss="log_loss", alpha=penalty, max_iter=_PASSES, tol=None, random_state=0
        ).fit(train, data.train.labels)
        for penalty in _PENALTIES
    ]
    best = max(fitted, key=lambda one: one.score(val, data.val.labels))
    return float(best.score(test, data.test.labels))
