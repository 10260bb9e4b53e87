"""Studio: a text-to-3D and 4D score-distillation studio."""
