"""Portable numerics: what a process sets up, what it leaves to the user, and that the number of cores and threads moves no bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.process import numerics
from tests.support import warm

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clean(monkeypatch):
    """A process in which nobody has begun; what a test sets is taken back."""
    for name in (*numerics.HANDED_ON, *numerics._UNFIT):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    numerics._say.cache_clear()
    return monkeypatch


def offer(monkeypatch, *flags, machine="x86_64"):
    monkeypatch.setattr(numerics, "_processor", lambda: {"name": "a processor", "flags": frozenset(flags)})
    monkeypatch.setattr(numerics.platform, "machine", lambda: machine)


def test_portable_sets_every_variable_and_says_nothing(clean, capsys):
    offer(clean, "avx2", "fma", "avx512f", "avx512_bf16")
    numerics.begin("portable")
    assert {name: os.environ[name] for name in numerics.VARIABLES} == numerics.VARIABLES
    assert capsys.readouterr().err == ""
    offers = ["avx2", "fma", "avx512f", "avx512_bf16"]
    assert numerics.description() == {"asked": "portable", "processor": "a processor", "offers": offers}


def test_native_sets_nothing_and_is_recorded(clean, capsys):
    offer(clean, "avx2")
    numerics.begin("native")
    assert not numerics.VARIABLES.keys() & os.environ.keys() and capsys.readouterr().err == ""
    assert numerics.description()["asked"] == "native" and not numerics.is_portable()


def test_what_the_user_has_set_stays_and_is_told_of(clean, capsys):
    offer(clean, "avx2")
    clean.setenv("MKL_CBWR", "COMPATIBLE")
    clean.setenv("OMP_DYNAMIC", "true")
    numerics.begin("portable")
    assert os.environ["MKL_CBWR"] == "COMPATIBLE" and os.environ["ATEN_CPU_CAPABILITY"] == "avx2"
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in said] == ["MKL_CBWR=COMPATIBLE", "OMP_DYNAMIC=true"]
    assert numerics.description()["set_by_user"] == {"MKL_CBWR": "COMPATIBLE", "OMP_DYNAMIC": "true"}


@pytest.mark.parametrize(("flags", "machine", "what"), [((), "x86_64", "need AVX2"), (("avx2",), "aarch64", "this processor is aarch64")])
def test_where_it_cannot_apply_that_is_said_once(clean, capsys, flags, machine, what):
    offer(clean, *flags, machine=machine)
    for _ in range(2):
        numerics.begin("portable")
    said = capsys.readouterr().err
    assert what in said and said.count("numerics:") == 1
    assert not numerics.VARIABLES.keys() & os.environ.keys() and not numerics.is_portable()
    assert what in numerics.description()["obstacle"]


def test_slow_bfloat16_is_said_with_the_way_out_where_numerics_are_portable(clean, capsys):
    offer(clean, "avx2")
    numerics.begin("native")
    numerics.say_slow_bfloat16()
    assert capsys.readouterr().err == ""
    numerics.begin("portable")
    numerics.say_slow_bfloat16()
    assert 'set training.precision to "float32", or resources.numerics to "native"' in capsys.readouterr().err


def test_work_is_divided_by_the_model_alone(clean):
    offer(clean, "avx2")
    clean.setattr(numerics, "cores", lambda: 64)
    assert [numerics.divide(threads) for threads in (None, 1, 3)] == [64, 1, 3], "before anybody has begun: as threads say"
    numerics.begin("portable")
    assert {numerics.divide(threads, 9_999_999) for threads in (None, 1, 3)} == {numerics.SMALL}
    assert {numerics.divide(threads, 10_000_000) for threads in (None, 1, 3)} == {numerics.LARGE}
    numerics.begin("native")
    assert [numerics.divide(threads, 10_000_000) for threads in (None, 1, 3)] == [64, 1, 3]


def test_processes_on_other_hosts_are_given_the_same():
    from stages.train.distributed.launch import _HANDED_ON

    assert set(numerics.HANDED_ON) <= set(_HANDED_ON)


def test_warm_processes_of_the_tests_begin_as_steps_do():
    assert warm._NUMERICS == numerics.VARIABLES


CONFINED = """
import os
from stages.process import numerics
numerics.begin("portable")
numerics.confine(1)
print(*sorted(os.sched_getaffinity(0)), flush=True)
input()
"""


@pytest.mark.skipif(numerics.cores() < 2 or numerics.obstacle() is not None, reason="needs two cores of x86-64 with AVX2")
def test_two_steps_with_one_thread_each_share_no_core(tmp_path):
    def start():
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        return subprocess.Popen(
            [sys.executable, "-c", CONFINED], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    processes = [start(), start()]
    cores = [process.stdout.readline().split() for process in processes]
    for process in processes:
        process.communicate("\n")
    assert [len(own) for own in cores] == [1, 1] and cores[0] != cores[1]


SUMS = """
import hashlib, json, sys
from stages.process import numerics
numerics.begin(sys.argv[1])
from stages.models.folders import prepare_process
prepare_process(int(sys.argv[2]))
import numpy, torch
torch.manual_seed(0)
torch.set_num_threads(numerics.divide(int(sys.argv[2]), int(sys.argv[3])))
def told(*tensors):
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:12]
found = {}
for rows, inner, outputs in [(8, 64, 64), (3, 576, 4099), (50, 150, 700), (1, 49152, 576), (8, 65536, 8), (64, 576, 576)]:
    a, b = torch.randn(rows, inner), torch.randn(outputs, inner)
    found[f"{rows}x{inner}x{outputs}"] = told(a @ b.T, (a @ b.T) @ b, (a @ b.T).T @ a)
