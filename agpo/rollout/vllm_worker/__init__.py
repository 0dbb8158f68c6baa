"""What runs in vLLM's own environment, which has vLLM, torch and safetensors and nothing of ours.

`serve` starts the server there. `agpo_vllm` is loaded by the server from this folder as a module of its own.
"""
