"""Files that declare a study in odd ways: read as they are meant, or refused with the key or the line."""

import copy
import re

import pytest
import yaml

from sb3_softac.study import Study, StudyError, read_study, study_file
from sb3_softac.study.__main__ import main
from sb3_softac.study.declaration import MAX_NAME_BYTES, slug
from sb3_softac.study.validation import check_names

VALID = {
    "algorithms": {
        "softac_v1": None,
        "SAC, fixed": {
            "algo": "sac",
            "hyperparams": {"ent_coef": 0.5, "policy_kwargs": {"net_arch": [8, 8]}},
            "config": "own.yml",
            "n_timesteps": 2000,
            "seeds": [3, 7],
        },
    },
    "environments": {
        "Pendulum-v1": {
            "n_timesteps": 2000,
            "hyperparams": {"learning_rate": 1e-3},
            "env_kwargs": {"g": 5.0},
            "evaluation": {"episodes": 3},
            "robustness": {
                "episodes": 2,
                "perturbations": {"half": {"perturbation": "observation_noise", "strengths": [0.5]}},
            },
        },
    },
    "seeds": 2,
    "n_timesteps": 1000,
    "hyperparams": {"tau": 0.01},
    "grid": {"gamma": [0.9, 0.99]},
    "evaluation": {"every": 500, "episodes": 10, "modes": ["deterministic", "stochastic"]},
    "robustness": {"episodes": 2, "perturbations": {"action_noise": [0.1]}},
    "output": "runs",
    "results": "results",
    "threads": 1,
    "checkpoint_every": 1000,
    "gym_packages": ["json"],
}
ODD = [
    *(
        None,
        True,
        False,
        0,
        -1,
        3,
        1.5,
        1e300,
        -0.0,
        float("inf"),
        10**18,
        2**32,
        "",
        " ",
        "x",
        "$x_$",
        "..",
        "/",
        "~",
        "a:b",
        "a:b:c",
    ),
    *("é", "x" * 5000, "a\nb", "\x07", "1e3", "__import__('os')", ".", "a.b", [], [[]], [None], ["x", "x"], [1, 1], [True]),
    *([1e300], [{}], [{"a": 1}], {}, {"a": 1}, {"": 1}, {"a": {"b": [None]}}, {1: 2}, {None: 1}, {True: 1}, {1.5: None}),
]
YAML = [
    *(
        ".nan",
        "!!set {a}",
        "!!binary aGk=",
        "2020-01-01",
        "2020-01-01 10:00:00",
        "2020-13-45",
        "!!int x",
        "!!int ''",
        "!!float ''",
    ),
    *(
        "!!bool x",
        "!!timestamp x",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!python/object:os.system {}",
        "!!unknown x",
        "0100",
        "0_7",
    ),
    *(
        "1:30",
        "1:30.5",
        "yes",
        "Off",
        "&a [*a]",
        "&a {x: *a}",
        "{? [1, 2] : 3}",
        '"\\ud800"',
        '"\\0"',
        "1" * 5000,
        "0x" + "f" * 5000,
    ),
    *("*nothing", "{a: 1, a: 2}", "'", "<<: 3", "{<<: 3}", "@", "%", "\t"),
]


def places(value, at=()):
    """The paths to all values within a file."""
    yield at
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*at, key))


PLACES = [at for at in places(VALID) if at]


def changed(at, value):
    """The valid file with another value at a place."""
    content = copy.deepcopy(VALID)
    within = content
    for key in at[:-1]:
        within = within[key]
    within[at[-1]] = value
    return content


