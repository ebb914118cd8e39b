"""Near-deduplication by MinHash and locality-sensitive hashing (Broder, 1997)."""

from typing import Any, ClassVar, Literal

from engine.core.part import recipe
from stages.generate.cleaning.rule import Check, FilesOf, Rule
from stages.rows.words import words


class NearDuplicates(Rule):
    """Of rows with nearly the same text only the first stays, by the estimated Jaccard similarity of their word n-grams."""

    kind: Literal["near_duplicates"] = "near_duplicates"
    compares_rows: ClassVar[bool] = True
    environment = ("datasketch", "numpy", "regex")
    threshold: float = recipe(0.8, "Texts with at least this Jaccard similarity are duplicates.", ge=0.1, le=0.9)
    ngram: int = recipe(3, "Words per n-gram; a shorter text is a single n-gram.", gt=0)
    permutations: int = recipe(128, "Number of hash permutations: more are more accurate and slower.", ge=64, le=1024)
    seed: int = recipe(0, "Seed of the permutations.", ge=0, lt=2**32)

    def check(self, files: FilesOf) -> Check:
        """A check that stores a MinHash signature of each text that stays."""
        from datasketch import MinHash, MinHashLSH

        index = MinHashLSH(threshold=self.threshold, num_perm=self.permutations)
        signatures: list[Any] = []

        def reason(text: str) -> str | None:
            found = words(text)
            grams = {" ".join(found[start : start + self.ngram]) for start in range(max(1, len(found) - self.ngram + 1))}
            signature = MinHash(num_perm=self.permutations, seed=self.seed)
            signature.update_batch([gram.encode("utf-8", "surrogatepass") for gram in sorted(grams)])
            # The index returns candidates, including false positives: the signatures decide.
            if any(signature.jaccard(signatures[other]) >= self.threshold for other in index.query(signature)):
                return "near-duplicate"
            index.insert(len(signatures), signature)
            signatures.append(signature)
            return None

        return reason
