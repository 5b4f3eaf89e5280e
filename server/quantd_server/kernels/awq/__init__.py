"""AWQ (Lin et al. 2023, arXiv:2306.00978): scale search and the packed format."""
