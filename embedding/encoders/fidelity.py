"""The fidelity gate: a backend may serve a space only if it gives the reference's vectors.

The reference is sentence-transformers in float32. A backend that passes shares its space; one that fails is refused
with the figures, because vectors that are nearly right are found out only by users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding.encoders.base import Encoder
from embedding.errors import FidelityError

PROBES_VERSION = "3"  # part of a stored verdict: change it with the probes, the limits or how a backend computes
MIN_COSINE = 0.999
MEAN_COSINE = 0.9999
MAX_LENGTH_ERROR = 0.001  # of a vector's length against the reference's: cosine is blind to a missing normalisation

# Short and long words, scripts with and without blanks, code, numbers, emoji: what people write to each other.
_SENTENCES = (
    "ok",
    "The nightly backup failed on the second disk, can somebody look at it before noon?",
    "Wer hat den Schlüssel zum Serverraum? Er hing gestern noch am Haken.",
    "La réunion est déplacée à jeudi, merci de prévenir les autres équipes.",
    "¿Puedes revisar la factura número 48213 antes del viernes?",
    "Встреча переносится на завтра, потому что зал занят.",
    "今日の会議は三時からです。資料を忘れないでください。",
    "请在部署之前先运行所有测试。",
    "배포가 끝나면 알려 주세요.",
    "يرجى تحديث كلمة المرور قبل نهاية الأسبوع",
    "कल सुबह नौ बजे सर्वर बंद रहेगा",
    "Ο σύνδεσμος δεν λειτουργεί από το πρωί",
    "def rotate(key: bytes) -> bytes:\n    return key[1:] + key[:1]  # one to the left",
    "ERROR 2025-03-03T09:14:07Z worker-17 timed out after 30000 ms (attempt 3 of 5)",
    "🎉🎉 shipped! 🚀",
    "https://example.com/a/very/long/path?with=query&and=more#fragment",
    "1,204.50 EUR; 17 %; 3:2; -40 °C; 6.022e23",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
)
_LENGTHS = (1, 2, 4, 8)  # sentences put together, so that every length up to the usual limit occurs
USUAL_LIMIT = 512
# Of models beyond it: some layers see so many tokens and no further, and positions may be scaled. The longest is what
# the longest chunk has of characters.
_LONG_CHARS = (2_048, 4_096)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near a backend's vectors are to the reference's: cosines, and the largest relative error of a length."""

    minimum: float
    mean: float
    length_error: float

    @property
    def passed(self) -> bool:
        """Whether the backend may share the reference's space."""
        return (
            self.minimum >= MIN_COSINE and self.mean >= MEAN_COSINE and self.length_error <= MAX_LENGTH_ERROR
        )  # NaN fails all three

    def __str__(self) -> str:
        return f"cosine {self.minimum:.6f} least, {self.mean:.6f} mean, length error {self.length_error:.6f}"


def probes(max_tokens: int = USUAL_LIMIT) -> list[str]:
    """The fixed texts of the gate: many languages, lengths from one token to past the usual limit of a model.

    For a model of more ``max_tokens`` than usual there are longer ones.
    """
    return list(_probes(max_tokens > USUAL_LIMIT))


def _probes(long: bool) -> Iterator[str]:
    for chars in _LONG_CHARS if long else ():
        yield " ".join(_SENTENCES * 4)[:chars]
    for count in _LENGTHS:
        for start in range(len(_SENTENCES)):
            yield " ".join(_SENTENCES[(start + n) % len(_SENTENCES)] for n in range(count))


def compare(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> Fidelity:
    """Compare two matrices of shape (texts, dim), row by row. Raises ValueError where their shapes differ.

    Rows of zeros in both are equal: a text without a token is nowhere.
    """
    if found.shape != expected.shape:
        raise ValueError(f"vectors of shape {found.shape} where the reference has {expected.shape}")
    ours, theirs = (np.linalg.norm(vectors.astype(np.float64), axis=1) for vectors in (found, expected))
    with np.errstate(all="ignore"):
        cosine = (found.astype(np.float64) * expected).sum(axis=1) / (ours * theirs)
        error = np.abs(ours / theirs - 1.0)
    nowhere = (ours == 0) & (theirs == 0)
    cosine[nowhere], error[nowhere] = 1.0, 0.0
    return Fidelity(float(cosine.min()), float(cosine.mean()), float(error.max()))


def measure(backend: Encoder, reference: Encoder) -> Fidelity:
    """Compare a backend with a reference over ``probes()``."""
    texts = probes()
    return judge(backend, texts, reference.encode(texts, _lengths(texts)))


def judge(backend: Encoder, texts: Sequence[str], expected: npt.NDArray[np.float32]) -> Fidelity:
    """Compare what a backend gives for texts with ``expected``: float32 of shape (texts, dim).

    A wrong number of dimensions is as bad as can be.
    """
    try:
        return compare(backend.encode(texts, _lengths(texts)), expected)
    except ValueError:
        return Fidelity(0.0, 0.0, 1.0)


def worst(found: Sequence[Fidelity]) -> Fidelity:
    """The least of some cosines and the largest of the errors."""
    return Fidelity(
        min(one.minimum for one in found), min(one.mean for one in found), max(one.length_error for one in found)
    )


def _lengths(texts: Sequence[str]) -> npt.NDArray[np.intp]:
    """For batches, which need an order only."""
    return np.array([len(text) for text in texts])


def refuse(name: str, fidelity: Fidelity) -> FidelityError:
    """The refusal of a backend, with its figures and the gate's."""
    return FidelityError(
        f"model.backend: {name} is refused, its vectors are not the model's: {fidelity}; "
        f"the gate asks for {MIN_COSINE}, {MEAN_COSINE} and {MAX_LENGTH_ERROR}"
    )
