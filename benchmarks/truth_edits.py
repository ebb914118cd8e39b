"""Random edits: those of the workspace's value, and those that happen to its disk behind everyone's back."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.truth_world import BEHAVIOURS, COMMENTED, PROMPTS, SPEC_NAMES, Spec, Task, World, draw_sampler

Edit = Callable[[World, random.Random], bool]
"""Changes the world in place; False where it does not apply."""
Damage = Callable[[Path, World, random.Random], bool]


def _task(world: World, draw: random.Random) -> Task:
    return world.tasks[draw.choice(list(world.tasks))]


def _spec(world: World, draw: random.Random) -> Spec:
    return world.specs[draw.choice(list(world.specs))]


def recipe_field(world: World, draw: random.Random) -> bool:
    """Another value of one field of a recipe."""
    match draw.randrange(8):
        case 0:
            _task(world, draw).prefix = draw.choice(["", " ", "= "])
        case 1:
            _task(world, draw).validation = draw.choice(["0.05", "0.1", "0.15", "0.3"])
        case 2:
            _task(world, draw).seed = draw.choice("0123")
        case 3:
            _task(world, draw).limit = draw.choice(["25", "30", "1000"])
        case 4:
            world.max_length = draw.choice(["96", "128", "160"])
        case 5:
            world.mask = draw.choice(["completion", "full"])
        case 6:
            _spec(world, draw).seed = draw.choice("0123")
        case _:
            _spec(world, draw).epochs = draw.choice("123")
    return True


def sampler(world: World, draw: random.Random) -> bool:
    """Another sampler, or other weights; a member that was added a moment ago among them."""
    spec = _spec(world, draw)
    weights = ", ".join(f"{task} = {draw.choice(['1', '1.0', '2', '0.5'])}" for task in spec.tasks)
    added = [f'"extra{n}"' for n in range(1, world.members + 1)]
    spec.sampler = draw.choice([draw_sampler(draw), f'{{ kind = "weights", weights = {{ {weights} }} }}', *added])
    return True


def field_of_another_step(world: World, draw: random.Random) -> bool:
    """A field that only trainings depend on, which are not built here."""
    world.learning_rate = draw.choice(["1e-3", "2e-3", "3e-3"])
    return True


def resource_field(world: World, draw: random.Random) -> bool:
    world.threads = draw.randint(1, 4)
    return True


def template(world: World, draw: random.Random) -> bool:
    _task(world, draw).prompt = draw.randrange(len(PROMPTS))
    return True


def row_content(world: World, draw: random.Random) -> bool:
    """A row added, removed, edited, or two rows exchanged."""
    rows = _task(world, draw).rows
    place = draw.randrange(len(rows))
    match draw.randrange(4):
        case 0:
            rows.append({"word": f"new{draw.randrange(1000)}", "extra": 0})
        case 1 if len(rows) > 28:
            rows.pop(place)
        case 2:
            rows[place]["word"] = f"edited{draw.randrange(1000)}"
        case _:
            rows[0], rows[place] = rows[place], rows[0]
    return True


def retyped_row(world: World, draw: random.Random) -> bool:
    """1 -> 1.0 -> true in a row: equal for Python, not for who reads the text."""
    row = draw.choice(_task(world, draw).rows)
    row["extra"] = {int: 1.0, float: True, bool: 1}[type(row["extra"])]
    return True


def retyped_share(world: World, draw: random.Random) -> bool:
    """0 -> 0.0 -> false in a field that takes any number: the same, the same, refused."""
    task = _task(world, draw)
    task.validation = {"0": "0.0", "0.0": "false"}.get(task.validation, "0")
    return True


def retyped_number(world: World, draw: random.Random) -> bool:
    """1 -> 1.0 -> true in a field that takes whole numbers: refused."""
    spec = _spec(world, draw)
    field = draw.choice(["seed", "epochs"])
    setattr(spec, field, draw.choice(["1", "1.0", "true"]))
    return True


def comment(world: World, draw: random.Random) -> bool:
    path = draw.choice(COMMENTED)
    world.comments[path] = world.comments.get(path, 0) + 1
    return True


def behaviour(world: World, draw: random.Random) -> bool:
    path = draw.choice(list(BEHAVIOURS))
    world.behaviours[path] = (world.behaviours.get(path, 0) + 1) % 3
    return True


def member_added(world: World, draw: random.Random) -> bool:
    world.members += 1
    return world.members <= 3


def lock_remark(world: World, draw: random.Random) -> bool:
    world.lock_remark += 1
    return True


def spec_added(world: World, draw: random.Random) -> bool:
    free = [name for name in SPEC_NAMES if name not in world.specs]
    if not free:
        return False
    world.specs[draw.choice(free)] = Spec(draw.sample(list(world.tasks), draw.randint(1, len(world.tasks))), draw_sampler(draw))
    return True


def spec_removed(world: World, draw: random.Random) -> bool:
    if len(world.specs) < 2:
        return False
    del world.specs[draw.choice(list(world.specs))]
    return True


def spec_renamed(world: World, draw: random.Random) -> bool:
    free = [name for name in SPEC_NAMES if name not in world.specs]
    old = draw.choice(list(world.specs))
    if not free:
        return False
    new = draw.choice(free)
    world.specs = {new if name == old else name: spec for name, spec in world.specs.items()}
    return True


def mixture(world: World, draw: random.Random) -> bool:
    """Other tasks in a mixture, or the same in another order, which says nothing."""
    spec = _spec(world, draw)
    if "weights" in spec.sampler:
        return False
    spec.tasks = draw.sample(list(world.tasks), draw.randint(1, len(world.tasks)))
    return True


EDITS: dict[str, Edit] = {
    f.__name__: f
    for f in (
        recipe_field,
        sampler,
        field_of_another_step,
        resource_field,
        template,
        row_content,
        retyped_row,
        retyped_share,
        retyped_number,
        comment,
        behaviour,
        member_added,
        lock_remark,
        spec_added,
        spec_removed,
        spec_renamed,
        mixture,
    )
}


def _step(world: World, draw: random.Random) -> str:
    return draw.choice(list(world.truths()))


def _artifact_file(root: Path, world: World, draw: random.Random) -> Path:
    return draw.choice(sorted(path for path in (root / "artifacts" / _step(world, draw)).iterdir()))


def artifact_deleted(root: Path, world: World, draw: random.Random) -> bool:
    shutil.rmtree(root / "artifacts" / _step(world, draw))
    return True


def artifact_file_deleted(root: Path, world: World, draw: random.Random) -> bool:
    _artifact_file(root, world, draw).unlink()
    return True


def artifact_corrupted(root: Path, world: World, draw: random.Random) -> bool:
    """One byte of a file is another; its size stays."""
    path = _artifact_file(root, world, draw)
    data = bytearray(path.read_bytes())
    if data:
        data[draw.randrange(len(data))] ^= 1
    path.write_bytes(bytes(data) or b"x")
    return True


def artifact_touched(root: Path, world: World, draw: random.Random) -> bool:
    """A new time, the same content."""
    _artifact_file(root, world, draw).touch()
    return True


def file_added_to_artifact(root: Path, world: World, draw: random.Random) -> bool:
    (root / "artifacts" / _step(world, draw) / "stray.txt").write_text("stray", "utf-8")
    return True


def side_file_deleted(root: Path, world: World, draw: random.Random) -> bool:
    step = _step(world, draw)
    (root / draw.choice([f"artifacts/{step}.provenance.json", f"metrics/{step}.json"])).unlink()
    return True


def metrics_edited(root: Path, world: World, draw: random.Random) -> bool:
    path = root / "metrics" / f"{_step(world, draw)}.json"
    path.write_text(path.read_text("utf-8") + " ", "utf-8")
    return True


def identity_edited(root: Path, world: World, draw: random.Random) -> bool:
    path = root / "artifacts/identity" / f"{_step(world, draw)}.json"
    if draw.random() < 0.5:
        path.unlink()
    else:
        path.write_text(path.read_text("utf-8") + " ", "utf-8")
    return True


def params_edited(root: Path, world: World, draw: random.Random) -> bool:
    path = root / "params.yaml"
    path.write_text(path.read_text("utf-8") + "# by hand\n", "utf-8")
    return True


def cache_object_deleted(root: Path, world: World, draw: random.Random) -> bool:
    draw.choice(sorted(path for path in (root / ".dvc/cache/files/md5").glob("*/*"))).unlink()
    return True


def run_cache_deleted(root: Path, world: World, draw: random.Random) -> bool:
    shutil.rmtree(root / ".dvc/cache/runs", ignore_errors=True)
    return True


DAMAGES: dict[str, Damage] = {
    f.__name__: f
    for f in (
        artifact_deleted,
        artifact_file_deleted,
        artifact_corrupted,
        artifact_touched,
        file_added_to_artifact,
        side_file_deleted,
        metrics_edited,
        identity_edited,
        params_edited,
        cache_object_deleted,
        run_cache_deleted,
    )
}
