"""
Failures of each kind, a hundred times. Each drill writes into ``benchmarks/results/drills.csv`` how often the promise held.
"""

import copy
import csv
import functools
import hashlib
import os
import random
import shutil
import signal
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint
from sb3_softac.resume.store import Store, read_checkpoint
from tests.resume import test_hostile as hostile
from tests.resume import test_replay, test_settings, test_store
from tests.resume.harness import uninterrupted
from tests.resume.test_exact import maker

NUMBER = 100
RESULTS = Path(__file__).parents[2] / "benchmarks/results/drills.csv"

pytestmark = pytest.mark.drill
hostile_checkpoint, settings_checkpoint = hostile.checkpoint, test_settings.checkpoint
small_blocks = test_replay.small_blocks


@contextmanager
def counted(name):
    """Write down how many of the trials before the first failure held; the list that it yields gets an item for each."""
    held = []
    try:
        yield held
    finally:
        rows = {}
        if RESULTS.exists():
            with open(RESULTS, newline="") as file:
                rows = {row["drill"]: row for row in csv.DictReader(file)}
        rows[name] = {"drill": name, "trials": NUMBER, "held": len(held)}
        with open(RESULTS, "w", newline="") as file:
            writer = csv.DictWriter(file, ["drill", "trials", "held"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[name] for name in sorted(rows))


STEPS, EVERY = 60, 15


def digest_of(end):
    """SHA-256 of the parameters that a training ends with."""
    parts = [np.asarray(part).tobytes() for name, part in sorted(end.items()) if name.startswith("parameters .policy.")]
    assert len(parts) > 5
    return hashlib.sha256(b"".join(parts)).hexdigest()


def straight(path):
    """What an uninterrupted training ends with, and how long it takes."""
    uninterrupted(maker(SoftAC_v1), STEPS, path / "first", every=EVERY)  # what takes time only once
    start = time.monotonic()
    return digest_of(uninterrupted(maker(SoftAC_v1), STEPS, path / "expected", every=EVERY)), time.monotonic() - start


def child_that_learns(path):
    def learn():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            end = digest_of(uninterrupted(maker(SoftAC_v1), STEPS, path, every=EVERY))
        (path / f"end-{os.getpid()}").write_text(end)

    return test_store.in_child(learn)


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ends(path):
    return {file.read_text() for file in path.glob("end-*")}


def test_kills(tmp_path):
    """A training is killed at any moment, and its program started again: it ends with the same numbers."""
    rng, (expected, took) = random.Random(0), straight(tmp_path)
    with counted("kill") as held:
        for number in range(NUMBER):
            path = tmp_path / str(number)
            path.mkdir()
            child = child_that_learns(path)
            time.sleep(rng.uniform(0, took))
            os.kill(child, signal.SIGKILL)
            exit_code(child)
            assert exit_code(child_that_learns(path)) == 0 and ends(path) == {expected}
            held.append(number)
            shutil.rmtree(path)


def test_kills_while_writing(tmp_path):
    """The writing of a checkpoint is killed: the one before or the new one is there, whole."""
    with counted("write") as held:
        test_store.kills(tmp_path, NUMBER, held)


def test_pairs_of_programs(tmp_path):
    """Two programs with one folder, the first of which is killed in every other pair: the second completes the training."""
    rng, (expected, took) = random.Random(0), straight(tmp_path)
    with counted("two programs") as held:
        for number in range(NUMBER):
            path = tmp_path / str(number)
            path.mkdir()
            first = child_that_learns(path)
            time.sleep(rng.uniform(0, took / 2))
            second = child_that_learns(path)
            if number % 2:
                time.sleep(rng.uniform(0, took / 2))
                os.kill(first, signal.SIGKILL)
            codes = [exit_code(child) for child in (first, second)]
            assert codes[1] == 0 and codes[0] in ((0, -signal.SIGKILL) if number % 2 else (0,))
            assert ends(path) == {expected}
            assert not list(path.glob("damaged-*")) and read_checkpoint(path / f"checkpoint-{STEPS:012d}")
            held.append(number)
            shutil.rmtree(path)


@pytest.mark.parametrize("kind", test_replay.trainings())
def test_damages(kind, tmp_path):
    """Random damage to blocks of rows: the training goes on without the transitions in them."""
    with counted(f"damage, {kind}") as held:
        test_replay.drill(kind, tmp_path, NUMBER, held)


def test_damaged_states(tmp_path):
    """A byte of any file except the rows is flipped, or its end cut off: the checkpoint before is used."""
    rng = random.Random(0)
    template = tmp_path / "template"
    test_store.save(template, 2, test_store.save(template, 1))
    with counted("damage, state") as held:
        for number in range(NUMBER):
            folder = tmp_path / str(number)
            shutil.copytree(template, folder)
            path = max(folder.glob("checkpoint-*")) / rng.choice(hostile.FILES[:3])
            content = bytearray(path.read_bytes())
            place = rng.randrange(len(content))
            if rng.random() < 0.5:
                content[place] ^= 1 << rng.randrange(8)
            else:
                del content[place:]
            path.write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert test_store.check(Store(folder).newest()) == 1
            held.append(number)
            shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_hostile_files(hostile_checkpoint, tmp_path):
    """Some attributes are replaced by something else: nothing is written elsewhere, whatever becomes of the training."""
    rng = random.Random(0)
    victim = tmp_path / "victim" / "file"
    forms = [*hostile.FORMS.values(), *(lambda victim, node=node: copy.deepcopy(node) for node in hostile.ELSEWHERE.values())]

    def change(tree):
        tables = [table for table in hostile.attribute_tables(tree) if table]
        for _ in range(rng.randrange(1, 6)):
            table = rng.choice(tables)
            names = [*table, *[name for name in hostile.PLACES if name in table] * 5] if rng.random() < 0.8 else hostile.PLACES
            table[rng.choice(names)] = rng.choice(forms)(victim)

    with counted("hostile files") as held:
        for number in range(NUMBER):
            folder = tmp_path / str(number)
            shutil.copytree(hostile_checkpoint, folder / "checkpoints")
            hostile.change_state(folder / "checkpoints", change)
            model, callbacks = hostile.make(folder / "own")
            before = copy.deepcopy(hostile.all_places(model, callbacks))
            try:
                model.learn(60, callback=[*callbacks, ExactCheckpoint(folder / "checkpoints")])
            except Exception:  # whatever made-up numbers lead to
                pass
            after = hostile.all_places(model, callbacks)
            assert {name: after.get(name) for name in before} == before
            assert not [name for name, text in after.items() if "victim" in str(text)]
            assert {path.name for path in folder.iterdir()} <= {"checkpoints", "own"} and not victim.parent.exists()
            held.append(number)
            shutil.rmtree(folder)


def number_in(rng, now):
    return (
        now if rng.random() < 0.1 else rng.choice([now * 2, now + 1]) if isinstance(now, int) else now * rng.uniform(0.1, 0.9)
    )


ARGUMENTS = {
    **dict(gamma=0.99, learning_rate=3e-4, ent_coef=0.2, tau=0.005),
    **dict(gradient_steps=1, learning_starts=20, batch_size=4, seed=3, train_freq=1),
    **{"env: g": 10.0, "env: m": 1.0, "noise": 0.1, "eval_freq": 1000, "every": 20},
}


def test_changed_arguments(settings_checkpoint, tmp_path):
    """A few arguments are changed: each difference is named, and what has not changed is not."""
    rng = random.Random(0)
    template = settings_checkpoint(SoftAC_v1)
    defaults = SoftAC_v1("MlpPolicy", "Pendulum-v1")
    original = ARGUMENTS | {"tau": defaults.tau, "gamma": defaults.gamma, "learning_rate": defaults.learning_rate}
    del original["ent_coef"]
    with counted("changed arguments") as held:
        for number in range(NUMBER):
            folder = tmp_path / str(number)
            shutil.copytree(template, folder)
            now = original | {name: number_in(rng, original[name]) for name in rng.sample(sorted(original), rng.randrange(4))}
            own = {name: part for name, part in now.items() if name in ARGUMENTS and not name.startswith("env: ")}
            noise, freq = own.pop("noise"), own.pop("eval_freq")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                test_settings.program(
                    SoftAC_v1,
                    folder,
                    **own,
                    env=functools.partial(test_settings.pendulum, now["env: g"], now["env: m"]),
                    action_noise=functools.partial(test_settings.noise, noise),
                    callbacks=functools.partial(test_settings.evaluation, freq),
                )
            texts = [str(warning.message) for warning in caught if "This program differs" in str(warning.message)]
            changed = {name for name in original if now[name] != original[name]}
            assert len(texts) == bool(changed)
            words = {
                "env: g": "environment: g is",
                "env: m": "environment: m is",
                "noise": "_sigma is",
                "train_freq": "frequency is",
            }
            for name in original:
                assert (words.get(name, f"{name} is") in "".join(texts)) == (name in changed), (name, texts)
            held.append(number)
            shutil.rmtree(folder)
