"""WordNet's format, and the tasks made of it: literal texts, and nothing leaks."""

import collections
import importlib
import itertools
import pathlib
import sys

import numpy as np
import pytest
from wordnet_files import write_tree, write_wordnet

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
wordnet = importlib.import_module("wordnet")
text_data = importlib.import_module("text_data")

DOG = '05 n 02 dog 0 domestic_dog 0 001 @ 00000001 n 0000 | a canine; "good dog!"'
KINDS = {
    "noun": {
        1: "05 n 01 animal 0 000 | a living organism",
        2: DOG,
        3: "05 n 01 cat 0 001 @ 00000001 n 0000 | a feline",
        4: "05 n 01 poodle 0 001 @ 00000002 n 0000 | a curly dog",
        5: "05 n 01 terrier 0 001 @ 00000002 n 0000 | a small dog",
        6: "05 n 01 siamese 0 001 @ 00000003 n 0000 | a slender cat",
        7: "05 n 01 angora 0 001 @ 00000003 n 0000 | a long-haired cat",
    },
    "verb": {
        1: "38 v 01 rise 0 001 ! 00000002 v 0101 01 + 08 00 | go up",
        2: "38 v 01 fall 0 001 ! 00000001 v 0101 01 + 08 00 | go down",
        3: "38 v 01 soar 0 001 @ 00000001 v 0000 01 + 08 00 | go up fast",
        4: "38 v 01 sink 0 001 @ 00000002 v 0000 01 + 08 00 | go down slowly",
    },
    "adj": {1: '00 s 01 quick(a) 0 000 | fast; "a quick look"; "a quick'},
    "adv": {1: "02 r 01 quickly 0 000 | in a quick manner"},
}


def everything_in(synsets, split="train"):
    return dict.fromkeys(synsets, split)


def rows_of(examples, classes):
    labels = [classes[i] for i in examples.labels]
    return sorted(zip(examples.first, examples.second, labels, strict=True))


def test_synsets_are_read(tmp_path):
    synsets = wordnet.read_synsets(write_wordnet(tmp_path, KINDS))
    assert len(synsets) == 13
    assert synsets["n00000002"] == wordnet.Synset(
        key="n00000002",
        topic=5,
        words=("dog", "domestic dog"),
        gloss="a canine",
        hypernyms=("n00000001",),
        antonyms=(),
    )
    assert wordnet.TOPICS[synsets["n00000002"].topic] == "noun.animal"
    assert synsets["v00000001"].antonyms == ("v00000002",)
    assert synsets["a00000001"].gloss == "fast"
    assert synsets["r00000001"].words == ("quickly",)


def test_topics_are_the_45_files_in_order():
    assert len(set(wordnet.TOPICS)) == 45
    numbers = {"adj.all": 0, "noun.Tops": 3, "noun.time": 28, "verb.body": 29}
    assert {name: wordnet.TOPICS.index(name) for name in numbers} == numbers
    assert wordnet.TOPICS[43:] == ("verb.weather", "adj.ppl")


@pytest.mark.parametrize(
    ("gloss", "expected"),
    [
        (' move fast; "He ran"  ', "move fast"),
        (' move; "Run!"; on foot; "he ran', "move; on foot"),
        (" of a kind: for example, ", "of a kind: for example"),
        (' "only an example" ', ""),
        (" two  spaces ; and (1) signs-", "two spaces; and (1) signs"),
    ],
)
def test_examples_of_use_are_cut(gloss, expected):
    assert wordnet.without_examples(gloss) == expected


@pytest.mark.parametrize(
    "line",
    [
        "no bar",
        "05 n 01 animal 0 000",
        "45 n 01 animal 0 000 | a topic that is not",
        "05 n 01 animal 0 xyz | pointers",
        "05 n 02 animal 0 | fewer words than said",
        "05 n 01 animal 0 002 @ 00000001 n 0000 | fewer pointers than said",
    ],
)
def test_damaged_lines_are_errors(tmp_path, line):
    folder = write_wordnet(tmp_path, {**KINDS, "noun": {1: line}})
    with pytest.raises(ValueError, match=r"synset in WordNet's format.*line 2 of .*"):
        wordnet.read_synsets(folder)


def test_missing_files_name_the_package(tmp_path):
    write_wordnet(tmp_path, KINDS)
    (tmp_path / "data.verb").unlink()
    with pytest.raises(FileNotFoundError, match=r"wordnet-base.*without data.verb"):
        text_data.load("glosses", tmp_path)


