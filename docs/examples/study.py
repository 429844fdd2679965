# %% [markdown]
# # Compare algorithms over several seeds
#
# A study is a file that declares algorithms, environments and seeds. Two commands train
# and report it.

# %%
import csv
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

Path("pendulum.yml").write_text("""
algorithms:
  SoftAC_v1: {algo: softac_v1}
  SAC: {algo: sac, hyperparams: {ent_coef: 0.2}}
environments: [Pendulum-v1]
seeds: 3
n_timesteps: 5000
hyperparams:
  learning_rate: 1e-3
  batch_size: 64
  policy_kwargs: {net_arch: [64, 64]}
evaluation: {every: 500, episodes: 5}
""")

# %% [markdown]
# In a shell this is `python -m sb3_softac.study run pendulum.yml`, and then `report` in
# place of `run`. Both may be stopped and repeated: what is done is not done again.

# %%
for command in ("run", "report"):
    arguments = [sys.executable, "-m", "sb3_softac.study", command, "pendulum.yml"]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

# %% [markdown]
# `pendulum/report/index.html` is the report: one page with the curve of every seed, and
# beside it the plots and tables as files. Here are one of each.

# %%
report = Path("pendulum/report")
plt.figure(figsize=(8, 6))
plt.imshow(plt.imread(report / "Pendulum-v1_deterministic_by_environment.png"))
plt.axis("off")
plt.savefig("study.png", bbox_inches="tight")
with open(report / "Pendulum-v1_deterministic_final.csv") as table:
    for row in csv.DictReader(table):
        print(f"{row['algorithm']}: {row['IQM']} (seeds: {row['all seeds']})")
