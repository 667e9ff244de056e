"""Hydra plugin: our overlays are known to every Hydra program, so ``+verl_pipeline=cpu`` works on
verl's entry, and a command that chooses them is looked at before Hydra composes it.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from verl_pipeline.entry_points import find_entry


class VerlPipelineSearchPath(SearchPathPlugin):
    """Adds ``pkg://verl_pipeline.config`` behind the program's own configuration."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="verl-pipeline", path="pkg://verl_pipeline.config")
        if find_entry() is not None:
            # Not at the top: Hydra imports this module in every program.
            from verl_pipeline.entry_checks import refuse_wrong_command

            refuse_wrong_command(search_path)
