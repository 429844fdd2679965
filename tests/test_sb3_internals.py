"""
What the package relies on in SB3 beyond its public interface. If SB3 changes it, a test here says what, and where to mend.
"""

import importlib
import inspect
import pkgutil
import sys

import pytest
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

import sb3_softac
from sb3_softac.algorithm.arguments import GIVEN_TO_BUFFERS
from tests.toys import BOX, VECTOR, RandomEnv, StopAt

# Methods that we override, by the class that has them: their arguments, and where the override is
OFF_POLICY = "algorithm/off_policy.py, discrete/discrete_algorithm.py"
OVERRIDDEN = {
    "OffPolicyAlgorithm._sample_action": ("learning_starts action_noise n_envs", OFF_POLICY),
    "OffPolicyAlgorithm._store_transition": ("replay_buffer buffer_action new_obs reward dones infos", OFF_POLICY),
    "OffPolicyAlgorithm._setup_model": ("", OFF_POLICY),
    "OffPolicyAlgorithm._setup_learn": (
        "total_timesteps callback reset_num_timesteps tb_log_name progress_bar",
        f"{OFF_POLICY}, softac_v1/softac_v1.py, sql/sql.py",
    ),
    "BaseAlgorithm._wrap_env": ("env verbose monitor_wrapper", OFF_POLICY),
    "BaseAlgorithm._excluded_save_params": ("", OFF_POLICY),
    "BaseAlgorithm._get_policy_from_name": ("policy_name", OFF_POLICY),
    "BaseAlgorithm._get_torch_save_params": ("", OFF_POLICY),
    "BaseAlgorithm._update_current_progress_remaining": ("num_timesteps total_timesteps", OFF_POLICY),
    "BaseAlgorithm._update_learning_rate": ("optimizers", OFF_POLICY),
    "ReplayBuffer._get_samples": ("batch_inds env", "replay/buffer.py"),
    "SACPolicy._build": ("lr_schedule", "policies.py of each algorithm"),
    "SACPolicy._get_constructor_parameters": ("", "policies.py of each algorithm"),
    "SACPolicy._predict": ("observation deterministic", "sql/policies.py"),
    "BaseModel._get_constructor_parameters": ("", "nets/, sql/sampler.py"),
    "BasePolicy._predict": ("observation deterministic", "nets/base.py"),
}
# Hooks that SB3 documents for subclasses of its callbacks
PUBLIC = {"_on_step", "_on_rollout_start", "_on_rollout_end", "_on_training_start", "_on_training_end"}
# Attributes that we read or set: the object that has them, and where
ATTRIBUTES = {
    "model": (
        "_vec_normalize_env _n_updates _last_obs _last_original_obs _last_episode_starts _current_progress_remaining "
        "_total_timesteps _num_timesteps_at_start _episode_num _custom_logger _logger _update_info_buffer _setup_lr_schedule",
        "algorithm/off_policy.py, resume/snapshot.py",
    ),
    "policy": ("_update_features_extractor", "softac_v1/policies.py"),
    "buffer": ("_normalize_reward _normalize_obs", "replay/buffer.py"),
    "env": ("_seeds _options", "resume/vec_envs.py"),
}
# Names of local variables that we read
LOCALS = {
    OffPolicyAlgorithm.collect_rollouts: ("infos dones buffer_actions new_obs rewards", "algorithm/off_policy.py"),
    OffPolicyAlgorithm.learn: ("callback", "resume/callback.py"),
    OnPolicyAlgorithm.learn: ("callback iteration", "resume/callback.py, resume/logs.py"),
}


def overridden():
    """:return: Methods of SB3 under names with an underscore that classes of the package override, with SB3's function."""
    for module in pkgutil.walk_packages(sb3_softac.__path__, "sb3_softac."):
        if "__main__" not in module.name and "_step" not in module.name:
            importlib.import_module(module.name)
    found = {}
    for module in [each for name, each in sys.modules.items() if name.startswith("sb3_softac.")]:
        for kind in [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]:
            for name in [each for each in vars(kind) if each.startswith("_") and not each.startswith("__")]:
                base = next((base for base in kind.__mro__[1:] if name in vars(base)), None)
                if base and base.__module__.startswith("stable_baselines3") and name not in {*PUBLIC, "_abc_impl"}:
                    found[f"{base.__name__}.{name}"] = getattr(base, name)
    return found


def test_methods_that_we_override():
    found = overridden()
    assert found.keys() == OVERRIDDEN.keys()
    for name, method in found.items():
        arguments = [argument for argument in inspect.signature(method).parameters if argument != "self"]
        expected, where = OVERRIDDEN[name]
        assert arguments == expected.split(), f"SB3's {name} has other arguments: mend sb3_softac/{where}"


def test_attributes_that_we_use():
    model = SAC("MlpPolicy", VecNormalize(make_vec_env(lambda: RandomEnv(VECTOR, BOX))), device="cpu", buffer_size=10)
    model._setup_learn(1)
    objects = {"model": model, "policy": model.policy, "buffer": model.replay_buffer, "env": model.get_env().venv}
    for name, (attributes, where) in ATTRIBUTES.items():
        for attribute in attributes.split():
            assert hasattr(objects[name], attribute), f"SB3's {name} has no {attribute} any more: mend sb3_softac/{where}"
    assert isinstance(model._get_torch_save_params()[0], list)


@pytest.mark.parametrize("function", LOCALS, ids=lambda function: function.__qualname__)
def test_local_variables_that_we_read(function):
    names, where = LOCALS[function]
    missing = set(names.split()) - set(function.__code__.co_varnames)
    assert not missing, f"SB3's {function.__qualname__} has no variables {missing} any more: mend sb3_softac/{where}"


def test_the_step_at_which_a_callback_stops_is_not_stored_by_sb3():
    """If it is, ``SoftOffPolicyAlgorithm.collect_rollouts`` must not store it again."""
    model = SAC("MlpPolicy", RandomEnv(VECTOR, BOX), learning_starts=100, device="cpu", buffer_size=20)
    model.learn(10, callback=StopAt(5))
    assert (model.num_timesteps, model.replay_buffer.size()) == (5, 4)


def test_arguments_of_buffers():
    """They are given to the replay buffer by SB3; ``GIVEN_TO_BUFFERS`` in algorithm/arguments.py names them."""
    of_users = {"handle_timeout_termination"}
    assert set(inspect.signature(ReplayBuffer).parameters) - of_users == {*GIVEN_TO_BUFFERS}


def test_iterations_of_algorithms_with_rollouts_are_a_local_variable():
    """``resume/logs.py`` sets it in the frame of ``learn``."""
    model = PPO("MlpPolicy", RandomEnv(VECTOR, BOX), n_steps=4, batch_size=4, n_epochs=1, device="cpu")
    seen = []

    class Look(BaseCallback):
        def _on_step(self):
            frame = sys._getframe()
            while frame is not None and frame.f_code is not OnPolicyAlgorithm.learn.__code__:
                frame = frame.f_back
            seen.append(None if frame is None else frame.f_locals["iteration"])
            return True

    model.learn(8, callback=Look())
    assert seen == [0] * 4 + [1] * 4
