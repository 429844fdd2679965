"""The file of a study: read as it is meant, or refused with the key or the line."""

import copy
import json
import re

import pytest
import yaml

from sb3_softac.study import Study, StudyError, read_study, study_file
from sb3_softac.study.__main__ import main
from sb3_softac.study.declaration import MAX_NAME_BYTES, slug
from sb3_softac.study.validation import check_names

SMALL = """algorithms: [sac]
environments: [Pendulum-v1]
seeds: 2
n_timesteps: 1000
evaluation: {every: 500}
"""
FULL = """
algorithms:
  softac_v1:
  "SAC, fixed":
    algo: sac
    hyperparams: {ent_coef: 0.5, learning_rate: 1e-3}
    config: own.yml
  td3: {n_timesteps: 4000, seeds: 1}
environments:
  Pendulum-v1:
    n_timesteps: 20_000
    hyperparams: {learning_starts: 10}
    env_kwargs: {g: 5.0}
    robustness: {episodes: 5, perturbations: {half gravity: {perturbation: parameter, name: g, strengths: [0.5, 2.0]}}}
  Hopper-v4: {evaluation: {episodes: 3, modes: [stochastic, deterministic]}}
seeds: [3, 7]
n_timesteps: 1000
hyperparams: {learning_rate: 3e-4, tau: 0.01}
grid: {batch_size: [16, 32], policy: [MlpPolicy]}
evaluation: {every: 500, episodes: 20}
robustness: {episodes: 3, perturbations: {observation_noise: [1e-1, '2e-1']}}
output: ../runs
results: results
threads: 2
checkpoint_every: 5e3
"""


