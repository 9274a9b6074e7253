"""Private names of Lightning that the strategy needs; pyproject.toml bounds Lightning for them."""

from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.trainer.call import _call_callback_hooks

SpawnLauncher = _MultiProcessingLauncher
SubprocessLauncher = _SubprocessScriptLauncher
call_callback_hooks = _call_callback_hooks
