"""The number of images and a hash of each split of a run, to detect data that changed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from kseg.data.manifests import Manifest, read_manifest
from kseg.errors import UserError
from kseg.runs.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Contents:
    """The contents of a split.

    Attributes:
        examples: Number of images.
        sha256: Hash of all records in their order, from the hashes of the shards.
    """

    examples: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.examples} images, hash {self.sha256[:8]}"

    @classmethod
    def of(cls, manifest: Manifest) -> "Contents":
        """Returns the contents that a manifest describes."""
        shards = [(shard.examples, shard.sha256) for shard in manifest.shards]
        return cls(manifest.num_examples, hashlib.sha256(json.dumps(shards).encode()).hexdigest())


def contents_of(experiment: Experiment) -> dict[str, Contents]:
    """Returns the contents of all splits of an experiment by name."""
    splits = [*experiment.train_split, *([experiment.val_split] if experiment.val_split else [])]
    return {name: Contents.of(read_manifest(experiment.data_dir, name)) for name in splits}


def to_text(contents: Mapping[str, Contents]) -> str:
    """Returns the text of `data.json`."""
    held = {name: dataclasses.asdict(split) for name, split in contents.items()}
    return json.dumps(held, indent=1) + "\n"


def read_file(path: Path) -> dict[str, Contents]:
    """Reads `data.json`; a run of an earlier version has none, which gives no contents.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {name: Contents(**values) for name, values in held.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}, which holds hashes of the data of the run, cannot be read: {error}. Delete "
            "it to go on without comparing the data"
        ) from error