def test_pairs_of_a_small_tree(tmp_path):
    synsets = wordnet.read_synsets(write_wordnet(tmp_path, KINDS))
    data = text_data.pairs(synsets, everything_in(synsets), seed=0)
    assert data.classes == ("entailment", "neutral", "contradiction")
    assert len(data.val) == len(data.test) == 0
    found = collections.defaultdict(list)
    for premise, hypothesis, label in rows_of(data.train, data.classes):
        found[hypothesis, label].append(premise)
    # One sister each, so one premise each.
    assert {key: len(value) for key, value in found.items()} == {
        (hypothesis, label): 1
        for hypothesis in ("a canine", "a feline", "go up", "go down")
        for label in data.classes
    }
    dogs, cats = {"a curly dog", "a small dog"}, {"a slender cat", "a long-haired cat"}
    assert set(found["a canine", "entailment"]) <= dogs
    assert set(found["a feline", "entailment"]) <= cats
    assert found["a canine", "contradiction"] == ["a feline"]
    assert found["a feline", "contradiction"] == ["a canine"]
    assert set(found["a canine", "neutral"]) <= cats
    assert set(found["a feline", "neutral"]) <= dogs
    assert found["go up", "entailment"] == ["go up fast"]
    assert found["go up", "contradiction"] == ["go down"]
    assert found["go up", "neutral"] == ["go down slowly"]


def test_a_circle_of_hypernyms_ends(tmp_path):
    kinds = {**KINDS, "noun": dict(KINDS["noun"])}
    kinds["noun"][1] = "05 n 01 animal 0 001 @ 00000004 n 0000 | a living organism"
    synsets = wordnet.read_synsets(write_wordnet(tmp_path, kinds))
    splits = text_data.split_synsets(synsets, seed=0)
    assert list(splits) != [] and set(splits) == set(synsets)
    text_data.pairs(synsets, everything_in(synsets), seed=0)


def texts_of(data):
    return {
        name: set(getattr(data, name).first) | set(getattr(data, name).second or ())
        for name in text_data.SPLITS
    }


def assert_no_leaks(folder, seed):
    read = set(text_data.training_glosses(folder, seed=seed))
    for task in ("glosses", "pairs"):
        texts = texts_of(text_data.load(task, folder, seed=seed))
        assert all(texts.values())
        for a, b in itertools.combinations(texts, 2):
            assert not texts[a] & texts[b]
        assert texts["train"] <= read
        assert not read & (texts["val"] | texts["test"])
    return read


@pytest.mark.parametrize("seed", [0, 1])
def test_no_text_is_in_two_splits(tmp_path, seed):
    folder = write_tree(tmp_path, 1500)
    assert_no_leaks(folder, seed)
    # What the test is for: some glosses are those of several meanings.
    synsets = wordnet.read_synsets(folder)
    assert len({x.gloss for x in synsets.values()}) < len(synsets) - 50


def test_hypotheses_give_nothing_away(tmp_path):
    data = text_data.load("pairs", write_tree(tmp_path, 1500))
    for split in (data.train, data.val, data.test):
        assert len(set(np.bincount(split.labels))) == 1
        labels = collections.defaultdict(collections.Counter)
        for hypothesis, label in zip(split.second, split.labels, strict=True):
            labels[hypothesis][int(label)] += 1
        assert all(len(set(c.values())) == 1 and len(c) == 3 for c in labels.values())
        assert all(a != b for a, b in zip(split.first, split.second, strict=True))


def test_the_seed_decides(tmp_path):
    folder = write_tree(tmp_path, 600)
    first, again, other = (
        text_data.load("pairs", folder, seed=seed) for seed in (0, 0, 1)
    )
    for name in text_data.SPLITS:
        one, two = getattr(first, name), getattr(again, name)
        assert one.first == two.first and one.second == two.second
        np.testing.assert_array_equal(one.labels, two.labels)
    assert first.train.first != other.train.first


def test_large_topics_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(text_data, "_MOST_GLOSSES", 10)
    data = text_data.load("glosses", write_tree(tmp_path, 600))
    assert data.classes == wordnet.TOPICS
    labels = [getattr(data, name).labels for name in text_data.SPLITS]
    counts = np.bincount(np.concatenate(labels))
    assert counts.max() == 10 and labels[0].dtype == np.int32
    # No topic comes first.
    monkeypatch.setattr(text_data, "_MOST_GLOSSES", 60)
    labels = text_data.load("glosses", tmp_path).train.labels
    first, second = (
        np.bincount(half, minlength=11) for half in np.array_split(labels, 2)
    )
    assert np.abs(first - second).max() < 20


def test_tasks_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of.*Received: task='news'"):
        text_data.load("news", tmp_path)


def test_mnli_without_a_network(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fails(self, **arguments):
        raise ConnectionError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fails)
    with pytest.raises(OSError, match=r"'glue/mnli'.*need no network.*Connection"):
        text_data.load("mnli", tmp_path)


needs_wordnet = pytest.mark.skipif(
    not (wordnet.FOLDER / "data.noun").exists(),
    reason="Debian's package wordnet-base is not installed",
)


@pytest.mark.slow
@needs_wordnet
def test_real_wordnet():
    synsets = wordnet.read_synsets()
    assert len(synsets) == 117_659
    assert {x.topic for x in synsets.values()} == set(range(45))
    assert all(x.gloss and '"' not in x.gloss for x in synsets.values())
    assert len(assert_no_leaks(wordnet.FOLDER, 0)) > 90_000
    data = text_data.load("pairs")
    for split, least in ((data.train, 80_000), (data.val, 3000), (data.test, 3000)):
        counts = np.bincount(split.labels)
        assert counts.min() == counts.max() and counts.sum() > least
