"""bitsandbytes quantization: LLM.int8 (8-bit rows), NF4 / FP4 (4-bit blocks), double quantization.

Every kernel computes what bitsandbytes 0.50 computes on a CPU, bit for bit, without torch:

    tables            the code books, as tuples (plain Python)
    quant_state       the JSON that bitsandbytes stores beside a 4-bit weight (plain Python)
    blockwise_4bit    NF4 / FP4 weights                                    (numba)
    blockwise_8bit    absmax of a 4-bit weight in 8 bits: double quantization  (numba)
    torch_sum         torch's float32 `mean`, to the last bit               (numba)
    rowwise_8bit      LLM.int8 weights                                     (numba)
    torch_device      the same functions on a torch device                 (torch, imported lazily)

Sources: LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339), QLoRA (Dettmers et al. 2023,
arXiv:2305.14314), and the library's functional.py, backends/default/ops.py and csrc/cpu_ops.cpp.
"""
