"""OpenVINO on CPU: the model's own weights, with its pooling and normalisation, as one compiled graph.

Batches have few tokens and several requests run at a time: that keeps a batch's activations in the cache, and no core
waits for another. Short texts are packed, several in a row, where the model's architecture allows it: their batches
have one shape, for which the graph is compiled once more. Other texts go in by length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedding.encoders.local.batching import few_counts, few_heights, few_packed_widths, few_widths, token_batches
from embedding.encoders.local.openvino_graph import INPUTS, converted, ov
from embedding.encoders.local.packing import pack
from embedding.encoders.spec import EncoderSpec
from embedding.tokens.token_ids import TokenIds
from embedding.tokens.tokenizer import Tokens

# As fast as 2,048 on common CPUs and with half its padding; above 4,096 a batch outgrows their caches.
MAX_BATCH_TOKENS = 1_024
# Operations prepared for one shape that are kept. The default, 5,000, grows to the last new shape, by a tenth and
# more of the process; 128 are as fast, for what stands behind them (oneDNN's own, of bounded size) is quick.
KEPT_OPERATIONS = 128
# Texts of up to so many tokens are packed into rows of as many, and so many texts at most into one. On chats rows of 48
# and of 96 are as fast: attention costs by the square of a row, and narrower ones have no place for some texts.
PACKED_WIDTH = 64
PACKED_TEXTS = 16


def precisions() -> tuple[str, ...]:
    """What to try, the fastest first: ``bf16`` only where this CPU computes in it."""
    able = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "f32") if able else ("f32",)


class OpenVinoEncoder:
    """Runs a converted graph on CPU in one precision (``bf16`` or ``f32``).

    ``packs`` says whether its short texts share rows, ``multiplied`` how many tokens it multiplied, padding included.
    """

    device = "cpu"

    def __init__(self, spec: EncoderSpec) -> None:
        self.name = f"openvino {spec.precision}"
        self.multiplied = 0
        self._tokens = Tokens(spec.model, spec.max_tokens, spec.purpose, spec.prompts)
        self._max_tokens = spec.max_tokens
        self._batch_tokens = min(spec.batch_tokens or MAX_BATCH_TOKENS, MAX_BATCH_TOKENS)
        self._packed_rows = max(1, self._batch_tokens // PACKED_WIDTH)
        settings = {
            "INFERENCE_PRECISION_HINT": spec.precision,
            "PERFORMANCE_HINT": "THROUGHPUT",
            "ENABLE_CPU_PINNING": False,  # a thread that is bound to a core cannot make way for another process
            "INFERENCE_NUM_THREADS": str(spec.threads),
            "CPU_RUNTIME_CACHE_CAPACITY": str(KEPT_OPERATIONS),
        }
        core = ov.Core()
        graph = core.read_model(converted(spec.model, spec.cache))
        # A folder may truncate vectors to less than the graph gives.
        self.dim = min(spec.dim, int(graph.outputs[0].get_partial_shape()[1].get_length()))
        self._inputs = INPUTS[: len(graph.inputs)]
        self.packs = self._inputs == INPUTS
        self._any_shape = _requests(core.compile_model(graph, "CPU", settings))
        self._one_shape = self._any_shape
        if self.packs:
            shape = [self._packed_rows, PACKED_WIDTH]
            graph.reshape(dict(zip(INPUTS, (shape, shape, shape, [PACKED_TEXTS]), strict=True)))
            self._one_shape = _requests(core.compile_model(graph, "CPU", settings))

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode."""
        return self.encode_ids(self._tokens.ids(texts))

    def close(self) -> None:
        """See Encoder.close. Its memory is the object's."""

    def encode_ids(self, ids: TokenIds) -> npt.NDArray[np.float32]:
        """See IdEncoder.encode_ids."""
        out = np.empty((len(ids), self.dim), dtype=np.float32)
        short = (ids.lengths <= PACKED_WIDTH) & self.packs
        self._start_alone(ids, np.flatnonzero(~short), out)
        self._start_packed(ids, np.flatnonzero(short), out)
        self._any_shape.wait_all()
        self._one_shape.wait_all()
        return out

    def _start_alone(self, ids: TokenIds, texts: npt.NDArray[np.intp], out: npt.NDArray[np.float32]) -> None:
        """Start texts in rows of their own, by length."""
        widths = np.minimum(few_widths(ids.lengths[texts]), self._max_tokens)
        for batch in token_batches(widths, self._batch_tokens):
            width = int(widths[batch[0]])
            rows = texts[few_counts(batch, self._batch_tokens // max(1, width))]
            filled, mask = ids.padded(rows, width)
            positions = np.tile(np.arange(filled.shape[1]), (len(filled), 1))
            self._start(self._any_shape, (filled, mask, positions, np.array([1])), out, rows, slice(None))

    def _start_packed(self, ids: TokenIds, texts: npt.NDArray[np.intp], out: npt.NDArray[np.float32]) -> None:
        """Start texts of at most PACKED_WIDTH tokens, several in a row."""
        if not len(texts):
            return
        lengths, full, engines = ids.lengths[texts], self._packed_rows, len(self._one_shape)
        # A few texts, as queries are, would leave most of one row empty and all engines but one idle.
        width = few_packed_widths(max(int(lengths.max()), -(-int(lengths.sum()) // engines)), PACKED_WIDTH)
        packing = pack(lengths, width, PACKED_TEXTS)
        heights = few_heights(packing.count, full, engines)
        laid, slots = packing.lay(ids, texts), np.arange(1, PACKED_TEXTS + 1)
        by_row = np.argsort(packing.rows, kind="stable")
        ends = np.cumsum(heights)
        batches = np.split(by_row, np.searchsorted(packing.rows[by_row], ends[:-1]))
        for height, end, inside in zip(heights, ends, batches, strict=True):
            places = (packing.rows[inside] - (end - height)) * PACKED_TEXTS + packing.slots[inside]
            feed = (*(part[end - height : end] for part in laid), slots)
            requests = self._one_shape if (height, width) == (full, PACKED_WIDTH) else self._any_shape
            self._start(requests, feed, out, texts[inside], places)

    def _start(
        self,
        requests: Any,
        feed: Sequence[npt.NDArray[np.int64]],
        out: npt.NDArray[np.float32],
        texts: npt.NDArray[np.intp],
        places: npt.NDArray[np.intp] | slice,
    ) -> None:
        """Begin a batch when a request is free; its vectors at ``places`` will be those of ``texts`` in ``out``."""
        self.multiplied += feed[0].size
        requests.start_async(dict(zip(self._inputs, feed, strict=False)), (out, texts, places))


def _requests(compiled: Any) -> Any:
    """As many requests of a compiled graph as run at once."""
    requests = ov.AsyncInferQueue(compiled)
    requests.set_callback(_keep)
    return requests


def _keep(request: Any, where: tuple[npt.NDArray[np.float32], Any, Any]) -> None:
    out, texts, places = where
    out[texts] = request.get_output_tensor(0).data[places, : out.shape[1]]
