"""What this machine has: processors, memory, devices, packages.

Nothing here imports torch or numpy: packages are looked up, never imported.
"""
