"""The most that this machine multiplies: a matrix product on all threads, the best of three shapes.

In bf16 where the processor computes in it and in float32 elsewhere, as the encoder does. Argument: threads.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from embedding.encoders.local.torch import precisions

torch.set_num_threads(int(sys.argv[1]))
bf16 = "bf16" in precisions()
kind = torch.bfloat16 if bf16 else torch.float32
best = 0.0
for rows, inner, columns in ((4096, 4096, 4096), (2048, 384, 1536), (4096, 1536, 384)):
    a, b = torch.randn(rows, inner).to(kind), torch.randn(inner, columns).to(kind)
    work = 2 * rows * inner * columns
    times = max(1, int(3e11 / work))
    for _ in range(max(1, times // 10)):
        a @ b
    start = time.perf_counter()
    for _ in range(times):
        a @ b
    best = max(best, work * times / (time.perf_counter() - start))
print(json.dumps({"flops": best, "bf16": bf16}))
