"""Input files and the ORF store that is made of them."""

from collections.abc import Sequence
from pathlib import Path

from virnucpro_pl.errors import NodesDifferError
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.sequence.records import resolve_inputs
from virnucpro_pl.sequence.store import OrfStore, StoreSettings, check_dataset, input_digests, inputs_of, prepare_store
from virnucpro_pl.sequence.streams import can_be_read_again


class OrfSource:
    """Input files and the ORF store that is made of them.

    Args:
        input: FASTA or FASTQ, plain or compressed: a path, several, a pattern, or ``-`` for standard input; or the
            folder of a store, such as a dataset, used as it is.
        store_dir: folder of the ORF stores.
        settings: settings that shape the store.
        per_node: each node reads the input into a store of its own; otherwise the first rank builds one for all.
        clock: clock of the stages.

    Raises:
        UserError: an input is missing, or a setting is out of range.
    """

    def __init__(
        self,
        input: str | Sequence[str],
        store_dir: Path,
        settings: StoreSettings,
        per_node: bool = False,
        clock: StageClock | None = None,
    ):
        settings.check()
        stored = inputs_of(Path(input)) if isinstance(input, str) else None
        self.inputs = resolve_inputs(input) if stored is None else stored
        self.per_node = per_node
        self.is_prepared = False
        self.clock = clock or StageClock()
        self._settings = settings
        self._folder = Path(str(input)) if stored is not None else None
        self._store_dir = self._folder.parent if self._folder else store_dir

    @property
    def folder(self) -> Path:
        """Folder of the ORF store, once it is prepared."""
        assert self._folder is not None, "prepare runs first"
        return self._folder

    def prepare(self) -> None:
        """Build the ORF store, or check the files of a store that exists."""
        if self._folder is None:
            self._folder = prepare_store(self.inputs, self._store_dir, self._settings, self.clock)
        elif not self.is_prepared:
            check_dataset(self._folder)
        self.is_prepared = True

    def open(self, name: str) -> OrfStore:
        """Open the store of this name, which the first rank has prepared.

        Raises:
            NodesDifferError: this node has no such store.
        """
        folder = self._store_dir / name
        if not folder.is_dir():
            raise NodesDifferError(
                f"{folder} is missing: data.store_dir is not shared by the nodes (data.store_per_node=true makes each"
                " node build its own), or the nodes read different inputs"
            )
        return OrfStore(folder)

    def can_be_read_twice(self) -> bool:
        """Return whether all inputs are files, not streams."""
        return all(map(can_be_read_again, self.inputs))

    def digests(self) -> list[str]:
        """Return the SHA-256 of each input: as noted in the store if it exists, otherwise of the files now."""
        if self._folder is None:
            return input_digests(self.inputs, self._store_dir)
        return [source["sha256"] for source in OrfStore(self._folder).manifest["inputs"]]
