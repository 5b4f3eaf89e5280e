"""AWQ (Lin et al. 2023, arXiv:2306.00978): checkpoints in the gemm format."""

from quantd_server.methods.awq.method import Awq

__all__ = ["Awq"]
