"""Memory that a process frees and takes again in every step of training stays with the process."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 2**30  # bytes; larger blocks still come from the kernel and go back to it


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large freed blocks, which it would return to the kernel and get back page by page.

    Returns:
        whether the C library is one that can be told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT), mallopt(M_TRIM_THRESHOLD, 2**31 - 1)])
