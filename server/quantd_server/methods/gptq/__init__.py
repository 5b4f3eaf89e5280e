"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): checkpoints that GPTQModel and vLLM read."""

from quantd_server.methods.gptq.method import Gptq

__all__ = ["Gptq"]
