"""Who has signed a run: the keys that a file allows, and nobody else."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.dvc.signatures import CHECKPOINTS, RUN, Signer, Untrusted, principal, signers


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, Signer, Path]:
    """Two signers, of whom a file allows the first."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    ours, theirs = Signer(str(folder / "ours")), Signer(str(folder / "theirs"))
    allowed = folder / "allowed"
    allowed.write_text(f'# the team\nalice@example.org namespaces="adapterbuild-*" {ours.public}\n')
    return ours, theirs, allowed


def test_a_signature_counts_for_its_text_its_purpose_and_allowed_keys_only(two: tuple[Signer, Signer, Path]):
    ours, theirs, allowed = two
    assert [name for name, _ in signers(allowed)] == ["alice@example.org"]
    assert principal("runs/a", ours.sign("runs/a", RUN), RUN, allowed) == "alice@example.org"
    assert ours.has_signed("runs/a", ours.sign("runs/a", RUN), RUN) and not theirs.has_signed("runs/a", ours.sign("runs/a", RUN), RUN)
    for text, purpose in (("runs/b", RUN), ("runs/a", CHECKPOINTS)):
        with pytest.raises(Untrusted, match=r"by alice@example.org \(SHA256:\S+\) does not match"):
            principal(text, ours.sign("runs/a", RUN), purpose, allowed)
    with pytest.raises(Untrusted, match=r"signed by SHA256:\S+, which allowed does not allow"):
        principal("runs/a", theirs.sign("runs/a", RUN), RUN, allowed)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_others_write_in_place_of_a_signature_is_nobodys(two: tuple[Signer, Signer, Path], data: st.DataObject):
    ours, _, allowed = two
    whole = ours.sign("runs/a", RUN)
    begin, end = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    text = whole[:begin] + data.draw(st.text(max_size=8)) + whole[end:]
    with pytest.raises(Untrusted):
        principal("runs/b", text, RUN, allowed)
    assert not ours.has_signed("runs/b", text, RUN)
    assert principal("runs/a", whole, RUN, allowed) == "alice@example.org"
