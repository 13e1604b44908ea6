"""Encode every text that can be encoded, and find the few that cannot by halving the batches that fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedding.errors import EmbedmillError, EncoderError

MOST = 50  # texts of one call; where more fail, the encoder is broken and not they


def encode_with_bisection(
    encode: Callable[[int, int], npt.NDArray[np.float32]], count: int, dim: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Encode texts 0 to ``count``, halving a batch that raises until each bad text is alone.

    ``encode(start, stop)`` gives the vectors of some of them, shape (stop - start, dim). Returns the whole matrix and
    which of its rows are vectors; the others are zero. One with NaN or infinity counts as bad, and so does one of
    nothing but zeros, which is as near to every text. Raises EncoderError where more than ``MOST`` fail, and passes on
    an EmbedmillError as it is.
    """
    out = np.zeros((count, dim), np.float32)
    good = np.zeros(count, np.bool_)
    pieces = [(0, count)] if count else []
    cause, bad = "", 0
    while pieces:
        start, stop = pieces.pop()
        try:
            vectors = encode(start, stop)
        except EmbedmillError:
            raise  # of the encoder as a whole, and not of a text
        except Exception as error:  # its message may quote the text, so only the type is kept
            cause = type(error).__name__
            if stop - start > 1:
                middle = (start + stop) // 2
                pieces += [(middle, stop), (start, middle)]
                continue
            bad += 1
        else:
            out[start:stop] = vectors
            good[start:stop] = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
            bad += stop - start - int(good[start:stop].sum())
        if bad > MOST:
            raise EncoderError(f"the encoder fails on {bad} of {count} texts ({cause or 'no number, or zero'})")
    out[~good] = 0.0
    return out, good