x = torch.randn(700, 151, requires_grad=True)
norm = torch.nn.LayerNorm(151)
(norm(x).sigmoid().sum() + x.exp().mean()).backward()
found["norm, sigmoid, sum"] = told(x.grad, norm.weight.grad, norm.bias.grad, norm(x).sum())
q = torch.randn(2, 3, 300, 32, requires_grad=True)
torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).square().sum().backward()
found["attention"] = told(q.grad)
found["denormal"] = float(torch.tensor(1e-39) / 2)
big = numpy.random.default_rng(0).normal(size=(300, 5000))
found["numpy"] = hashlib.sha256((big @ big.T).tobytes() + numpy.exp(big).tobytes() + numpy.float64(big.sum()).tobytes()).hexdigest()[:12]
print(json.dumps(found))
"""


def sums(threads, parameters, asked="portable", **environment):
    command = [sys.executable, "-c", SUMS, asked, str(threads), str(parameters)]
    inherited = {name: value for name, value in os.environ.items() if name not in numerics.HANDED_ON}
    done = subprocess.run(command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(numerics.obstacle() is not None, reason="needs x86-64 with AVX2")
@pytest.mark.parametrize("parameters", [1, numerics.LARGE_FROM])
def test_no_number_of_threads_moves_a_bit_of_sums_large_and_small(parameters):
    expected = sums(1, parameters)
    assert expected["denormal"] > 0
    others = [(2, {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}), (3, {"LC_ALL": "C"}), (4, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3"})]
    for threads, environment in others:
        assert sums(threads, parameters, **environment) == expected, threads


@pytest.mark.slow
def test_threads_do_move_bits_where_numerics_are_native():
    """Else the test above would show nothing."""
    assert sums(1, 1, "native") != sums(3, 1, "native")


ROOTS = """
import json
from stages.process import numerics
numerics.begin("portable")
numerics.replace_approximations()
import numpy as np, torch

def exact(name, tensor):
    function = {"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan}.get(name) or getattr(np, name)
    return torch.from_numpy(np.asarray(function(tensor.detach().numpy())))

found = {}
for name in ("sqrt", "log2", "log10", "asin", "acos", "atan"):
    wrong = 0
    for dtype in (torch.float32, torch.float64):
        values = torch.rand(300, 700, dtype=dtype) * 10.0 ** torch.randint(-8, 1, (300, 1))
        for tensor in (values, values.t(), values[::2, 1::3], values[7], values[5, 5], values[:0]):
            copy, out = tensor.clone(), torch.empty(0, dtype=dtype)
            getattr(torch, name)(tensor, out=out)
            many = torch._foreach_sqrt([tensor]) if name == "sqrt" else ()
            for other in (getattr(tensor, name)(), getattr(copy, name + "_")(), out, *many):
                assert other.shape == tensor.shape and other.dtype == dtype
                wrong += int((other != exact(name, tensor)).sum())
    found[name] = wrong
half = torch.rand(1000).bfloat16()
assert torch.equal(half.sqrt(), half.float().sqrt().bfloat16())
assert torch.equal(torch.sqrt(torch.tensor([4, 9])), torch.tensor([2.0, 3.0])) and torch.sqrt(torch.tensor([-1.0])).isnan().all()
given = torch.rand(50, dtype=torch.float64, requires_grad=True)
assert torch.autograd.gradcheck(torch.sqrt, given)
print(json.dumps(found))
"""


@pytest.mark.skipif(numerics.obstacle() is not None, reason=f"{numerics.obstacle()}")
def test_roots_and_logarithms_are_the_nearest_numbers_not_those_of_the_processors_approximations():
    ran = subprocess.run([sys.executable, "-c", ROOTS], cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout) == dict.fromkeys(("sqrt", "log2", "log10", "asin", "acos", "atan"), 0)
