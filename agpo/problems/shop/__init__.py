"""A synthetic shop: queries and ads whose relevance follows from rules, deterministic by seed."""

from agpo.problems.shop.generate import Shop, generate_shop, pose_problems

__all__ = ["Shop", "generate_shop", "pose_problems"]
