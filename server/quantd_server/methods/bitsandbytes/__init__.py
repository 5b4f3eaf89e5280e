"""bitsandbytes: LLM.int8, NF4 and FP4 checkpoints as transformers and bitsandbytes save them.

The method needs no calibration data and looks at one tensor at a time.
"""

from quantd_server.methods.bitsandbytes.eight_bit import Bitsandbytes8Bit
from quantd_server.methods.bitsandbytes.four_bit import Bitsandbytes4Bit

__all__ = ["Bitsandbytes4Bit", "Bitsandbytes8Bit"]
