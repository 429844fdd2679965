"""
Trained policies for other programs: safetensors, ``torch.export`` and ONNX.

All three contain the complete mapping from observations to actions of the environment: running statistics of ``VecNormalize``,
scaling of images, networks, and the bounds of the actions.
"""

from sb3_softac.export.policy import ExportedPolicy, exported_policy
from sb3_softac.export.programs import export_onnx, export_program
from sb3_softac.export.safetensors_file import export_safetensors, load_policy

__all__ = ["ExportedPolicy", "export_onnx", "export_program", "export_safetensors", "exported_policy", "load_policy"]
