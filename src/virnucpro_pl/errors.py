"""What ends a run with one clear line."""

import codecs
import difflib
import errno
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input, the configuration or the files given.

    The command line prints the message as one line and exits with status 2, so a message says what is wrong, where,
    and how to mend it.
    """


class RunFailedError(RuntimeError):
    """What ended a run for a reason outside the program.

    The command line prints the message as one line and exits with status 1; a sweep lists the job and goes on.
    """

    can_continue = True
    """Whether the same command, given again, may get further"""


class OutOfMemoryError(RunFailedError):
    """A device or the host has too little memory; the message says what would need less."""

    can_continue = False


class RankLostError(RunFailedError):
    """Another process of the run is gone; the message says which."""


class NodesDifferError(RunFailedError):
    """The processes of a run do not see the same files; the message says which. Each process tells of it itself."""

    can_continue = False


class MissingScoresError(RunFailedError):
    """Scores that should be on the disk are not; the message says how many."""


class DownloadError(RunFailedError):
    """A server did not give what it was asked for; the message says which file, and why."""


class DamagedResultsError(RunFailedError):
    """Results are not as they were written; the message says which."""

    can_continue = False


class DamagedStoreError(RunFailedError):
    """What was stored of the input is not as it was written; the message says which file."""


class DamagedWeightsError(RunFailedError):
    """Weights are not what they should be; the message says which."""

    can_continue = False


class MachineNotReadyError(RunFailedError):
    """Something keeps predictions from running here; what it is was said before."""

    can_continue = False


class DisagreementError(RunFailedError):
    """Two runs agree less than they must; the message says by how much."""

    can_continue = False


ESCAPE = "virnucpro_pl.escape"
"""What streams and files for people are opened with as ``errors``"""

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


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that there is no space left, or none within a quota or limit.

    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    """
    cause = error.__cause__ or error.__context__
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return is_full or (cause is not None and is_disk_full(cause))


def escaped(text: str) -> str:
    r"""Make what a terminal would obey or cannot show visible: control characters, line ends, undecodable bytes.

    >>> escaped("x\x1b[2J é")
    'x\\x1b[2J é'
    >>> escaped("reads\udcff.fa")
    'reads\\xff.fa'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Write what a stream cannot encode as ``escaped`` does: an error handler of codecs.

    Raises:
        UnicodeError: it is not about encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(ESCAPE, escape_unencodable)


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00  # what Python makes of bytes that are not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` if something known is spelt nearly so, else nothing.

    >>> did_you_mean("overwite", ["overwrite", "output"])
    '; did you mean overwrite?'
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
