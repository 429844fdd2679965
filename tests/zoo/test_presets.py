"""Each preset trains in RL Zoo's own way, found by its name, with the settings that its head speaks of."""

import argparse
import re

import pytest
import yaml

from sb3_softac.zoo import register
from sb3_softac.zoo.algorithms import hyperparameter_file

register()
from rl_zoo3.exp_manager import ExperimentManager  # noqa: E402  (registered first)

FOLDER = hyperparameter_file("softac_v1").parent / "presets"
EXPECTED = {
    "softac_v1_icml": dict(ent_coef=0.2, tau=0.005, gradient_steps=1, reparameterize=True, actor_q="min", n_critics=2),
    "softac_v1_hard_target": dict(tau=1.0, target_update_interval=1000, gradient_steps=4),
    "softac_v1_arxiv_v1": dict(reparameterize=False, ent_coef=1.0, distribution="mixture", n_critics=1, deterministic_by="q"),
    "softac_v1_learned_temperature": dict(ent_coef="auto", target_entropy=-1.0),
    "softac_v1_authors_code": dict(actor_q="first", reparameterize=True),
    "softac_v1_deterministic": dict(ent_coef=0.0, tau=1.0, target_update_interval=1000, distribution="deterministic"),
}


def test_all_presets_are_here():
    assert {path.stem for path in FOLDER.iterdir()} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_head_names_source_and_deviations(name):
    text = (FOLDER / f"{name}.yml").read_text()
    head = re.match(r"(#.*\n)+", text).group()
    assert re.search(r"arXiv:\d{4}\.\d{5}v\d|github\.com/haarnoja/sac", head) and "Deviations: " in head
    assert all("n_timesteps" in entry for entry in yaml.safe_load(text).values())


@pytest.mark.filterwarnings("ignore:You provided an OpenAI Gym")
@pytest.mark.parametrize("name", EXPECTED)
def test_preset_trains(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # there is no file of that name here
    args = argparse.Namespace(env="Pendulum-v1")
    small = dict(learning_starts=100, random_steps=50, buffer_size=1_000, batch_size=16)
    manager = ExperimentManager(
        args,
        "softac_v1",
        "Pendulum-v1",
        str(tmp_path),
        config=f"{name}.yml",
        n_timesteps=110,
        hyperparams=small,
        n_eval_envs=1,
        eval_freq=-1,
        log_interval=-1,
        seed=0,
        verbose=0,
        device="cpu",
    )
    model = manager.setup_experiment()[0]
    for key, expected in EXPECTED[name].items():
        owners = {"distribution": model.policy, "n_critics": model.critic, "deterministic_by": model.actor}
        assert getattr(owners.get(key, model), key) == expected, key
    assert (model.action_noise is not None) == (name == "softac_v1_deterministic")
    manager.learn(model)
    manager.save_trained_model(model)
    assert model._n_updates == 10 * model.gradient_steps
    loaded = type(model).load(next(tmp_path.rglob("Pendulum-v1.zip")))
    assert loaded.policy.distribution == model.policy.distribution


ARXIV_V1 = {  # reward scale and millions of steps in the authors' code of February 2018
    **{"Hopper": (1, 3), "HalfCheetah": (1, 10), "Walker2d": (3, 5), "Ant": (3, 10), "Humanoid": (3, 20), "Swimmer": (100, 2)}
}
AUTHORS_CODE = {  # and in that of December 2018
    **{"HalfCheetah": (5, 3), "Ant": (5, 3), "Humanoid": (20, 10), "HumanoidStandup": (100, 10), "Swimmer": (25, 1)}
}


@pytest.mark.parametrize(("name", "scales"), [("arxiv_v1", ARXIV_V1), ("authors_code", AUTHORS_CODE)])
def test_scales_and_steps_are_those_of_the_code(name, scales):
    entries = yaml.safe_load((FOLDER / f"softac_v1_{name}.yml").read_text())
    assert entries.keys() == {"default", *(f"{task}-v{version}" for task in scales for version in (4, 5))}
    for task, (scale, millions) in scales.items():
        for version in (4, 5):
            entry = entries[f"{task}-v{version}"]
            assert entry["ent_coef"] == pytest.approx(1 / scale, rel=1e-3) and entry["n_timesteps"] == millions * 1e6
