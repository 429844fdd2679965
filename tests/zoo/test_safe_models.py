"""Each model that the Zoo trains with a file of hyperparams/ is saved so that it can be loaded without unpickling anything."""

import argparse

import pytest
import yaml

from sb3_softac.zoo import register
from sb3_softac.zoo.algorithms import ALGORITHMS, hyperparameter_file
from tests.toys import OBSERVATIONS, VECTOR, random_envs

register()
from rl_zoo3.exp_manager import ExperimentManager  # noqa: E402  (registered first)
from rl_zoo3.utils import ALGOS  # noqa: E402

FOLDER = hyperparameter_file("sql").parent
FILES = [(FOLDER / f"{algo}.yml", algo) for algo in ALGORITHMS]
FILES += [(path, "softac_v1") for path in sorted((FOLDER / "presets").glob("*.yml"))]
ENTRIES = {
    f"{path.stem}-{name}": (algo, entry) for path, algo in FILES for name, entry in yaml.safe_load(path.read_text()).items()
}
# Versions 4 and 5 of an environment have the same: one of each is enough
NAMES = {(algo, str(sorted(entry.items()))): name for name, (algo, entry) in ENTRIES.items()}.values()


@pytest.mark.parametrize("name", NAMES)
def test_safe_load(name, tmp_path):
    algo, entry = ENTRIES[name]
    task = "CartPole-v1" if algo.startswith("discrete") else "Pendulum-v1"
    manager = ExperimentManager(argparse.Namespace(), algo, task, str(tmp_path), n_timesteps=10, verbose=0)
    hyperparams = {key: value for key, value in entry.items() if key != "env_wrapper"} | {"buffer_size": 100}
    hyperparams, *_ = manager._preprocess_hyperparams(hyperparams)
    env = random_envs(ALGOS[algo], OBSERVATIONS["image"] if entry["policy"] == "CnnPolicy" else VECTOR, n_envs=manager.n_envs)
    hyperparams = manager._preprocess_action_noise(hyperparams, {}, env)
    policy_kwargs = hyperparams.get("policy_kwargs") or {}
    layers = policy_kwargs.get("net_arch")  # smaller ones are as good
    small = {name: [4] for name in layers} if isinstance(layers, dict) else [4]
    hyperparams["policy_kwargs"] = {**policy_kwargs, "net_arch": small}
    model = ALGOS[algo](env=env, device="cpu", **hyperparams)
    model.save(tmp_path / "model")
    loaded = ALGOS[algo].load(tmp_path / "model", safe=True)
    assert type(loaded.learning_rate) is type(model.learning_rate)
    assert [loaded.lr_schedule(x) for x in (1.0, 0.3)] == [model.lr_schedule(x) for x in (1.0, 0.3)]
    assert repr(loaded.action_noise) == repr(model.action_noise)
    assert loaded.policy_kwargs == model.policy_kwargs and loaded.replay_buffer_kwargs == model.replay_buffer_kwargs
    loaded.save(tmp_path / "again")
    ALGOS[algo].load(tmp_path / "again", safe=True)
