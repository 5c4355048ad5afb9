"""The ablation court: claims about a recipe, each tried by arms that differ in nothing else."""
