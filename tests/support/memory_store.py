"""A store in memory: what a plan would find on a disk, as dictionaries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.core.graph import Step
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.run_records import RunRecord
from engine.identity.provenance import Provenance


def statement(digest: str = "sha256:" + "0" * 64) -> str:
    """The file beside an artifact with this content address."""
    return Provenance("train-one", "train", digest, {}, "sha256:1", {}, {}).text()


def lock_text(records: Mapping[str, Record]) -> bytes:
    """A `dvc.lock` that has RECORDS, and nothing else."""
    lock = dvcfile.LockText(None)
    lock.update(records)
    return lock.text()


@dataclass
class MemoryStore:
    entries: dict[str, Entry] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    run_cache: dict[str, Record] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    run_records: dict[tuple[str, str], RunRecord] = field(default_factory=dict)
    offered: dict[str, str] = field(default_factory=dict)

    def entry(self, path: str) -> Entry | None:
        return self.entries.get(path)

    def record(self, step: str) -> Record | None:
        return self.records.get(step)

    def runs(self, key: str) -> list[Record | None]:
        return [self.run_cache[key]] if key in self.run_cache else []

    def runs_with(self, path: str, md5: str) -> bool:
        return any(run.dependencies.get(path) == Entry(md5) for run in self.run_cache.values())

    def holds(self, entry: Entry) -> bool:
        if entry.md5 not in self.objects:
            return False
        return not entry.is_folder or all(md5 in self.objects for md5 in dvcfile.parse_tree(self.objects[entry.md5]).values())

    def holds_intact(self, entry: Entry) -> bool:
        return self.holds(entry)

    def obtainable(self, entry: Entry) -> bool:
        return self.holds(entry)

    def obtain(self, md5: str) -> bytes | None:
        return self.read(md5)

    def tree(self, md5: str) -> Mapping[str, str] | None:
        return dvcfile.parse_tree(self.objects[md5]) if md5 in self.objects else None

    def read(self, md5: str) -> bytes | None:
        return self.objects.get(md5)

    def metrics(self, path: str) -> Mapping[str, Any]:
        return self.files.get(path, {})

    def ran(self, step: Step) -> RunRecord | None:
        made = self.entries.get(step.provenance)
        return self.run_record(step.name, made.md5) if made else None

    def run_record(self, step: str, statement: str) -> RunRecord | None:
        return self.run_records.get((step, statement))

    def put(self, text: str) -> Entry:
        """Keep a file's content in the cache."""
        md5 = dvcfile.text_md5(text)
        self.objects[md5] = text.encode()
        return Entry(md5)

    def put_folder(self, files: Mapping[str, str]) -> Entry:
        """Keep a folder's content in the cache."""
        listing = {name: self.put(text).md5 for name, text in files.items()}
        md5 = dvcfile.tree_md5(listing)
        self.objects[md5] = dvcfile.tree_bytes(listing)
        return Entry(md5)

    def build(self, step: Step, identity: str, content: Mapping[str, str]) -> None:
        """Do what `dvc repro` does with a step whose artifact comes out as CONTENT: outputs, record, run cache."""
        deps = {step.identity: self.put(identity)}
        if not step.producers:
            deps[dvcfile.RESOLVED] = dvcfile.resolved_entry()
        for item in step.inputs.values():
            deps[item.path] = self._inside(item.path) or self.entries[item.path]
        outs = {path: self.put(f"{path} of {sorted(content.items())}") for path in step.outputs}
        outs[step.artifact] = self.put_folder(content)
        self.entries |= outs
        self.records[step.name] = Record(dvcfile.command(step), deps, outs)
        self.run_cache[dvcfile.run_key(dvcfile.command(step), deps, step.outputs)] = self.records[step.name]

    def _inside(self, path: str) -> Entry | None:
        for folder, entry in self.entries.items():
            if path.startswith(f"{folder}/") and entry.is_folder:
                md5 = dvcfile.inside_tree(dvcfile.parse_tree(self.objects[entry.md5]), path.removeprefix(f"{folder}/"))
                return Entry(md5) if md5 else None
        return None
