"""Private names of Hydra. ``pyproject.toml`` allows only Hydra 1.3, in which they exist."""

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.utils import JobReturn

__all__ = ["FileConfigSource", "job_error"]


def job_error(job_return: JobReturn) -> BaseException:
    """Return the error of a failed job. The public property raises it and writes to standard error."""
    error: BaseException = job_return._return_value
    return error