def read(folder, text):
    (folder / "my study.yml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_study(folder / "my study.yml")


def test_defaults(tmp_path):
    study = read(tmp_path, SMALL)
    run, other = study.runs
    assert (run.seed, other.seed, run.algo, run.env, run.n_timesteps) == (0, 1, "sac", "Pendulum-v1", 1_000)
    assert (run.evaluate_every, run.evaluation_episodes, run.evaluation_modes) == (500, 10, ("deterministic",))
    assert run.id == "sac/Pendulum-v1/0" and run.name == "SAC" and run.threads == 1
    assert study.checkpoint_every == 10_000 and not study.robustness
    assert study.result_of(run) == tmp_path / "my study" / "results" / "sac" / "Pendulum-v1" / "0.npz"
    assert study.folder_of(run) == tmp_path / "my study" / "runs" / "sac" / "Pendulum-v1" / "0"


def test_every_key(tmp_path):
    """Settings of an environment override those of an algorithm, which override those of the whole file."""
    study = read(tmp_path, FULL)
    runs = {run.id: run for run in study.runs}
    assert len(study.runs) == len(runs) == (2 + 2 + 1) * 2 * 2
    run = runs["SAC_fixed/Pendulum-v1/batch_size=16_policy=MlpPolicy/7"]
    assert run.hyperparams == dict(
        learning_rate=1e-3, tau=0.01, ent_coef=0.5, learning_starts=10, batch_size=16, policy="MlpPolicy"
    )
    assert (run.n_timesteps, run.evaluation_episodes, run.algo, run.config) == (20_000, 20, "sac", "own.yml")
    assert run.env_kwargs == {"g": 5.0} and run.name == "SAC, fixed, batch_size 16, policy MlpPolicy" and run.threads == 2
    assert str(tmp_path) not in run.as_json() and json.loads(run.as_json())["hyperparams"]["tau"] == 0.01
    other = runs["softac_v1/Hopper-v4/batch_size=32_policy=MlpPolicy/3"]
    assert other.evaluation_modes == ("stochastic", "deterministic") and other.evaluation_episodes == 3
    assert (other.hyperparams["learning_rate"], other.evaluate_every, other.n_timesteps) == (3e-4, 500, 1_000)
    assert runs["td3/Hopper-v4/batch_size=32_policy=MlpPolicy/0"].n_timesteps == 4_000
    assert study.output.resolve() == tmp_path.parent / "runs" and study.results == tmp_path / "results"
    assert study.checkpoint_every == 5_000
    assert {env: robustness.episodes for env, robustness in study.robustness.items()} == {"Pendulum-v1": 5, "Hopper-v4": 3}
    (noise,), (gravity,) = (study.robustness[env].sweeps for env in ("Hopper-v4", "Pendulum-v1"))
    assert noise.name == noise.perturbation == "observation_noise" and noise.axis == (0.0, 0.1, 0.2)
    assert (gravity.name, gravity.perturbation, gravity.options) == ("half gravity", "parameter", {"name": "g"})
    assert gravity.axis == (0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    "text", ["\ufeff" + SMALL, SMALL.replace("\n", "\r\n"), SMALL.replace("1000", "1e3"), SMALL + "output: ~\n"]
)
def test_spellings(tmp_path, text):
    study = read(tmp_path, text)
    assert [run.n_timesteps for run in study.runs] == [1000, 1000] and study.output == tmp_path / "my study"


def test_numbers(tmp_path):
    """As in YAML 1.2: 1e-3 is a number."""
    text = SMALL + "hyperparams: {a: 1e-3, b: '1e-3', c: 1_000, d: 0x10, e: -0, f: 0, g: 0.10, h: 1.5e3, i: 'yes', j: true}"
    found = read(tmp_path, text).runs[0].hyperparams
    assert found == dict(a=1e-3, b="1e-3", c=1000, d=16, e=0, f=0, g=0.1, h=1500.0, i="yes", j=True)


def test_merged_tables(tmp_path):
    """A key that overrides one of a merged table is not a repeated key."""
    text = SMALL.replace("[sac]", "{sac: {hyperparams: &a {gamma: 0.5, tau: 0.1}}, td3: {hyperparams: {<<: *a, tau: 0.2}}}")
    assert read(tmp_path, text).runs[-1].hyperparams == {"gamma": 0.5, "tau": 0.2}


def replaced(before, after):
    assert before in SMALL
    return SMALL.replace(before, after)


STRENGTHS = "strengths must be a list of distinct numbers"
EXPLOSION = "hyperparams:\n  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"  {b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
REFUSED = {
    # keys and names
    replaced("seeds: 2", "sedes: 2"): "unknown key 'sedes', did you mean 'seeds'",
    replaced("every: 500", "evry: 500"): "evaluation: unknown key 'evry', did you mean 'every'",
    replaced("[sac]", "{sac: {hyperparameters: {}}}"): "algorithms: sac: unknown key 'hyperparameters', did you mean",
    replaced("[Pendulum-v1]", "{Pendulum-v1: {steps: 1}}"): "environments: Pendulum-v1: unknown key",
    replaced("[sac]", "[sac, sac]"): "must be a list of distinct names",
    replaced("[sac]", "{'': {algo: sac}}"): "a name in algorithms must be a non-empty text",
    replaced("[Pendulum-v1]", "['']"): "a name in environments must be a non-empty text",
    replaced("[Pendulum-v1]", "['a:b:c']"): "environments: 'a:b:c' must be an id",
    replaced("[Pendulum-v1]", "['a:']"): "environments: 'a:' must be an id",
    SMALL + "seeds: 3\n": "line 6: the key 'seeds' is already on line 3",
    replaced("500", "500, every: 600"): "line 5: the key 'every' is already on line 5",
    replaced("[sac]", "{sac: {}, 'sac': {}}"): "the key 'sac' is already on line 1",
    # values
    "": "algorithms is missing",
    "[1, 2]": "must be a table of `key: value`",
    replaced("seeds: 2", ""): "seeds must be the number",
    replaced("seeds: 2", "seeds: 0"): "seeds must be the number",
    replaced("seeds: 2", "seeds: [true]"): "seeds must be the number",
    replaced("[sac]", "{dqn: {}, DQN: {algo: dqn}}"): "dqn and DQN would both be called DQN: give one of them another name",
    replaced("seeds: 2", "seeds: [1, 1]"): "two runs would share the folder sac/Pendulum-v1/1",
    replaced("seeds: 2", f"seeds: [{2**32}]"): "a list of seeds from 0 to 4294967295",
    replaced("seeds: 2", "seeds: 200_000"): "make more than 100000 runs",
    replaced("n_timesteps: 1000", ""): "n_timesteps (environment steps per run) is missing for sac on Pendulum-v1",
    replaced("1000", "10.5"): "n_timesteps must be an integer, at least 1, got 10.5",
    replaced("1000", "400"): "every (500) is larger than n_timesteps (400) of sac on Pendulum-v1",
    replaced("evaluation: {every: 500}", ""): "`every` (environment steps between evaluations) is missing",
    replaced("500", "500, modes: [determinstic]"): "did you mean 'deterministic'",
    replaced("500", "500, modes: []"): "modes must be a list",
    replaced("500", "500, modes: [{a: 1}]"): "evaluation: modes: unknown mode {'a': 1}",
    SMALL + "grid: {tau: 0.1}": "grid: tau needs a list of values",
    SMALL + "hyperparams: 3": "hyperparams must be a table of",
    SMALL + "threads: 0": "threads must be an integer, at least 1 and at most 1024, got 0",
    SMALL + "output: 3": "output must be a non-empty text, got 3",
    SMALL + "output: ''": "output must be a non-empty text",
    SMALL + "output: my study.yml": "output would be a folder at the path of this file",
    SMALL + "results: [1]": "results must be a non-empty text",
    SMALL + "gym_packages: [../x]": "gym_packages must be a list of Python modules",
    SMALL + "gym_packages: my_envs": "gym_packages must be a list of Python modules",
    # perturbations
    SMALL + "robustness: {episode: 3}": "unknown key 'episode', did you mean 'episodes'",
    SMALL + "robustness: {episodes: 0}": "robustness: episodes must be an integer, at least 1",
    SMALL + "robustness: {perturbations: [push]}": "perturbations must be a table of `key: value`",
    SMALL + "robustness: {perturbations: {}}": "robustness: perturbations is empty",
    SMALL + "robustness: {perturbations: {action_nois: [0.1]}}": "did you mean 'action_noise'",
    SMALL + "robustness: {perturbations: {x: {perturbation: [push]}}}": "unknown perturbation ['push']",
    SMALL + "robustness: {perturbations: {action_noise: []}}": STRENGTHS,
    SMALL + "robustness: {perturbations: {action_noise: 0.1}}": STRENGTHS,
    SMALL + "robustness: {perturbations: {action_noise: [0.1, '1e-1']}}": STRENGTHS,
    SMALL + "robustness: {perturbations: {action_noise: [0.1, true]}}": STRENGTHS,
    SMALL + "robustness: {perturbations: {push: {stregths: [1]}}}": "push: unknown key 'stregths', did you mean 'strengths'",
    SMALL + "robustness: {perturbations: {parameter: [0.5]}}": "parameter needs 'name'",
    # what YAML makes of a text
    "a: [": "cannot be read",
    replaced("1000", "0100"): "line 4: YAML reads 0100 as an octal number",
    replaced("1000", "10:00"): "line 4: YAML reads 10:00 as a number in base 60",
    SMALL + "hyperparams: {normalize: yes}": "line 6: YAML reads yes as a boolean: write true or false, or 'yes'",
    SMALL + "hyperparams:\n  off: 1": "line 7: YAML reads off as a boolean",
    SMALL + "hyperparams: {gamma: .nan}": "line 6: NaN is not a number: leave it out",
    SMALL + "hyperparams: {gamma: 2020-01-01}": "line 6: datetime.date(2020, 1, 1) is a date",
    SMALL + "hyperparams: {gamma: 2020-13-01}": "line 6: '2020-13-01' is not a valid timestamp: write it in quotes",
    SMALL + "hyperparams: &a {gamma: *a}": "recursive node",
    SMALL + f"hyperparams: {'[' * 1000}": "nested too deeply",
    SMALL + EXPLOSION: "more than 100000 values",
    SMALL.encode("utf-16"): "not in UTF-8",
    SMALL.encode("utf-16-le"): "cannot be read as YAML",
    SMALL.replace("sac", "é").encode("latin-1"): "not in UTF-8 (byte 14)",
}


def test_refused(tmp_path):
    for text, message in REFUSED.items():
        with pytest.raises(StudyError, match=re.escape(str(tmp_path))) as caught:
            read(tmp_path, text)
        assert message in str(caught.value), text


def test_the_command_shows_the_error(tmp_path, capsys):
    with pytest.raises(StudyError):
        read(tmp_path, "[1]")
    for command in ("run", "robustness", "report"):
        assert main([command, str(tmp_path / "my study.yml")]) == 2
        assert "my study.yml: the file must be a table" in capsys.readouterr().err


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "nul\0"):
        with pytest.raises(StudyError, match="cannot be read"):
            read_study(path)
    (tmp_path / "study").write_text(SMALL)  # without a suffix
    with pytest.raises(StudyError, match="set another `output`"):
        read_study(tmp_path / "study")


def test_folder_names():
    assert slug("SAC, fixed/α") == "SAC_fixed_α" and slug("../../x") == "__.._x" and slug("..") == "_"
    names = {slug("x" * 1000), slug("x" * 999 + "y"), slug("é" * 1000)}
    assert len(names) == 3 and all(len(name.encode()) <= MAX_NAME_BYTES for name in names)


# Any value in any place: a study, or an error that names the place; never another exception

ODD = [
    *(None, True, False, 0, -1, 3, 1.5, 1e300, -0.0, float("inf"), 10**18, 2**32),
    *("", " ", "x", "$x_$", "..", "/", "~", "a:b", "a:b:c", "é", "x" * 5000, "a\nb", "\x07", "1e3", "__import__('os')", "."),
    *([], [[]], [None], ["x", "x"], [1, 1], [True], [1e300], [{}], [{"a": 1}]),
    *({}, {"a": 1}, {"": 1}, {"a": {"b": [None]}}, {1: 2}, {None: 1}, {True: 1}, {1.5: None}),
]
ODD_YAML = """
.nan | !!set {a} | !!binary aGk= | 2020-01-01 | 2020-01-01 10:00:00 | 2020-13-45 | !!int x | !!int '' | !!float '' | !!bool x
!!timestamp x | !!omap [a: 1] | !!pairs [a: 1] | !!python/object:os.system {} | !!unknown x | 0100 | 0_7 | 1:30 | 1:30.5 | yes
Off | &a [*a] | &a {x: *a} | {? [1, 2] : 3} | "\\ud800" | "\\0" | *nothing | {a: 1, a: 2} | ' | <<: 3 | {<<: 3} | @ | %
"""


def paths_in(value, at=()):
    """The paths to all values in a file."""
    yield at
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_in(part, (*at, key))


CONTENT = yaml.load(FULL, study_file.ZooLoader)
PATHS = [at for at in paths_in(CONTENT) if at]


def changed(at, value):
    """The full file with another value in one place."""
    content = copy.deepcopy(CONTENT)
    table = content
    for key in at[:-1]:
        table = table[key]
    table[at[-1]] = value
    return content


def assert_study_or_error(path, keys):
    try:
        study = read_study(path)
    except StudyError as error:
        message = str(error).removeprefix(str(path))
        assert not keys or any(str(key) in message for key in keys) or "line " in message, message
        return None
    assert isinstance(study, Study)
    for run in study.runs:
        assert study.output in study.folder_of(run).parents and study.results in study.result_of(run).parents
        assert all(0 < len(part.encode()) < 250 for part in run.id.split("/")) and run.as_json()
    return study


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """Path of a file, and a function that sets its content without YAML, which is slow."""
    (tmp_path / "odd.yml").write_text("")
    (tmp_path / "own.yml").write_text("default: {policy: MlpPolicy}")
    return tmp_path / "odd.yml", lambda content: monkeypatch.setattr(study_file, "_parse", lambda text: content)


def test_any_value(parsed):
    path, set_content = parsed
    for at in PATHS:
        for value in ODD:
            set_content(changed(at, value))
            assert_study_or_error(path, at)


def test_any_key(parsed):
    path, set_content = parsed
    for at in [at for at in PATHS if isinstance(at[-1], str)]:
        for key in [value for value in ODD if value.__hash__]:
            content = copy.deepcopy(CONTENT)
            table = content
            for part in at[:-1]:
                table = table[part]
            table[key] = table.pop(at[-1])
            set_content(content)
            assert_study_or_error(path, ())


def test_any_value_is_checked_before_a_run_starts(parsed):
    """A study that reads well can start, or an error names the place."""
    path, set_content = parsed
    for at in PATHS:
        for value in ("x", {"a": 1}):
            set_content(changed(at, value))
            study = assert_study_or_error(path, at)
            if study is not None:
                try:
                    check_names(study)
                except StudyError as error:
                    named = [*map(str, at), "'a'" if value == {"a": 1} else str(value)]
                    assert any(name in str(error) for name in named), str(error)


@pytest.mark.parametrize("at", [("hyperparams", "tau"), ("output",), ("algorithms", "softac_v1"), ("seeds",)])
def test_any_yaml(tmp_path, at):
    path = tmp_path / "odd.yml"
    text = yaml.dump(changed(at, "PLACE_OF_THE_VALUE"), width=10**6)
    for value in [*ODD_YAML.replace("\n", " | ").split(" | "), "1" * 5000, "0x" + "f" * 5000, "\t"]:
        path.write_text(text.replace("PLACE_OF_THE_VALUE", value))
        assert_study_or_error(path, at)
