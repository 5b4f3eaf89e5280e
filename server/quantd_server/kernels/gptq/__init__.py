"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): the solver and the packed format."""
