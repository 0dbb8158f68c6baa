"""AGPO: reinforcement learning with verifiable rewards that keeps a model's reasoning boundary."""
