"""Names, perturbations and changes that are noticed before a run starts."""

import subprocess
import sys

import gymnasium as gym
import pytest
import yaml

from sb3_softac.study import StudyError, read_study
from sb3_softac.study.__main__ import main
from sb3_softac.study.perturbed_evaluation import default_sweeps, sweeps_of
from sb3_softac.study.validation import check_names, check_unchanged
from tests.study.small import NO_TRAINING, declare, declared, write_result


def perturbed(**sweeps):
    return {"robustness": {"perturbations": sweeps}}


REFUSED = [
    ({"algorithms": ["softac"]}, "RL Zoo has no algorithm 'softac', did you mean 'softac_v1'"),
    ({"environments": ["Pendulm-v1"]}, "Unknown environment 'Pendulm-v1', did you mean 'Pendulum-v1'? (if a module"),
    ({"hyperparams": {"ent_coeff": 1}}, "softac_v1 has no hyperparameter 'ent_coeff', did you mean 'ent_coef'"),
    ({"hyperparams": {"n_envs": 0}}, "n_envs must be an integer, at least 1, got 0"),
    ({"grid": {"n_envs": [1, "four"]}}, "n_envs must be an integer, at least 1, got 'four'"),
    ({"hyperparams": {"learning_rate": "fast"}}, "learning_rate must be a number, or a text such as lin_3e-4"),
    (
        {"hyperparams": {"noise_type": "pink", "noise_std": 1}},
        "noise_type must be one of ['normal', 'ornstein-uhlenbeck'], or None",
    ),
    ({"hyperparams": {"noise_type": "normal"}}, "noise_type needs noise_std"),
    ({"algorithms": {"sac": {"config": "none.yml"}}}, "the hyperparameter file none.yml does not exist"),
    ({"environments": {"Pendulum-v1": {"env_kwargs": {"weight": 2}}}}, "Pendulum-v1 cannot be created: TypeError"),
    *(
        ({"hyperparams": {name: 1}}, f"{name} is not allowed here")
        for name in ("n_timesteps", "env_kwargs", "seed", "device", "verbose")
    ),
    (perturbed(push=[10]), "push for Pendulum-v1: Push needs a MuJoCo environment"),
    (perturbed(action_noise=[0.1, -0.1]), "The strength of ActionNoise must be a number of at least 0"),
    (perturbed(action_noise=["nan"]), "got nan"),
    (perturbed(action_noise=[0]), "action_noise: 0 changes nothing, and is always evaluated: give other strengths"),
    (perturbed(action_noise=["9" * 400]), "got inf"),
    (perturbed(delayed_actions=[0.5]), "whole number"),
    (perturbed(parameter={"name": "gravity", "strengths": [2]}), "no parameter 'gravity'; it has g, m, l"),
    (perturbed(parameter={"name": ["g"], "strengths": [2]}), "has no parameter ['g']"),
    (perturbed(parameter={"name": "screen_dim", "strengths": [2]}), "it made no difference in a trial of 1000 steps"),
]


class Unfinished(gym.Env):
    def __init__(self):
        import nothing_of_this_name  # noqa: F401


def test_where_a_constructor_fails():
    gym.register("Unfinished-v0", entry_point=Unfinished)
    try:
        with pytest.raises(
            StudyError, match=r"ModuleNotFoundError: .*nothing_of_this_name.* \(.*test_validation.py, line \d+\)"
        ):
            default_sweeps("Unfinished-v0", [{}])
    finally:
        del gym.registry["Unfinished-v0"]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_refused_before_anything_is_trained(tmp_path, capsys, changes, message):
    assert main(["run", str(declare(tmp_path, **changes))]) == 2
    assert message in capsys.readouterr().err


def test_all_algorithms_and_options_of_the_zoo(tmp_path):
    algorithms = ["softac_v1", "sql", "discretesac", "sac", "td3", "ddpg", "ppo", "dqn", "qrdqn", "tqc"]
    check_names(declared(tmp_path, algorithms=algorithms, hyperparams={"normalize": True, "n_envs": 2}))
    schedules = {"learning_rate": "lin_3e-4", "noise_type": "normal", "noise_std": 0.1}
    check_names(declared(tmp_path, hyperparams=schedules))


