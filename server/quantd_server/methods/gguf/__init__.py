"""GGUF: one file for llama.cpp, from a Hugging Face directory or an unquantized .gguf file.

description     what a GGUF file will hold
architectures   Hugging Face names, shapes and settings in llama.cpp's words
tokenizer       the vocabulary, in llama.cpp's words
file_types      which tensor gets which type
metadata_writer the header, and the place of every tensor
method          all of it together, as a quantization method
"""

from quantd_server.methods.gguf.method import Gguf

__all__ = ["Gguf"]
