"""How good a model is: problems, prompts, extraction, execution, scores."""
