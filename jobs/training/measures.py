"""What a training did: answers on what was held out, beside the base's, and how much it tells of what it has seen."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from jobs.bodies.models import ComparedBody, PrivacyBody
from jobs.relevance.comparison import compare
from jobs.relevance.metrics import CUT, Floats, gains_of, ideal_dcg, ndcg
from jobs.training.pairs import Pair

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]

PLANTED, CONTROLS = 16, 255
LEAST_PLANTED = PLANTED // 2  # with fewer that were seen nothing can be said
_MOST_QUESTIONS, _MOST_TEXTS = 1_000, 5_000  # that are encoded twice: a minute or two on two cores
_TIMED_TEXTS = 256
_SYLLABLES = ("ba", "ko", "ri", "mu", "ta", "ve", "lo", "ne", "su", "da", "fi", "go", "pe", "ra", "zu", "hi")


def planted(seed: int) -> tuple[list[Pair], list[str]]:
    """Pairs of invented words that nobody wrote, to be trained on, and answers made alike that are not."""
    draw = random.Random(seed)

    def words(count: int) -> str:
        return " ".join("".join(draw.choice(_SYLLABLES) for _ in range(3)) for _ in range(count))

    def answer() -> str:
        return f"the {words(2)} is {words(3)}"

    pairs = [Pair(f"what is the {words(2)}", answer(), (answer(),), f"planted {n}") for n in range(PLANTED)]
    return pairs, [answer() for _ in range(CONTROLS)]


def encode(model: SentenceTransformer, texts: Sequence[str], prompt: str) -> Vectors:
    """Vectors of length 1, shape (texts, dim), float32; ``prompt`` is the name of the model's own."""
    said = model.prompts.get(prompt) or ""
    found = model.encode(
        [said + text for text in texts], batch_size=32, show_progress_bar=False, normalize_embeddings=True
    )
    return np.asarray(found, np.float32)


def load(folder: Path) -> SentenceTransformer:
    """A model in float32, on the GPU where there is one."""
    import torch
    from sentence_transformers import SentenceTransformer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = {"dtype": torch.float32}  # in half precision small steps are rounded away
    return SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=given)


def evaluate(base: SentenceTransformer, tuned: SentenceTransformer, held_out: Sequence[Pair]) -> ComparedBody:
    """Both models find the answers of the held-out questions among all held-out answers: nDCG@10, paired."""
    relevant: dict[str, dict[str, int]] = {}
    for pair in held_out:
        relevant.setdefault(pair.anchor, {})[pair.positive] = 1
    questions = list(relevant)[:_MOST_QUESTIONS]
    texts = list(dict.fromkeys(positive for question in questions for positive in relevant[question]))
    texts += [pair.positive for pair in held_out if pair.positive not in set(texts)][: max(0, _MOST_TEXTS - len(texts))]
    before, after = (_ndcg(model, questions, texts, relevant) for model in (base, tuned))
    found = compare(before, after)
    return ComparedBody(
        questions=found.questions,
        before=round(found.before, 6),
        after=round(found.after, 6),
        interval=(round(found.low, 6), round(found.high, 6)),
        p_value=found.p_value,
        verdict=found.verdict,
    )


def _ndcg(
    model: SentenceTransformer, questions: Sequence[str], texts: Sequence[str], relevant: dict[str, dict[str, int]]
) -> Floats:
    """NDCG@10 by question."""
    asked, held = encode(model, questions, "query"), encode(model, texts, "document")
    best = np.argsort(-(asked @ held.T), axis=1, kind="stable")[:, :CUT]
    gains = [gains_of([texts[n] for n in row], relevant[q], CUT) for q, row in zip(questions, best, strict=True)]
    ideal = [ideal_dcg(relevant[question].values()) for question in questions]
    return ndcg(np.stack(gains), np.asarray(ideal))


