"""The file that declares a study: what it means, and what is refused."""

import json

import pytest

from sb3_softac.study import StudyError, read_study
from sb3_softac.study.declaration import slug
from sb3_softac.study.validation import check_names, check_unchanged

GOOD = """
algorithms: [softac_v1]
environments: [Pendulum-v1]
seeds: 2
n_timesteps: 1e3
evaluation: {every: 500}
"""
FULL = """
algorithms:
  softac_v1:
  "SAC, fixed":
    algo: sac
    hyperparams: {ent_coef: 0.5, learning_rate: 1e-3}
    config: own.yml
environments:
  Pendulum-v1: {n_timesteps: 20_000, hyperparams: {learning_starts: 10}, env_kwargs: {g: 5.0}}
  Hopper-v4: {evaluation: {episodes: 3, modes: [stochastic, deterministic]}}
seeds: [3, 7]
n_timesteps: 1000
hyperparams: {learning_rate: 3e-4, tau: 0.01}
grid: {batch_size: [16, 32], policy: [MlpPolicy]}
evaluation: {every: 500, episodes: 20}
output: ../runs
results: results
threads: 2
checkpoint_every: 5e3
"""


def declare(folder, text):
    path = folder / "my study.yml"
    path.write_text(text)
    return path


def test_short(tmp_path):
    study = read_study(declare(tmp_path, GOOD))
    assert [run.seed for run in study.runs] == [0, 1] and study.checkpoint_every == 10_000
    run = study.runs[0]
    assert (run.algorithm, run.algo, run.env, run.n_timesteps) == ("softac_v1", "softac_v1", "Pendulum-v1", 1_000)
    assert (run.evaluate_every, run.evaluation_episodes, run.evaluation_modes) == (500, 10, ("deterministic",))
    assert run.id == "softac_v1/Pendulum-v1/0" and run.name == "SoftAC_v1" and run.threads == 1
    assert study.output == tmp_path / "my study"
    assert study.result_of(run) == tmp_path / "my study" / "results" / "softac_v1" / "Pendulum-v1" / "0.npz"
    assert study.folder_of(run) == tmp_path / "my study" / "runs" / "softac_v1" / "Pendulum-v1" / "0"


def test_full(tmp_path):
    study = read_study(declare(tmp_path, FULL))
    assert len(study.runs) == 2 * 2 * 2 * 2 and len({run.id for run in study.runs}) == 16
    runs = {run.id: run for run in study.runs}
    run = runs["SAC_fixed/Pendulum-v1/batch_size=16_policy=MlpPolicy/7"]
    # What is said of an environment wins over the algorithm, and that over the whole
    assert run.hyperparams == dict(
        learning_rate=1e-3, tau=0.01, ent_coef=0.5, learning_starts=10, batch_size=16, policy="MlpPolicy"
    )
    assert run.n_timesteps == 20_000 and run.evaluation_episodes == 20 and run.algo == "sac" and run.config == "own.yml"
    assert run.env_kwargs == {"g": 5.0} and run.name == "SAC, fixed, batch_size 16, policy MlpPolicy"
    other = runs["softac_v1/Hopper-v4/batch_size=32_policy=MlpPolicy/3"]
    assert other.evaluation_modes == ("stochastic", "deterministic") and other.evaluation_episodes == 3
    assert other.hyperparams["learning_rate"] == 3e-4 and other.evaluate_every == 500 and other.n_timesteps == 1_000
    assert study.output.resolve() == tmp_path.parent / "runs" and study.results == tmp_path / "results"
    assert study.checkpoint_every == 5_000 and run.threads == 2 and study.folder == tmp_path
    assert str(tmp_path) not in run.as_json()  # results do not name the machine's folders
    assert json.loads(run.as_json())["hyperparams"]["tau"] == 0.01


