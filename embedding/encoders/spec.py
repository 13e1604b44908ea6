"""What an encoder is opened by: plain, picklable, free of secrets, so that it may travel to any worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOCAL = ("torch", "openvino")
REMOTE = ("http", "bedrock", "sagemaker")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Backend and model of an encoder.

    ``threads`` is the CPU threads it may use, ``batch_tokens`` bounds rows x longest row, ``max_tokens`` is where the
    model cuts a text off, ``dim`` the width of its vectors. ``cache`` is a folder of this model alone, for its
    converted graphs and the gate's verdicts. ``precision`` is chosen by the gate where it is "".
    """

    backend: str
    model: Path
    cache: Path
    max_tokens: int
    dim: int
    threads: int = 1
    batch_tokens: int = 4096
    precision: str = ""

    @property
    def takes_ids(self) -> bool:
        """Whether the encoder can be given token ids instead of texts."""
        return self.backend in ("auto", *LOCAL)
