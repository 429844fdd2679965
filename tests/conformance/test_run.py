"""The suite as users run it: on a class that is not of this package, on an adapter, and on what is none."""

import os
import subprocess
import sys

import pytest
from stable_baselines3 import SAC

from sb3_softac.conformance import NotApplicable, Subject, as_subject, import_subject, run
from sb3_softac.conformance.__main__ import main
from sb3_softac.conformance.subject import SETTINGS


class Adapter(Subject):
    algorithm = SAC
    settings = {"gamma": 0.5}

    def stored(self):
        return 10


def test_command_on_the_sac_of_sb3(capsys):
    """SB3 does not store the step at which a callback stops: 9 of 10 transitions."""
    assert main(["--algo", "stable_baselines3:SAC", "--only", "stop"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "10" in shown and "9" in shown and "FAIL" in shown
    assert main(["--algo", "stable_baselines3:SAC", "--only", "deterministic"]) == 0


def test_an_adapter_is_used_as_it_is():
    (result,) = run(import_subject(f"{__name__}:Adapter"), only="stop")
    assert result.verdict == "pass" and as_subject(Adapter) is Adapter
    assert Adapter("Pendulum-v1").model.gamma == 0.5
    with pytest.raises(NotApplicable, match="takes no masks"):
        Adapter("Pendulum-v1", masks=True)


def test_one_algorithm_does_not_change_the_settings_of_the_next():
    """SB3's SAC adds use_sde to policy_kwargs."""
    as_subject(SAC)("Pendulum-v1")
    assert SETTINGS["policy_kwargs"] == {"net_arch": [64, 64]}


class Variant(SAC):
    """As users write it."""

    def __init__(self, *args, my_option=1.0, **kwargs):
        super().__init__(*args, **kwargs)


class Faulty(SAC):
    def predict(self, *args, **kwargs):
        raise RuntimeError("[a] fault")


def test_arguments_that_a_variant_passes_on_are_known():
    assert as_subject(Variant)("Pendulum-v1", tau=0.5).model.tau == 0.5


def test_an_error_is_a_failure_and_the_next_check_runs(capsys):
    assert main(["--algo", f"{__name__}:Faulty", "--only", "deterministic"]) == 1
    shown = capsys.readouterr().out
    assert "RuntimeError" in shown and "[a] fault" in shown and "FAIL" in shown


def test_what_the_algorithm_does_not_offer_is_named():
    (result,) = run(import_subject("sb3_softac:SQL"), only="density at")
    assert (result.verdict, result.found) == ("not applicable", "has no actor.mu")


@pytest.mark.parametrize(
    ("name", "only", "message"),
    [
        ("SAC", "", "must be module:Class"),
        ("stable_baselines3:PPOO", "", "stable_baselines3 has no class 'PPOO', did you mean 'PPO'"),
        ("stable_baselines3:common", "", "stable_baselines3 has no class 'common'"),
        ("no_such_module:SAC", "", "No module named 'no_such_module'"),
        ("stable_baselines3:TD3", "", "can be created neither for Box nor for Discrete actions: .* argument 'ent_coef'"),
        ("stable_baselines3:SAC", "mask", r"no check for \['Box'\] actions has 'mask' in its name"),
    ],
)
def test_wrong_names_are_refused(name, only, message):
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        main(["--algo", name, "--only", only])


@pytest.mark.slow
def test_of_pytest():
    command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "sb3_softac.conformance", "-k", "stop_and_continue"]
    environment = {**os.environ, "CONFORMANCE_ALGO": "stable_baselines3:SAC"}
    result = subprocess.run([*command, "-p", "no:cacheprovider"], env=environment, capture_output=True, text=True)
    assert "1 failed, 1 skipped" in result.stdout and "is taken in the environment and never stored" in result.stdout
