"""vLLM in the caller's process, for test_vllm_bench.py. Runs in vLLM's environment: vllm_in_process.py MODEL

Reads requests from stdin, a JSON line a batch: a list of [prompt ids, sampling parameters]. Writes a line for each with
the number of tokens it made.
"""

from __future__ import annotations

import json
import sys

from vllm import LLM, SamplingParams


def main() -> None:
    model = LLM(
        sys.argv[1],
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        enable_chunked_prefill=False,
        max_num_seqs=256,
        kv_cache_memory_bytes=256 << 20,
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
        seed=0,
    )
    print("ready", flush=True)
    for line in sys.stdin:
        batch = json.loads(line)
        answers = model.generate(
            [{"prompt_token_ids": prompt} for prompt, _ in batch],
            [SamplingParams(**sampling) for _, sampling in batch],
            use_tqdm=False,
        )
        print(sum(len(answer.outputs[0].token_ids) for answer in answers), flush=True)


if __name__ == "__main__":
    main()
