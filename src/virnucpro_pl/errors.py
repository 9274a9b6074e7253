"""Errors that are reported in one line, and characters and spellings in messages."""

import codecs
import difflib
import errno
from collections.abc import Iterable


class UserError(ValueError):
    """Mistake in the input, the configuration or the files of the user.

    The message is one line: what is wrong, where, and how to fix it. The exit status is 2.
    """


class RunFailedError(RuntimeError):
    """Failure with a cause outside the program.

    The message is one line. The exit status is 1; a sweep lists the job and continues.
    """

    can_continue = True
    """Starting the same command again may get further"""


class FinalError(RunFailedError):
    """Failure that the same command would meet again."""

    can_continue = False


class RankLostError(RunFailedError):
    """Another process of the run has ended or hangs."""


class MissingScoresError(RunFailedError):
    """Scores are missing on the disk."""


class DownloadError(RunFailedError):
    """A file could not be downloaded."""


class DamagedStoreError(RunFailedError):
    """Files of the ORF store were changed after they were written."""


class OutOfMemoryError(FinalError):
    """A device or the host has too little memory."""


class NodesDifferError(FinalError):
    """Processes of the run see different files; each process reports this itself."""


class DamagedResultsError(FinalError):
    """Results were changed after they were written."""


class DamagedWeightsError(FinalError):
    """Weights differ from their digest, or cannot be read."""


class MachineNotReadyError(FinalError):
    """This machine cannot run the model, for reasons that were logged before."""


class DisagreementError(FinalError):
    """Two runs agree less than required."""


ESCAPE = "virnucpro_pl.escape"
"""Error handler of streams and text files for people"""

# Of torch on CUDA, of cuBLAS and of torch on the CPU, which have no class for these errors.
_OUT_OF_MEMORY = (
    "OutOfMemoryError",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, also in a child process that reported its error as text.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    """
    if isinstance(error, UserError):
        return False
    return isinstance(error, MemoryError) or any(text in f"{type(error).__name__}: {error}" for text in _OUT_OF_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error or its cause is a lack of disk space, a quota or a file size limit.

    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    """
    cause = error.__cause__ or error.__context__
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return is_full or (cause is not None and is_disk_full(cause))


def escaped(text: str) -> str:
    r"""Escape control characters, line ends and undecodable bytes, which a terminal would obey or cannot show.

    >>> escaped("x\x1b[2J é")
    'x\\x1b[2J é'
    >>> escaped("reads\udcff.fa")
    'reads\\xff.fa'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Escape characters that a stream cannot encode, as an error handler of ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(ESCAPE, _escape_unencodable)


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python decodes bytes that are not UTF-8 to surrogates
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the most similar known word, or nothing if none is similar.

    >>> did_you_mean("overwite", ["overwrite", "output"])
    '; did you mean overwrite?'
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
