# %% [markdown]
# # Learn from goals that were missed
#
# Flip ten bits until they match the goal. Only the goal is
# rewarded: of 1024 states, random flips hardly ever reach it. Hindsight experience
# replay (HER) also stores each episode as if what it reached had been its goal. The
# replay buffer is SB3's.

# %%
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC

N_BITS = 10
her = dict(
    replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(n_sampled_goal=4)
)

for name, buffer in {"without HER": {}, "with HER": her}.items():
    env = Monitor(BitFlippingEnv(n_bits=N_BITS))  # observations with a goal in them
    model = DiscreteSAC(
        "MultiInputPolicy",
        env,
        learning_rate=1e-3,
        gamma=0.95,
        ent_coef=0.05,
        batch_size=64,
        train_freq=2,
        seed=0,
        **buffer,
    )
    model.learn(total_timesteps=4_000, progress_bar=True)
    returns, _ = evaluate_policy(
        model, env, n_eval_episodes=100, return_episode_rewards=True
    )
    # Each step costs 1 but the one that reaches the goal; after N_BITS steps it is over
    reached = sum(r > -N_BITS for r in returns) / len(returns)
    print(f"goals reached {name}: {reached:.0%}")
