"""AWQ (Lin et al. 2023, arXiv:2306.00978): scale search, clipping and the packed format."""
