"""vLLM as engine: token ids in, token ids and log-probs out, over HTTP to one or many engines."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from agpo.rollout.chunk import Chunk
from agpo.rollout.engine import Sampling, check_prompts, make_rollouts
from agpo.rollout.fingerprint import NEW_TOKENS, Fingerprint, probe_prompts
from agpo.rollout.vllm_client import KEY_VARIABLE, EngineError, EngineInfo, EngineUnavailable, VllmClient
from agpo.rollout.vllm_service import VllmService
from agpo.settings.vllm import VllmSettings

_PAUSE = 0.5  # seconds before the second attempt; doubled for each further one
_POLL = 0.02  # seconds between looks whether requests that were given up have ended
_HEED = 0.5  # seconds until an interrupt is noticed: since polars is imported it ends no wait
_SETTLE = 5.0  # seconds in which a server ends whose engine has died
_FORBIDDEN = -1e4  # nats, bias of the logits of ids that the tokenizer does not have: probability 0
_DISAGREEMENT = 0.2  # nats; rounding in bf16 gives 0.1 (our choice)


class Answer(NamedTuple):
    ids: list[int]
    logprobs: list[float]
    truncated: bool


class VllmEngine:
    """Samples the policy in a folder by vLLM. An `Engine`.

    Without endpoints in the settings an engine is started on this machine, with its output in ``log``, and started
    again once a chunk if it dies. A sample has its own seed, from (seed, step, problem, sample): a request that is
    sent again, to whichever engine, asks for the same answer. On a CPU it gets it; on a GPU up to rounding.

    EngineError names the engine that cannot be reached or used.
    """

    def __init__(self, folder: Path, stops: set[int], settings: VllmSettings, log: Path, *, lora_rank: int = 0) -> None:
        """``lora_rank``: of the largest adapter that a policy will get; 0: none."""
        self.settings, self.stops, self.lora_rank = settings, stops, lora_rank
        self._tokens, self._tokenizer = _read_tokenizer(folder)
        self._vocabulary = self._tokens  # until an engine says that its model has more
        self._folder, self._weights = folder, ""
        self._adapter: Path | None = None
        self._service = None if settings.endpoints else VllmService(settings, log, lora_rank)
        try:
            if self._service is None:
                key = os.environ.get(KEY_VARIABLE, "")
                self._connect([VllmClient(address, key) for address in settings.endpoints])
            else:
                self._connect([self._service.start(folder)])
            self.load_policy(folder)
        except BaseException:
            self.close()
            raise

    def generate(
        self,
        chunk: Chunk,
        prompts: Mapping[str, Sequence[int]],
        sampling: Sampling,
        *,
        step: int,
        policy: str,
        progress: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        check_prompts(prompts, list(dict.fromkeys(chunk.problem_ids)), sampling.tokens, self._positions)
        requests = [
            (list(prompts[problem]), self._parameters(sampling, _seed_of(sampling.seed, step, problem, sample)))
            for problem, sample in zip(chunk.problem_ids, chunk.samples, strict=True)
        ]
        try:
            answers = self._ask_all(requests, progress)
        except EngineUnavailable:
            if self._service is None or not self._service.has_ended(_SETTLE):
                raise
            self._restart(self._service)
            answers = self._ask_all(requests, None)
        return make_rollouts(
            chunk,
            prompts,
            pl.Series([answer.ids for answer in answers], dtype=pl.List(pl.Int32)),
            pl.Series([answer.logprobs for answer in answers], dtype=pl.List(pl.Float32)),
            [answer.truncated for answer in answers],
            step=step,
            policy=policy,
            seed=sampling.seed,
        )

    def load_policy(self, folder: Path) -> None:
        from agpo.rollout.vllm_worker.agpo_vllm import describe_weights

        tokens, tokenizer = _read_tokenizer(folder)
        if tokenizer != self._tokenizer:
            raise ValueError(f"{folder} has another tokenizer than {self._folder}, with which prompts were encoded")
        if tokens > self._vocabulary:
            raise ValueError(
                f"the tokenizer of {folder} has {tokens} tokens, the engine's model {self._vocabulary}: "
                "they do not belong together"
            )
        _, weights = describe_weights(folder)
        for client in self._clients:
            client.load(folder.resolve(), weights)
        self._folder, self._weights, self._adapter = folder, weights, None
        self._base = weights

    def load_adapter(self, folder: Path) -> None:
        """Sample from the policy that was loaded with the adapter in this folder, in peft's format, from now on.

        The folder must stay until the next one is loaded. EngineError where an engine refuses it.
        """
        content = (folder / "adapter_model.safetensors").read_bytes()
        weights = hashlib.sha256(self._base.encode() + hashlib.sha256(content).digest()).hexdigest()
        for client in self._clients:
            client.load_adapter(folder.resolve(), weights)
        self._weights, self._adapter = weights, folder

    def fingerprint(self) -> Fingerprint:
        """Of the first engine; EngineError where another one says something else."""
        found = [self._probe(client) for client in self._clients]
        for client, other in zip(self._clients, found, strict=True):
            difference = other.difference(found[0])
            if difference > _DISAGREEMENT:
                raise EngineError(
                    f"the engines at {self._clients[0].address} and {client.address} have the same weights and differ "
                    f"by {difference:.2f} nats on the same prompts"
                )
        return found[0]

    def sleep(self) -> None:
        """Weights go to the host's memory and the cache is dropped, where the engine can: on a GPU."""
        for client in self._sleepers:
            client.sleep()

    def wake(self) -> None:
        for client in self._sleepers:
            client.wake()

    def close(self) -> None:
        if self._service is not None:
            self._service.stop()

    def _connect(self, clients: list[VllmClient]) -> None:
        fields = set(self._parameters(Sampling(1, 1.0, 0), 0))
        infos: list[EngineInfo] = [client.describe(fields) for client in clients]
        for client, info in zip(clients, infos, strict=True):
            if info.dtype != self.settings.dtype:
                raise EngineError(
                    f"the engine at {client.address} computes in {info.dtype}, not in {self.settings.dtype}; "
                    f"accepted: rollout.engine.dtype={info.dtype}, or an engine that was started with the other"
                )
            if info.lora_rank < self.lora_rank:
                raise EngineError(
                    f"the engine at {client.address} loads adapters up to rank {info.lora_rank}, and learner.lora.rank "
                    f"is {self.lora_rank}; start it with --lora-rank {self.lora_rank}"
                )
            if info.vocabulary != infos[0].vocabulary:
                raise EngineError(
                    f"the engines at {clients[0].address} and {client.address} have different models, "
                    f"of {infos[0].vocabulary} and {info.vocabulary} tokens"
                )
        self._clients = clients
        self._load = dict.fromkeys(clients, 0)  # requests under way
        self._lock = threading.Lock()
        self._positions = min(info.positions for info in infos)
        self._vocabulary = infos[0].vocabulary
        self._sleepers = [client for client, info in zip(clients, infos, strict=True) if info.can_sleep]

    def _restart(self, service: VllmService) -> None:
        service.stop()
        adapter = self._adapter
        self._connect([service.start(self._folder)])
        self.load_policy(self._folder)
        if adapter is not None:
            self._weights = ""  # until the adapter is there no answer is the policy's
            self.load_adapter(adapter)

    def _parameters(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        return {
            "n": 1,
            "seed": seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "max_tokens": sampling.tokens,
            "logprobs": 0,  # of the token itself, no others
            "stop_token_ids": sorted(self.stops),
            "ignore_eos": True,  # the stop ids are all that ends an answer
            "detokenize": False,
            "logit_bias": {str(token): _FORBIDDEN for token in range(self._tokens, self._vocabulary)} or None,
        }

    def _ask_all(
        self, requests: Sequence[tuple[list[int], dict[str, Any]]], progress: Callable[[int], None] | None
    ) -> list[Answer]:
        """Answers in the order of the requests; the first that fails for good, or an interrupt, ends the others."""
        workers = min(len(requests), self.settings.in_flight * len(self._clients))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="vllm")
        over = threading.Event()
        futures: list[Future[Answer]] = []
        try:
            for prompt, parameters in requests:  # each is known at once, for an interrupt
                futures.append(pool.submit(self._ask, prompt, parameters, over))
            answers = []
            for future in futures:
                while not future.done():
                    wait([future], _HEED)
                answers.append(future.result())
                if progress is not None:
                    progress(1)
            return answers
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):  # one may be about to connect: more than once
                for client in self._clients:
                    client.abandon()
                time.sleep(_POLL)

    def _ask(self, prompt: list[int], parameters: dict[str, Any], over: threading.Event) -> Answer:
        """The answer to a request, which is sent again where that may help, unless all are ``over``."""
        pause = _PAUSE
        failed: list[VllmClient] = []
        for attempt in range(1, self.settings.attempts + 1):
            with self._least_busy(failed) as client:
                try:
                    choice = client.generate(prompt, parameters, self.settings.timeout)
                    return self._read(client, choice, parameters["max_tokens"])
                except EngineUnavailable as error:
                    failed.append(client)
                    fault = EngineUnavailable(f"{error} (after {attempt} attempts)")
            if attempt == self.settings.attempts or over.wait(pause):
                raise fault
            pause *= 2
        raise AssertionError("there is an attempt at least")

    @contextmanager
    def _least_busy(self, failed: list[VllmClient]) -> Iterator[VllmClient]:
        """An engine that has not failed where there is one: one that fails at once is never busy."""
        with self._lock:
            others = [client for client in self._clients if client not in failed]
            client = min(others or self._clients, key=self._load.__getitem__)
            self._load[client] += 1
        try:
            yield client
        finally:
            with self._lock:
                self._load[client] -= 1

    def _read(self, client: VllmClient, choice: dict[str, Any], tokens: int) -> Answer:
        """An answer, checked: nothing that an engine does differently may pass for a sample of the policy."""
        ids: list[int] = choice["token_ids"]
        content = choice["logprobs"]["content"]
        truncated = choice["finish_reason"] == "length"
        versions = {part["version"] for part in choice["weight_versions"]}
        fault = ""
        if versions != {self._weights}:
            fault = f"was made by weights {', '.join(sorted(versions))}, not {self._weights}"
        elif [part["token_id"] for part in content] != ids:
            fault = f"has log-probs of {len(content)} tokens for {len(ids)} others"
        elif not all(math.isfinite(part["logprob"]) for part in content):
            fault = "has log-probs that are not finite"
        elif not ids or self.stops.intersection(ids[:-1]) or (ids[-1] in self.stops) == truncated:
            fault = f"does not end with one of the stop tokens {sorted(self.stops)}: {ids[-8:]}"
        elif len(ids) > tokens or (truncated and len(ids) < tokens):
            fault = f"has {len(ids)} tokens, asked for were {tokens}"
        elif max(ids) >= self._tokens:
            fault = f"has token {max(ids)}, and the tokenizer only {self._tokens}"
        if fault:
            raise EngineError(f"an answer of the engine at {client.address} {fault}")
        return Answer(ids, [part["logprob"] for part in content], truncated)

    def _probe(self, client: VllmClient) -> Fingerprint:
        parameters = self._parameters(Sampling(NEW_TOKENS, 0.0, 0), 0) | {"stop_token_ids": [], "logit_bias": None}
        prompts = probe_prompts(self._vocabulary, self._positions)
        choices = [client.generate(prompt, parameters, self.settings.timeout) for prompt in prompts]
        return Fingerprint(
            tuple(tuple(choice["token_ids"]) for choice in choices),
            tuple(tuple(part["logprob"] for part in choice["logprobs"]["content"]) for choice in choices),
        )


def _seed_of(seed: int, step: int, problem: str, sample: int) -> int:
    """63 bits of the sample's own. Neighbouring seeds and a seed for several prompts give correlated answers."""
    found = hashlib.sha256(json.dumps([seed, step, problem, sample]).encode()).digest()
    return int.from_bytes(found[:8], "little") >> 1


def _read_tokenizer(folder: Path) -> tuple[int, str]:
    """How many ids a folder's tokenizer has, and a digest of it."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.exists():
        raise ValueError(f"{folder} has no tokenizer.json; accepted: a Hugging Face folder with model and tokenizer")
    content = file.read_bytes()
    ids = Tokenizer.from_str(content.decode()).get_vocab().values()
    return max(ids) + 1, hashlib.sha256(content).hexdigest()
