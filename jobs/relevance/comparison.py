"""Whether one system answers the same questions better than another: a paired comparison and its verdict.

The verdict asks for more than the usual 5 %: an evaluation is repeated often, and two systems that are equal are to be
told apart in less than one of 20 tries. At ``ALPHA`` = 0.01, by two tests that must agree, it is about one of 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from jobs.relevance.metrics import SEED, Floats, bootstrap

Outcome = Literal["better", "worse", "no difference"]

ALPHA = 0.01
SMALLEST = 0.001  # a difference of less is no difference, however sure: nobody sees a tenth of a point
SIGNS = 10_000  # random assignments of the signs; the smallest p is 1 / (SIGNS + 1)
_CELLS = 8_000_000  # of one block of signs, a byte each


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of after minus before, its interval at the level 1 - ALPHA, and how likely chance alone makes as much."""

    questions: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    verdict: Outcome


def compare(before: Floats, after: Floats, *, seed: int = SEED) -> Difference:
    """Compare one metric of the same questions in the same order, shape (questions,) each.

    "better" and "worse" need a p-value below ALPHA, an interval without 0, and a mean difference of SMALLEST at least.
    It takes 8 questions that differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"a paired comparison needs the same questions, not {before.shape} and {after.shape}")
    if not len(before):
        return Difference(0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, "no difference")
    apart = after - before
    low, high = bootstrap(apart[:, None], 1.0 - ALPHA, seed=seed, resamples=SIGNS // 2)[:, 0]
    p_value = randomisation_test(apart, seed=seed)
    verdict: Outcome = "no difference"
    if p_value < ALPHA and (low > 0 or high < 0) and abs(apart.mean()) >= SMALLEST:
        verdict = "better" if low > 0 else "worse"
    means = float(before.mean()), float(after.mean())
    return Difference(len(apart), *means, float(apart.mean()), float(low), float(high), p_value, verdict)


def randomisation_test(differences: Floats, *, seed: int = SEED, signs: int = SIGNS) -> float:
    """Two-sided p-value of a mean difference, by giving each question's difference a random sign.

    ``differences`` has shape (questions,). Fisher's test of paired samples; questions without a difference say nothing.
    """
    apart = differences[differences != 0]
    if not len(apart):
        return 1.0
    random, observed, extreme = np.random.default_rng(seed), abs(apart.sum()), 0
    block = max(1, _CELLS // len(apart))
    for start in range(0, signs, block):
        flips = random.integers(0, 2, size=(min(block, signs - start), len(apart)), dtype=np.int8)
        sums = (2.0 * flips - 1.0) @ apart
        extreme += int((np.abs(sums) >= observed * (1 - 1e-12)).sum())
    return (extreme + 1) / (signs + 1)