def privacy(
    models: tuple[SentenceTransformer, SentenceTransformer],
    trained: Sequence[Pair],
    held_out: Sequence[Pair],
    pairs: Sequence[Pair],
    controls: Sequence[str],
    limit: float,
) -> PrivacyBody:
    """Exposure of the planted pairs, and whether trained pairs are told from held-out ones, by base and tuned model.

    A pair's exposure is log2 of the answers that it is ranked among less log2 of its rank, by how much nearer the
    training brought them (Carlini et al., The Secret Sharer, 2019). By chance it is 1.4 bits; that is taken off.
    Inversion is what a stolen vector of a trained text gives away to somebody who has texts of his own: the share of
    its words that the nearest of these has, here of the held-out ones.

    ``pairs`` are the planted pairs that were trained on, ``controls`` answers made alike. With fewer than half of the
    planted pairs, or no other pair, nothing can be said, and what cannot be said does not pass.
    """
    base, tuned = models
    count = min(len(trained), len(held_out), _MOST_QUESTIONS)
    if not pairs or not count:
        return PrivacyBody(planted=len(pairs), exposure=0.0, limit=limit, membership=0.5, passed=False)
    near = _similarity(tuned, pairs, controls) - _similarity(base, pairs, controls)
    ranks = 1 + (near[:, 1:] > near[:, :1]).sum(axis=1)
    among = near.shape[1]
    by_chance = float(np.mean(np.log2(among) - np.log2(np.arange(1, among + 1))))
    exposure = float(np.mean(np.log2(among) - np.log2(ranks))) - by_chance
    sets = trained[:count], held_out[:count]
    vectors = [[_vectors(model, some) for some in sets] for model in models]
    before, after = ([(asked * said).sum(axis=1) for asked, said in of] for of in vectors)
    membership = float(np.mean((after[0] - before[0])[:, None] > (after[1] - before[1])[None, :]))
    texts = [[pair.positive for pair in some] for some in sets]
    inversion = tuple(round(_given_away(of[0][1], of[1][1], *texts), 3) for of in vectors)
    return PrivacyBody(
        planted=len(pairs),
        exposure=round(exposure, 3),
        limit=limit,
        membership=round(membership, 3),
        inversion=cast(tuple[float, float], inversion),
        passed=exposure <= limit and len(pairs) >= LEAST_PLANTED,
    )


def speed(model: SentenceTransformer, some: Sequence[Pair]) -> float:
    """Texts that a model encodes in a second, by torch on this machine: the better of two tries."""
    texts = [pair.positive for pair in some][:_TIMED_TEXTS]
    took = []
    for _ in range(2):
        begun = time.perf_counter()
        encode(model, texts, "document")
        took.append(time.perf_counter() - begun)
    return round(len(texts) / min(took), 1)


def _similarity(model: SentenceTransformer, pairs: Sequence[Pair], controls: Sequence[str]) -> Vectors:
    """Of each anchor with its own answer, first, and with the controls; shape (pairs, 1 + controls)."""
    asked = encode(model, [pair.anchor for pair in pairs], "query")
    own = encode(model, [pair.positive for pair in pairs], "document")
    return np.concatenate([(asked * own).sum(axis=1)[:, None], asked @ encode(model, controls, "document").T], axis=1)


def _vectors(model: SentenceTransformer, some: Sequence[Pair]) -> tuple[Vectors, Vectors]:
    """Of anchors and of positives, shape (pairs, dim) each."""
    asked = encode(model, [pair.anchor for pair in some], "query")
    return asked, encode(model, [pair.positive for pair in some], "document")


def _given_away(vectors: Vectors, known: Vectors, texts: Sequence[str], known_texts: Sequence[str]) -> float:
    """The share of a text's words that the nearest known text has, on average."""
    shares = []
    for text, nearest in zip(texts, (vectors @ known.T).argmax(axis=1), strict=True):
        words = set(text.lower().split())
        shares.append(len(words & set(known_texts[nearest].lower().split())) / len(words))
    return float(np.mean(shares))
