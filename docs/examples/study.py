"""A small study: two algorithms, three seeds each, trained and reported by what a file declares."""

import subprocess
import sys
import tempfile
from pathlib import Path

DECLARATION = """
algorithms:
  SoftAC_v1: {{algo: softac_v1}}
  SAC: {{algo: sac, hyperparams: {{ent_coef: 0.2}}}}
environments: [Pendulum-v1]
seeds: {seeds}
n_timesteps: {timesteps}
hyperparams: {{learning_rate: 1e-3, policy_kwargs: {{net_arch: [64, 64]}}, batch_size: 64}}
evaluation: {{every: {every}, episodes: 5}}
"""


def main(timesteps: int = 2_000, seeds: int = 3, folder: str | None = None) -> Path:
    """Return the page with the learning curve of every seed."""
    file = Path(folder or tempfile.mkdtemp()) / "pendulum.yml"
    file.write_text(DECLARATION.format(timesteps=timesteps, seeds=seeds, every=timesteps // 5))
    # What one would type in a shell. `run` may be stopped and repeated: what is done is not done again.
    for command in ("run", "report"):
        subprocess.run([sys.executable, "-m", "sb3_softac.study", command, str(file)], check=True)
    return file.with_suffix("") / "report" / "index.html"


if __name__ == "__main__":
    print(f"open {main()}")
