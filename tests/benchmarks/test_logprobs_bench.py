"""Peak memory of log-probs, forward and backward, at a vocabulary of 151,936: against the dense logits tensor.

Each measurement is a process of its own; its peak is the kernel's record of resident memory (VmHWM).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VOCABULARY, TOKENS, WIDTH = 151_936, 4096, 64
DENSE = VOCABULARY * TOKENS * 4 / 2**20  # MiB of the logits in fp32

PROGRAM = """
import sys
import time
from pathlib import Path
import torch
from agpo.learner import chunked_logprobs

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

vocabulary, tokens, width = map(int, sys.argv[1:4])
torch.set_num_threads(1)
hidden, weight = (torch.randn(count, width, requires_grad=True) for count in (tokens, vocabulary))
targets = torch.randint(vocabulary, (tokens,))
with torch.no_grad():  # libraries are loaded, weights are touched
    chunked_logprobs(hidden[:1], weight, targets[:1])
before, started = peak(), time.process_time()
logprobs, entropy = chunked_logprobs(hidden, weight, targets)
forward = peak()
(logprobs.sum() + (entropy.sum() if sys.argv[4] == "both" else 0)).backward()
gradients = (hidden.grad.nbytes + weight.grad.nbytes) / 2**20
print(forward - before, peak() - before - gradients, time.process_time() - started)
"""


@pytest.mark.bench
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system keeps no record of peak memory")
def test_log_probs_take_an_eighth_of_the_dense_logits() -> None:
    print(f"\ndense logits of {TOKENS} tokens: {DENSE:.0f} MiB")
    for used in ("logprobs", "both"):
        command = [sys.executable, "-c", PROGRAM, *map(str, (VOCABULARY, TOKENS, WIDTH)), used]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        forward, both, seconds = map(float, found.stdout.split())
        print(
            f"gradient of {used}: forward {forward:.0f} MiB, with backward {both:.0f} MiB beside the gradients, "
            f"{both / DENSE:.3f} of dense, {seconds:.1f} CPU-seconds"
        )
        assert both <= DENSE / 8
