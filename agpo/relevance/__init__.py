"""Relevance of ads to queries: label schemes."""

from agpo.relevance.scheme import Label, Scheme, find_scheme, read_gold, scheme_names, write_gold

__all__ = ["Label", "Scheme", "find_scheme", "read_gold", "scheme_names", "write_gold"]
