"""Evaluation of models: tasks, engines that answer, statistics, and reports of the scores."""
