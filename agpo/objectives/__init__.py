"""Group advantages: one small pure file per method; settings pick one by its ``kind``."""

from typing import Annotated

from pydantic import Field

from agpo.objectives.agpo import Agpo
from agpo.objectives.grpo import Grpo

Objective = Annotated[Agpo | Grpo, Field(discriminator="kind")]

__all__ = ["Agpo", "Grpo", "Objective"]
