"""Silence for the libraries that a student is made with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from agpo.learner.policy import without_bars

_LIBRARIES = ("transformers", "sentence_transformers", "torch.onnx", "onnxscript", "onnx_ir")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without progress bars and advice that is not for users: a new head is random, there is a preprocessor, …"""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    logging.root.addFilter(_refuse)  # onnxruntime's; the root logger's filters see no other logger's records
    try:
        with without_bars(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.removeFilter(_refuse)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _refuse(_: logging.LogRecord) -> bool:
    return False
