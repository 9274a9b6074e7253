"""What ends a run with one clear line."""


class UserError(ValueError):
    """A mistake in the input, the configuration or the files given.

    The command line prints the message as one line and exits with status 2, so a message says what is wrong, where,
    and how to mend it.
    """


class OutOfMemoryError(RuntimeError):
    """A device or the host has too little memory; the message says what would need less.

    The command line prints the message as one line and exits with status 1; a sweep lists the job and goes on.
    """


# Of torch on CUDA, of cuBLAS and of torch on the CPU, whose errors have no class of their own.
_SIGNS = ("OutOfMemoryError", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, also one that a child process reported as text.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    """
    if isinstance(error, UserError):
        return False
    return isinstance(error, MemoryError) or any(sign in f"{type(error).__name__}: {error}" for sign in _SIGNS)


def escaped(text: str) -> str:
    r"""Make what a terminal would obey or cannot show visible: control characters, line ends, undecodable bytes.

    >>> escaped("x\x1b[2J é")
    'x\\x1b[2J é'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
