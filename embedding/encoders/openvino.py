"""OpenVINO on CPU: the model's own weights, with its pooling and normalisation, as one compiled graph.

Converted once on a machine. Texts go in by length, in batches of few tokens, several requests at a time:
that keeps a batch's activations in the cache, and no core waits for another.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# OpenVINO's converter reports its use to its maker, except where this package is missing: then it has a stub for it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402

from embedding.batching import few_counts, few_widths, token_batches  # noqa: E402
from embedding.encoders.base import TokenIds  # noqa: E402
from embedding.encoders.spec import EncoderSpec  # noqa: E402
from embedding.encoders.tokens import Tokens  # noqa: E402

# As fast as 2,048 on common CPUs and with half its padding; above 4,096 a batch outgrows their caches.
MAX_BATCH_TOKENS = 1_024
# Operations prepared for one shape that are kept. The default, 5,000, grows to the last new shape, by a tenth and
# more of the process; 128 are as fast, for what stands behind them (oneDNN's own, of bounded size) is quick.
KEPT_OPERATIONS = 128
_GRAPH = "graph.xml"


def precisions() -> tuple[str, ...]:
    """What to try, the fastest first: ``bf16`` only where this CPU computes in it."""
    able = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "f32") if able else ("f32",)


def _converted(model: Path, cache: Path) -> Path:
    """The graph of a model folder, converted on first use into ``cache``, which belongs to these weights alone.

    Safe to race: it appears whole or not at all.
    """
    folder = cache / f"openvino-{version('openvino')}"
    if not (folder / _GRAPH).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache, prefix=".making-"))
        try:
            ov.save_model(_convert(model), made / _GRAPH, compress_to_fp16=False)
            os.rename(made, folder)
        except OSError:
            if not (folder / _GRAPH).is_file():  # another process was first
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder / _GRAPH


def _convert(model: Path) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    class Whole(torch.nn.Module):
        """From token ids to the sentence's vector."""

        def __init__(self, inner: SentenceTransformer) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            return self.inner(features)["sentence_embedding"]

    whole = Whole(
        SentenceTransformer(
            str(model), device="cpu", local_files_only=True, model_kwargs={"attn_implementation": "eager"}
        )
    ).eval()
    ids = torch.ones((2, 8), dtype=torch.int64)
    mask = torch.ones((2, 8), dtype=torch.int64)
    mask[1, 5:] = 0
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing warns of every condition on a value; the gate is what tells whether the graph is right.
        warnings.simplefilter("ignore")
        return ov.convert_model(
            whole,
            example_input={"input_ids": ids, "attention_mask": mask},
            input=[("input_ids", [-1, -1], np.int64), ("attention_mask", [-1, -1], np.int64)],
        )


class OpenVinoEncoder:
    """Runs a converted graph on CPU in one precision (``bf16`` or ``f32``)."""

    device = "cpu"

    def __init__(self, spec: EncoderSpec) -> None:
        self.name = f"openvino {spec.precision}"
        self._tokens = Tokens(spec.model, spec.max_tokens)
        self._max_tokens = spec.max_tokens
        self._batch_tokens = min(spec.batch_tokens, MAX_BATCH_TOKENS)
        settings = {
            "INFERENCE_PRECISION_HINT": spec.precision,
            "PERFORMANCE_HINT": "THROUGHPUT",
            "ENABLE_CPU_PINNING": False,  # a thread that is bound to a core cannot make way for another process
            "INFERENCE_NUM_THREADS": str(spec.threads),
            "CPU_RUNTIME_CACHE_CAPACITY": str(KEPT_OPERATIONS),
        }
        self._model = ov.Core().compile_model(str(_converted(spec.model, spec.cache)), "CPU", settings)
        self._queue = ov.AsyncInferQueue(self._model)
        self.dim = int(self._model.outputs[0].get_partial_shape()[1].get_length())

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode."""
        return self.encode_ids(self._tokens.ids(texts))

    def encode_ids(self, ids: TokenIds) -> npt.NDArray[np.float32]:
        """See IdEncoder.encode_ids."""
        out = np.empty((len(ids), self.dim), dtype=np.float32)

        def keep(request: Any, rows: npt.NDArray[np.intp]) -> None:
            out[rows] = request.get_output_tensor(0).data

        self._queue.set_callback(keep)
        widths = np.minimum(few_widths(ids.lengths), self._max_tokens)
        for batch in token_batches(widths, self._batch_tokens):
            width = int(widths[batch[0]])
            rows = few_counts(batch, self._batch_tokens // max(1, width))
            filled, mask = ids.padded(rows, width)
            self._queue.start_async({"input_ids": filled, "attention_mask": mask}, rows)
        self._queue.wait_all()
        return out
