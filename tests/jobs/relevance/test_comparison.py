"""Verdicts: equal systems are not told apart, and one that is worse is found out."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.relevance.comparison import compare, randomisation_test
from jobs.relevance.metrics import Floats


def answers(random: np.random.Generator, count: int) -> Floats:
    """nDCG as it is of one relevant document: often 0, often 1, and what lies between."""
    ranks = random.choice([1, 2, 3, 5, 8, np.inf], size=count, p=[0.3, 0.1, 0.1, 0.05, 0.05, 0.4])
    return np.asarray(1 / np.log2(ranks + 1), np.float64)


@pytest.mark.parametrize("count", [30, 300])
def test_equal_systems_are_told_apart_in_at_most_5_of_100_resamplings(count: int) -> None:
    """Two systems that answer each question as well, by chance one better here and the other there."""
    random = np.random.default_rng(count)
    one, other = answers(random, 2_000), answers(random, 2_000)
    shared = random.random(2_000) < 0.5  # as two models agree on many questions
    other[shared] = one[shared]
    # Of exactly equal means: what resampling finds is chance alone.
    both = np.concatenate([np.stack([one, other]), np.stack([other, one])], axis=1)
    verdicts = []
    for seed in range(100):
        before, after = both[:, random.integers(0, both.shape[1], size=count)]
        verdicts.append(compare(before, after, seed=seed).verdict)
    assert verdicts.count("no difference") >= 95


def test_the_same_answers_are_no_difference() -> None:
    values = answers(np.random.default_rng(0), 100)
    found = compare(values, values)
    assert (found.verdict, found.difference, found.p_value, found.low, found.high) == ("no difference", 0, 1, 0, 0)
    assert compare(np.zeros(0), np.zeros(0)).verdict == "no difference"


def test_a_system_that_is_worse_is_found_out_and_the_other_way_round_better() -> None:
    random = np.random.default_rng(5)
    before = answers(random, 200)
    after = np.where(random.random(200) < 0.25, 0.0, before)  # a quarter of the answers is lost
    found = compare(before, after)
    assert found.verdict == "worse" and found.high < 0 and found.p_value < 0.01
    back = compare(after, before)
    assert back.verdict == "better" and back.difference == pytest.approx(-found.difference)
    assert found.low <= found.difference <= found.high


def test_a_difference_that_nobody_sees_is_none() -> None:
    values = answers(np.random.default_rng(6), 2_000)
    assert compare(values, values + 0.0009).verdict == "no difference"
    assert compare(values, values + 0.0011).verdict == "better"


def test_few_questions_prove_nothing() -> None:
    assert compare(np.ones(7), np.zeros(7)).verdict == "no difference"
    assert compare(np.ones(9), np.zeros(9)).verdict == "worse"


def test_the_p_value_is_that_of_scipy() -> None:
    from scipy.stats import permutation_test

    apart = np.random.default_rng(2).normal(0.1, 1, 60)
    theirs = permutation_test((apart,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1)
    assert randomisation_test(apart) == pytest.approx(theirs.pvalue, abs=0.015)


def test_a_pair_needs_the_same_questions() -> None:
    with pytest.raises(ValueError, match="same questions"):
        compare(np.zeros(3), np.zeros(4))