def test_all_perturbations_that_apply(tmp_path):
    study = declared(tmp_path, robustness={"episodes": 7})
    check_names(study)
    assert sweeps_of(study, "Pendulum-v1") == default_sweeps("Pendulum-v1", [{}])
    names = {
        env: [sweep.name for sweep in default_sweeps(env, [{}])]
        for env in ("Pendulum-v1", "CartPole-v1", "Hopper-v4", "MultiGoal-v0")
    }
    signals = ["action_noise", "observation_noise", "dropped_actions", "delayed_actions"]
    assert names["Pendulum-v1"] == [*signals, "parameter g", "parameter m", "parameter l"]
    assert names["CartPole-v1"][:3] == ["observation_noise", "dropped_actions", "parameter gravity"]
    assert names["Hopper-v4"] == [*signals, "push", "mass", "friction", "gravity", "damping"]
    assert names["MultiGoal-v0"] == [*signals, "moved_goals", "obstacle"]


@pytest.mark.parametrize("order", [("heavy", "weightless"), ("weightless", "heavy")])
def test_perturbations_apply_whatever_the_keyword_arguments_of_a_run(order, tmp_path):
    for name, kwargs in (("heavy", {}), ("weightless", {"g": 0.0}), ("wrong", {"nonsense": 1})):
        entry = {"policy": "MlpPolicy", "env_kwargs": kwargs}
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump({"Pendulum-v1": entry}))
    algorithms = {name: {"algo": "sac", "config": f"{name}.yml"} for name in order}
    check_names(study := declared(tmp_path, algorithms=algorithms, robustness={}))
    names = [sweep.name for sweep in sweeps_of(study, "Pendulum-v1")]
    assert "parameter m" in names and "parameter g" not in names
    gravity = {"perturbations": {"parameter": {"name": "g", "strengths": [2]}}}
    with pytest.raises(StudyError, match="parameter for Pendulum-v1"):
        check_names(declared(tmp_path, algorithms=algorithms, robustness=gravity))
    with pytest.raises(StudyError, match="unexpected keyword argument 'nonsense'"):
        check_names(declared(tmp_path, algorithms=algorithms | {"wrong": {"algo": "sac", "config": "wrong.yml"}}))


def test_no_perturbation_applies(tmp_path, capsys, boards):
    for env in boards:
        path = declare(tmp_path, algorithms=["discretesac"], environments=[env], robustness={})
        assert main(["run", str(path)]) == 2
        assert f"none of the default perturbations applies to {env}. Name one" in capsys.readouterr().err


def test_an_environment_that_only_the_zoo_registers(tmp_path):
    study = declared(tmp_path, environments=["PendulumNoVel-v1"], robustness={})
    assert "parameter g" in [sweep.name for sweep in sweeps_of(study, "PendulumNoVel-v1")]
    check_names(study)
    # In a process of its own, because other tests here import RL Zoo
    code = "import gymnasium, sb3_softac.study.perturbed_evaluation; gymnasium.spec('PendulumNoVel-v1')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_changed_declaration(tmp_path, capsys):
    study = declared(tmp_path, seeds=2)
    check_unchanged(study)
    written, checkpoints = study.declaration_of(study.runs[1]), study.checkpoints_of(study.runs[1])
    checkpoint = checkpoints / "checkpoint-000000000100"
    checkpoint.mkdir(parents=True)
    written.write_text(study.runs[1].as_json())
    check_unchanged(study)
    check_unchanged(declared(tmp_path, seeds=4, algorithms=["softac_v1", "sac"]))  # additions change no run
    path = declare(tmp_path, seeds=2, n_timesteps=2000)
    with pytest.raises(StudyError, match=r": softac_v1/Pendulum-v1/1 \(of the first one: n_timesteps: 300 -> 2000\)"):
        check_unchanged(read_study(path))
    assert main(["run", str(path)]) == 2
    written.write_text('{"algo": ')
    assert main(["run", str(path)]) == 2
    assert "remove the folder" in capsys.readouterr().err
    checkpoint.rmdir()  # as after an error before the first checkpoint
    check_unchanged(read_study(path))


def test_keys_of_a_grid_in_another_order(tmp_path):
    """Runs would start over, in other folders."""
    grid = {"gamma": [0.9, 0.99], "tau": [0.1, 0.2]}
    study = declared(tmp_path, **NO_TRAINING | {"grid": grid})
    write_result(study, study.runs[-1])
    check_unchanged(study)
    turned = declared(tmp_path, **NO_TRAINING | {"grid": dict(reversed(grid.items()))})
    with pytest.raises(
        StudyError, match=r"another order when softac_v1/Pendulum-v1/gamma=0.99_tau=0.2/2 was started: restore"
    ):
        check_unchanged(turned)