def outcome(path, keys):
    """Either a study, or an error that names one of the keys or the line."""
    try:
        study = read_study(path)
    except StudyError as error:
        message = str(error).removeprefix(str(path))
        assert not keys or any(str(key) in message for key in keys) or "line " in message, message
        return None
    assert isinstance(study, Study)
    for run in study.runs:
        assert study.output in study.folder_of(run).parents and study.results in study.result_of(run).parents
        assert all(0 < len(part.encode()) < 250 for part in run.id.split("/"))
        assert run.as_json()
    return study


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads a file with that content, without YAML, which is slow and has tests of its own."""
    path = tmp_path / "odd.yml"
    path.write_text("")
    (tmp_path / "own.yml").write_text("default: {policy: MlpPolicy}")

    def outcome_of(content, keys=()):
        monkeypatch.setattr(study_file, "_parse", lambda text: content)
        return outcome(path, keys)

    return outcome_of


@pytest.mark.parametrize("at", PLACES, ids=lambda at: ".".join(map(str, at)))
def test_any_value_replaced(read, at):
    """Never another exception."""
    for value in ODD:
        read(changed(at, value), at)


@pytest.mark.parametrize("at", [("hyperparams", "tau"), ("output",), ("algorithms", "softac_v1"), ("seeds",)])
def test_any_odd_yaml(tmp_path, at):
    path = tmp_path / "odd.yml"
    text = yaml.dump(changed(at, "PLACE_OF_THE_VALUE"), width=10**6)
    for value in YAML:
        path.write_text(text.replace("PLACE_OF_THE_VALUE", value))
        outcome(path, at)


@pytest.mark.parametrize("at", [at for at in PLACES if isinstance(at[-1], str)], ids=lambda at: ".".join(map(str, at)))
def test_any_key_replaced(read, at):
    for key in [one for one in ODD if one.__hash__]:
        content = copy.deepcopy(VALID)
        within = content
        for part in at[:-1]:
            within = within[part]
        within[key] = within.pop(at[-1])
        read(content)


def test_any_value_is_checked_before_a_run_starts(read):
    """What reads well is checked against RL Zoo: a study that can start, or an error that names the place."""
    for at in PLACES:
        for value in ("x", 3, {"a": 1}):
            study = read(changed(at, value), at)
            if study is not None:
                try:
                    check_names(study)
                except StudyError as error:
                    named = [*map(str, at), "'a'" if value == {"a": 1} else str(value)]
                    assert any(name in str(error) for name in named), str(error)


SMALL = """algorithms: [sac]
environments: [Pendulum-v1]
seeds: 2
n_timesteps: 1000
evaluation: {every: 500}
"""
REFUSED = {
    "a key twice": (SMALL + "seeds: 3\n", "line 6: the key 'seeds' is already on line 3"),
    "a key twice within": (SMALL.replace("500", "500, every: 600"), "line 5: the key 'every' is already on line 5"),
    "a name twice": (SMALL.replace("[sac]", "{sac: {}, 'sac': {}}"), "the key 'sac' is already on line 1"),
    "an octal number": (SMALL.replace("1000", "0100"), "line 4: YAML reads 0100 as an octal number"),
    "a number in base 60": (SMALL.replace("1000", "10:00"), "line 4: YAML reads 10:00 as a number in base 60"),
    "yes": (SMALL + "hyperparams: {normalize: yes}", "line 6: YAML reads yes as a boolean: write true or false, or 'yes'"),
    "off": (SMALL + "hyperparams:\n  off: 1", "line 7: YAML reads off as a boolean"),
    "UTF-16": (SMALL.encode("utf-16"), "not in UTF-8"),
    "Latin-1": (SMALL.replace("sac", "é").encode("latin-1"), "not in UTF-8 (byte 14)"),
    "NUL": (SMALL.encode("utf-16-le"), "cannot be read as YAML"),
    "an empty name": (SMALL.replace("[sac]", "{'': {algo: sac}}"), "a name in algorithms must be a text that is not empty"),
    "an empty environment": (SMALL.replace("[Pendulum-v1]", "['']"), "a name in environments must be a text"),
    "modes": (SMALL.replace("500", "500, modes: [{a: 1}]"), "evaluation: modes: unknown mode {'a': 1}"),
    "output": (SMALL + "output: 3", "output must be a text that is not empty, got 3"),
    "no output": (SMALL + "output: ''", "output must be a text"),
    "output in the file": (SMALL + "output: odd.yml", "output would be a folder in the place of the file itself"),
    "results": (SMALL + "results: [1]", "results must be a text"),
    "too few steps": (SMALL.replace("1000", "400"), "every (500) is larger than n_timesteps (400) of sac on Pendulum-v1"),
    "too many runs": (SMALL.replace("seeds: 2", "seeds: 1e9"), "make more than 100000 runs"),
    "a seed too large": (SMALL.replace("seeds: 2", f"seeds: [{2**32}]"), "a list of seeds from 0 to 4294967295"),
    "a boolean for a seed": (SMALL.replace("seeds: 2", "seeds: [true]"), "seeds must be"),
    "NaN": (SMALL + "hyperparams: {gamma: .nan}", "line 6: NaN is not a number: leave it out"),
    "a date": (SMALL + "hyperparams: {gamma: 2020-01-01}", "line 6: datetime.date(2020, 1, 1) is a date"),
    "no date": (SMALL + "hyperparams: {gamma: 2020-13-01}", "line 6: '2020-13-01' is no timestamp: write it in quotes"),
    "itself": (SMALL + "hyperparams: &a {gamma: *a}", "recursive node"),
    "a pit": (SMALL + f"hyperparams: {'[' * 1000}", "nested too deeply"),
    "an explosion": (
        SMALL + "hyperparams:\n  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"  {b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
        "more than 100000 values",
    ),
    "a module": (SMALL + "gym_packages: [../x]", "gym_packages must be a list of Python modules"),
    "a text for modules": (SMALL + "gym_packages: my_envs", "gym_packages must be a list of Python modules"),
    "two colons": (SMALL.replace("[Pendulum-v1]", "['a:b:c']"), "environments: 'a:b:c' must be an id"),
    "nothing after a colon": (SMALL.replace("[Pendulum-v1]", "['a:']"), "environments: 'a:' must be an id"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(tmp_path, what, capsys):
    text, message = REFUSED[what]
    path = tmp_path / "odd.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError, match=re.escape(str(path))) as caught:
        read_study(path)
    assert message in str(caught.value)
    assert main(["report", str(path)]) == 2 and message in capsys.readouterr().err


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "nul\0"):
        with pytest.raises(StudyError, match="cannot be read"):
            read_study(path)


def test_a_file_without_an_ending(tmp_path):
    (tmp_path / "study").write_text(SMALL)
    with pytest.raises(StudyError, match="set another `output`"):
        read_study(tmp_path / "study")


@pytest.mark.parametrize(
    "text", ["\ufeff" + SMALL, SMALL.replace("\n", "\r\n"), SMALL.replace("1000", "1e3"), SMALL + "output: ~\n"]
)
def test_read_as_it_is_meant(tmp_path, text):
    (tmp_path / "odd.yml").write_bytes(text.encode())
    study = read_study(tmp_path / "odd.yml")
    assert [run.n_timesteps for run in study.runs] == [1000, 1000] and study.output == tmp_path / "odd"


def test_numbers(tmp_path):
    """As in YAML 1.2: RL Zoo's loader reads 1e-3 as a text."""
    text = SMALL + "hyperparams: {a: 1e-3, b: '1e-3', c: 1_000, d: 0x10, e: -0, f: 0, g: 0.10, h: 1.5e3, i: 'yes', j: true}"
    (tmp_path / "odd.yml").write_text(text)
    found = read_study(tmp_path / "odd.yml").runs[0].hyperparams
    assert found == dict(a=1e-3, b="1e-3", c=1000, d=16, e=0, f=0, g=0.1, h=1500.0, i="yes", j=True)


def test_tables_may_share_their_keys(tmp_path):
    """A key that overrides one of a merged table is not given twice."""
    text = SMALL.replace("[sac]", "{sac: {hyperparams: &a {gamma: 0.5, tau: 0.1}}, td3: {hyperparams: {<<: *a, tau: 0.2}}}")
    (tmp_path / "odd.yml").write_text(text)
    assert read_study(tmp_path / "odd.yml").runs[-1].hyperparams == {"gamma": 0.5, "tau": 0.2}


def test_long_names_make_folders():
    names = {slug("x" * 1000), slug("x" * 999 + "y"), slug("é" * 1000)}
    assert len(names) == 3 and all(len(name.encode()) <= MAX_NAME_BYTES for name in names)