BAD = {
    "an unknown key": ("seeds: 2", "sedes: 2", "unknown key 'sedes', did you mean 'seeds'"),
    "nothing": (GOOD, "", "algorithms is missing"),
    "a list": (GOOD, "[1, 2]", "must be a table of `key: value`"),
    "no YAML": (GOOD, "a: [", "cannot be read"),
    "no seeds": ("seeds: 2", "", "seeds must be the number"),
    "no seed": ("seeds: 2", "seeds: 0", "seeds must be the number"),
    "seeds that are none": ("seeds: 2", "seeds: [1, a]", "seeds must be the number"),
    "a seed twice": ("seeds: 2", "seeds: [1, 1]", "two runs would share the folder softac_v1/Pendulum-v1/1"),
    "no steps": ("n_timesteps: 1e3", "", "n_timesteps (environment steps per run) is missing for softac_v1 on Pendulum-v1"),
    "half a step": ("n_timesteps: 1e3", "n_timesteps: 10.5", "n_timesteps must be a whole number of at least 1, got 10.5"),
    "no evaluation": ("evaluation: {every: 500}", "", "`every` (environment steps between evaluations) is missing"),
    "an unknown way": ("{every: 500}", "{every: 500, modes: [determinstic]}", "did you mean 'deterministic'"),
    "no way": ("{every: 500}", "{every: 500, modes: []}", "modes must be a list"),
    "a setting of evaluations": ("{every: 500}", "{evry: 500}", "evaluation: unknown key 'evry', did you mean 'every'"),
    "a setting of an algorithm": (
        "[softac_v1]",
        "{sac: {hyperparameters: {}}}",
        "algorithms: sac: unknown key 'hyperparameters', did you mean 'hyperparams'",
    ),
    "a setting of an environment": ("[Pendulum-v1]", "{Pendulum-v1: {steps: 1}}", "environments: Pendulum-v1: unknown key"),
    "a grid of no lists": ("seeds: 2", "seeds: 2\ngrid: {tau: 0.1}", "grid: tau needs a list of values"),
    "an algorithm twice": ("[softac_v1]", "[sac, sac]", "must be a list of distinct names"),
    "a number for a table": ("seeds: 2", "seeds: 2\nhyperparams: 3", "hyperparams must be a table of"),
    "no threads": ("seeds: 2", "seeds: 2\nthreads: 0", "threads must be a whole number"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused(tmp_path, what):
    before, after, message = BAD[what]
    assert before in GOOD
    path = declare(tmp_path, GOOD.replace(before, after))
    with pytest.raises(StudyError, match=r"my study\.yml") as caught:
        read_study(path)
    assert message in str(caught.value)


def test_steps_and_seeds_of_an_algorithm(tmp_path):
    """The environment wins over the algorithm, and that over the whole."""
    text = GOOD.replace("[softac_v1]", "{ppo: {n_timesteps: 4000, seeds: 3}, sac: }")
    runs = read_study(declare(tmp_path, text)).runs
    assert [(run.algo, run.seed, run.n_timesteps) for run in runs] == [
        *(("ppo", seed, 4_000) for seed in range(3)),
        *(("sac", seed, 1_000) for seed in range(2)),
    ]
    text = text.replace("[Pendulum-v1]", "{Pendulum-v1: {n_timesteps: 700}}").replace("n_timesteps: 1e3", "")
    assert {run.n_timesteps for run in read_study(declare(tmp_path, text)).runs} == {700}


def test_no_file(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path / "nothing.yml")


UNKNOWN = {
    "softac_v1]": ("softac]", "RL Zoo has no algorithm 'softac', did you mean 'softac_v1'"),
    "Pendulum-v1": ("Pendulm-v1", "Unknown environment 'Pendulm-v1', did you mean 'Pendulum-v1'"),
    "seeds: 2": (
        "seeds: 2\nhyperparams: {ent_coeff: 1}",
        "softac_v1 has no hyperparameter 'ent_coeff', did you mean 'ent_coef'",
    ),
    "[softac_v1]": ("{sac: {config: none.yml}}", "the hyperparameter file none.yml does not exist"),
}


@pytest.mark.parametrize("before", UNKNOWN)
def test_names_that_the_zoo_does_not_know(tmp_path, before):
    after, message = UNKNOWN[before]
    study = read_study(declare(tmp_path, GOOD.replace(before, after)))
    with pytest.raises(StudyError) as caught:
        check_names(study)
    assert message in str(caught.value)


def test_names_that_the_zoo_knows(tmp_path):
    text = GOOD.replace("[softac_v1]", "[softac_v1, sql, discretesac, sac, td3, ddpg, ppo, dqn, qrdqn, tqc]")
    check_names(read_study(declare(tmp_path, text.replace("seeds: 2", "seeds: 2\nhyperparams: {normalize: true, n_envs: 2}"))))


def test_a_changed_declaration_is_noticed(tmp_path):
    study = read_study(declare(tmp_path, GOOD))
    check_unchanged(study)
    written = study.declaration_of(study.runs[1])
    written.parent.mkdir(parents=True)
    written.write_text(study.runs[1].as_json())
    check_unchanged(study)
    more = read_study(declare(tmp_path, GOOD.replace("seeds: 2", "seeds: 4").replace("[softac_v1]", "[softac_v1, sac]")))
    check_unchanged(more)  # what is added changes no run
    changed = read_study(declare(tmp_path, GOOD.replace("1e3", "2e3")))
    with pytest.raises(StudyError, match=r"for example softac_v1/Pendulum-v1/1 \(n_timesteps: 1000 -> 2000\)"):
        check_unchanged(changed)


def test_slug():
    assert slug("SAC, fixed/α") == "SAC_fixed_α"
    assert slug("../../x") == "__.._x" and slug("..") == "_"
