"""Models small enough for tests."""

from sb3_softac.sql import SQL

SMALL = dict(
    policy_kwargs=dict(net_arch=[16]),
    batch_size=16,
    learning_starts=10,
    buffer_size=500,
    kernel_particles=8,
    value_particles=8,
)


def make_model(env="Pendulum-v1", policy="MlpPolicy", **kwargs) -> SQL:
    return SQL(policy, env, **{**SMALL, "seed": 0, "device": "cpu", **kwargs})
