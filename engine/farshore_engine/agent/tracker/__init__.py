"""Write tracking: which blocks of a disk were written, by the best means that the kernel offers.

`interface` states what every tracker promises, `probe` chooses one and says why.
"""
