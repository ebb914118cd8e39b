"""Experiments of other tools become specs: axolotl's, LLaMA-Factory's and TRL's configurations, with an account of every key."""
